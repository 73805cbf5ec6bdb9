"""Folding alpha into a trained classifier, for calibrated inference."""

from typing import Any, TypeVar

from torch import nn

from softmax_gradient_tampering.loss.inference.head import HeadArgument, Layer, find_heads
from softmax_gradient_tampering.loss.inference.scaled_logits import check_not_folded, check_scale
from softmax_gradient_tampering.loss.inference.scaling import locate_heads, scale_heads

ModuleT = TypeVar("ModuleT", bound=nn.Module)

INSTEAD = "wrap the model in ScaledLogits(model, alpha) instead"


def fold_alpha(
    model_or_linear: ModuleT,
    alpha: float,
    *,
    head: HeadArgument | None = None,
    example_input: Any = None,
) -> ModuleT:
    """Multiply a classifier's weight and bias by alpha, in place, so that its logits are alpha z.

    Training at alpha minimises cross_entropy(alpha z), so softmax(alpha z), which the folded
    classifier gives, is the prediction that ordinary training would have given. Accuracy does
    not change; the calibration usually improves. Where the net would have been
    under-confident under ordinary training too, a temperature fitted on held-out data,
    started at alpha, is the better tool.

    The logits become alpha times what they were, bit by bit where alpha is a power of two (and
    no number gets too small for its dtype), else within the dtype's rounding; or the call raises
    and nothing has changed. It folds what is certainly the head: `head`; or the layer itself; or
    what the model's `get_classifier()` or `get_output_embeddings()` returns; or the end of an
    nn.Sequential; or the one linear layer. What the model does with the outputs of its head can
    be seen in a call alone, as where it normalises them or caps them: pass `example_input`.

    A weight that anything else uses (an embedding tied to it) or that is made anew at every call
    (torch's parametrizations, weight and spectral normalisation, adapters) is refused;
    `ScaledLogits` multiplies the logits of such models.

    Saving and folding again: the weights that a state_dict holds are the folded ones, and nothing
    in it says so. The mark is an attribute, `folded_alpha`, of the model and of its head: copies
    and pickles of the whole module keep it, this package's checkpoints have a field for it,
    and a folding of a marked model is refused. Whoever loads a folded state_dict into a new model
    sets `model.folded_alpha` to that alpha, and whoever loads an unfolded one into a folded
    model makes a new model in place of it.

    Args:
        model_or_linear: the model, or the layer itself. It gets an attribute `folded_alpha`.
        alpha: the exponent of the training, > 0.
        head: the layer that gives the logits, a module that holds only that one, or its
            name in the model; or several, where the logits are the mean of theirs.
        example_input: what the model is called with, before and after, in evaluation mode: a
            tensor, a tuple of arguments, or a mapping of keyword arguments. If the logits do not
            become alpha z the weights are put back. Where the head is not certain, the layer
            that is called last is tried.

    Returns:
        The argument itself.

    Raises:
        ValueError: alpha is not above 0; the classifier is already folded, is not found for
            sure, or cannot be folded; or the logits of `example_input` are not alpha z then.

    >>> import torch
    >>> linear = nn.Linear(2, 2)
    >>> before = linear(torch.ones(1, 2))
    >>> bool(torch.allclose(fold_alpha(linear, 0.25)(torch.ones(1, 2)), 0.25 * before))
    True

    Source: follows from arXiv 2111.12495, as training minimises cross_entropy(alpha z).
    """
    factor = check_scale(alpha)
    check_not_folded(model_or_linear)
    heads = locate_heads(model_or_linear, head, example_input)
    scale_heads(model_or_linear, heads, factor, example_input, INSTEAD)
    mark(model_or_linear, factor, heads)
    return model_or_linear


def mark(model: nn.Module, alpha: float, heads: tuple[Layer, ...] | None = None) -> None:
    """Say of a model, and of the layers that give its logits, that alpha is in their weights."""
    if heads is None:
        try:
            heads = find_heads(model)
        except ValueError:  # the model's own mark is enough for whoever passes the model
            heads = ()
    for module in (model, *heads):
        module.folded_alpha = alpha  # type: ignore[assignment]
