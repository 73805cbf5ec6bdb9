"""Folding alpha into a trained classifier, for calibrated inference."""

from typing import TypeVar

import torch
from torch import nn

from softmax_gradient_tampering.loss.alpha import check_alpha

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
def fold_alpha(model_or_linear: ModuleT, alpha: float) -> ModuleT:
    """Multiply a classifier's weight and bias by alpha, in place.

    Training at alpha minimises cross_entropy(alpha z), so softmax(alpha z), which the folded
    classifier gives, is the prediction that ordinary training would have given. Accuracy does
    not change; the calibration usually improves. Where the net would have been
    under-confident under ordinary training too, a temperature fitted on held-out data,
    started at alpha, is the better tool.

    Args:
        model_or_linear: an nn.Linear; or a model with timm's `get_classifier()`, or whose
            last module is an nn.Linear. It gets an attribute `folded_alpha`.
        alpha: the exponent of the training, > 0.

    Returns:
        The argument itself.

    Raises:
        ValueError: alpha is not above 0, the classifier is already folded, or none is found.

    >>> linear = nn.Linear(2, 2)
    >>> before = linear(torch.ones(1, 2))
    >>> bool(torch.allclose(fold_alpha(linear, 0.25)(torch.ones(1, 2)), 0.25 * before))
    True

    Source: follows from arXiv 2111.12495, as training minimises cross_entropy(alpha z).
    """
    factor = float(check_alpha(alpha))
    if factor == 0:
        raise ValueError("alpha = 0 cannot be folded: every logit would be 0; fit a temperature")
    linear = find_classifier(model_or_linear)
    for module in (model_or_linear, linear):
        folded = getattr(module, "folded_alpha", None)
        if folded is not None:
            raise ValueError(f"alpha = {folded} is already folded into this classifier")
    linear.weight.mul_(factor)
    if linear.bias is not None:
        linear.bias.mul_(factor)
    for module in (model_or_linear, linear):
        module.folded_alpha = factor  # type: ignore[assignment]
    return model_or_linear


def find_classifier(model: nn.Module) -> nn.Linear:
    """The linear layer that gives the logits: the model itself, timm's, or the last module."""
    candidate = model
    if not isinstance(model, nn.Linear):
        get_classifier = getattr(model, "get_classifier", None)
        candidate = get_classifier() if callable(get_classifier) else list(model.modules())[-1]
    if not isinstance(candidate, nn.Linear):
        raise ValueError(
            f"no linear classifier found in {type(model).__name__}; pass its nn.Linear itself"
        )
    return candidate
