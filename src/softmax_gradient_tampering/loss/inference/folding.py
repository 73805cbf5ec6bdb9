"""Folding alpha into a trained classifier, for calibrated inference."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.inference.head import HeadArgument, Layer, find_heads
from softmax_gradient_tampering.loss.inference.scaled_logits import check_not_folded, check_scale
from softmax_gradient_tampering.loss.inference.trial import (
    check_scaled,
    evaluation,
    last_layer_called,
    logits_of,
    outputs_of,
)
from softmax_gradient_tampering.loss.inference.weights import check_weights, multiply

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
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

    >>> linear = nn.Linear(2, 2)
    >>> before = linear(torch.ones(1, 2))
    >>> bool(torch.allclose(fold_alpha(linear, 0.25)(torch.ones(1, 2)), 0.25 * before))
    True

    Source: follows from arXiv 2111.12495, as training minimises cross_entropy(alpha z).
    """
    factor = check_scale(alpha)
    check_not_folded(model_or_linear)
    with evaluation(model_or_linear):
        heads = _find_heads(model_or_linear, head, example_input)
        for layer in heads:
            check_weights(layer, model_or_linear)
        _scale(model_or_linear, heads, factor, example_input)
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


def _find_heads(
    model: nn.Module, head: HeadArgument | None, example_input: Any
) -> tuple[Layer, ...]:
    """The head, or, where it is not certain, the layer that the example reaches last."""
    try:
        return find_heads(model, head)
    except ValueError:
        if head is not None or example_input is None:
            raise
        last = last_layer_called(model, example_input)
        if last is None:
            raise
        return (last,)


def _scale(model: nn.Module, heads: tuple[Layer, ...], factor: float, example_input: Any) -> None:
    """Multiply the heads, and put back what they were if the logits are not `factor` z then."""

    def outputs() -> list[Tensor]:
        # Without an example, what the heads make of features: their own forward may be anything.
        if example_input is None:
            return [outputs_of(layer) for layer in heads]
        return [logits_of(model, example_input)]

    tensors = [tensor for layer in heads for tensor in layer.parameters(recurse=False)]
    before, kept = outputs(), [tensor.clone() for tensor in tensors]
    try:
        for layer in heads:
            multiply(layer, factor)
        torch.clear_autocast_cache()  # it may hold the weights in another dtype
        for z, scaled in zip(before, outputs(), strict=True):
            check_scaled(z, scaled, factor)
    except BaseException:
        for tensor, copy in zip(tensors, kept, strict=True):
            tensor.copy_(copy)
        torch.clear_autocast_cache()
        raise
