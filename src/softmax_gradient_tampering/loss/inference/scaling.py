"""Multiplying a model's heads in place, so that its logits are alpha z; or nothing has changed."""

from typing import Any

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.inference.head import HeadArgument, Layer, find_heads
from softmax_gradient_tampering.loss.inference.trial import (
    check_scaled,
    evaluation,
    last_layer_called,
    logits_of,
    outputs_of,
)
from softmax_gradient_tampering.loss.inference.weights import check_place, check_weights, multiply


@torch.no_grad()
def locate_heads(
    model: nn.Module, head: HeadArgument | None, example_input: Any
) -> tuple[Layer, ...]:
    """The heads, or, where they are not certain, the layer that the example reaches last.

    Raises:
        ValueError: none is found for sure.
    """
    try:
        return find_heads(model, head)
    except ValueError:
        if head is not None or example_input is None:
            raise
        with evaluation(model):
            last = last_layer_called(model, example_input)
        if last is None:
            raise
        return (last,)


@torch.no_grad()
def scale_heads(
    model: nn.Module, heads: tuple[Layer, ...], factor: float, example_input: Any, instead: str
) -> None:
    """Multiply the heads, and put back what they were if the logits are not `factor` z then.

    Args:
        model: that the heads are part of.
        heads: the layers that give the logits.
        factor: above 0.
        example_input: what the model is called with, before and after; without it, the heads are.
        instead: what a user can do where this cannot be done, as the end of a sentence.

    Raises:
        ValueError: the weights cannot be multiplied, or the logits are not `factor` z then.
    """
    for layer in heads:
        check_weights(layer, model, instead)
        if example_input is None:
            check_place(layer, model)

    def outputs() -> list[Tensor]:
        # Without an example, what the heads make of features: their own forward may be anything.
        if example_input is None:
            return [outputs_of(layer) for layer in heads]
        return [logits_of(model, example_input)]

    tensors = [tensor for layer in heads for tensor in layer.parameters(recurse=False)]
    with evaluation(model):
        before, kept = outputs(), [tensor.clone() for tensor in tensors]
        try:
            for layer in heads:
                multiply(layer, factor, instead)
            torch.clear_autocast_cache()  # it may hold the weights in another dtype
            for z, scaled in zip(before, outputs(), strict=True):
                check_scaled(z, scaled, factor, instead)
        except BaseException:
            for tensor, copy in zip(tensors, kept, strict=True):
                tensor.copy_(copy)
            torch.clear_autocast_cache()
            raise
