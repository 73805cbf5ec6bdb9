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

__version__ = "0.1.0"

__all__ = [
    "LogitStatistics",
    "ScaledLogits",
    "TamperedCrossEntropyLoss",
    "TamperedTrainerLoss",
    "equivalent_parameter_groups",
    "fold_alpha",
    "logit_statistics",
    "power_transform",
    "stationary_threshold",
    "tamper",
    "tampered_binary_cross_entropy_with_logits",
    "tampered_cross_entropy",
    "tampered_linear_cross_entropy",
]

TYPE_CHECKING = (
    False  # to type checkers it is true under this name; typing itself takes long to load
)

if TYPE_CHECKING:
    from softmax_gradient_tampering.loss import (
        LogitStatistics,
        ScaledLogits,
        TamperedCrossEntropyLoss,
        TamperedTrainerLoss,
        equivalent_parameter_groups,
        fold_alpha,
        logit_statistics,
        power_transform,
        stationary_threshold,
        tamper,
        tampered_binary_cross_entropy_with_logits,
        tampered_cross_entropy,
        tampered_linear_cross_entropy,
    )
else:  # a type checker that saw these functions would take any misspelled name for a public one

    def __getattr__(name):
        """A public name, imported when it is first used: the command line starts without torch."""
        if name not in __all__ and name != "loss":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        loss = import_module(f"{__name__}.loss")
        value = loss if name == "loss" else getattr(loss, name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
