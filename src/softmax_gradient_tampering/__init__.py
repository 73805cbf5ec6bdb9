"""Softmax gradient tampering: cross-entropy with a power-transformed gradient.

The value of the loss is the ordinary cross-entropy; in the backward pass the
predicted probabilities p are replaced by p' = p^alpha / sum(p^alpha), which is
softmax(alpha * z), so that dL/dz = p' - q.

>>> import torch
>>> from softmax_gradient_tampering import tampered_cross_entropy
>>> logits = torch.zeros(2, 3, requires_grad=True)
>>> loss = tampered_cross_entropy(logits, torch.tensor([0, 2]), alpha=0.25)
>>> loss.backward()

Source: arXiv 2111.12495.
"""

from softmax_gradient_tampering.loss import (
    LogitStatistics,
    TamperedCrossEntropyLoss,
    fold_alpha,
    logit_statistics,
    power_transform,
    stationary_threshold,
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)

__version__ = "0.1.0"

__all__ = [
    "LogitStatistics",
    "TamperedCrossEntropyLoss",
    "fold_alpha",
    "logit_statistics",
    "power_transform",
    "stationary_threshold",
    "tamper",
    "tampered_binary_cross_entropy_with_logits",
    "tampered_cross_entropy",
    "tampered_linear_cross_entropy",
]
