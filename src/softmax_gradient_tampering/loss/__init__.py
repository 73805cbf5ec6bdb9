"""The loss room: everything here needs torch alone."""

from softmax_gradient_tampering.loss.folding import fold_alpha
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy
from softmax_gradient_tampering.loss.generic import (
    tamper,
    tampered_binary_cross_entropy_with_logits,
)
from softmax_gradient_tampering.loss.linear import tampered_linear_cross_entropy
from softmax_gradient_tampering.loss.module import TamperedCrossEntropyLoss
from softmax_gradient_tampering.loss.probability import power_transform, stationary_threshold
from softmax_gradient_tampering.loss.statistics import LogitStatistics, logit_statistics

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
