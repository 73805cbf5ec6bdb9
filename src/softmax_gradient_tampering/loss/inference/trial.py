"""Trying a model out: its logits of an example, and whether they have become alpha z."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.inference.head import Layer, layers_of
from softmax_gradient_tampering.loss.inference.scaled_logits import get_logits


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and then each in the mode that it was in.

    By the attribute, as train() and eval() of some modules merge weights or freeze a part.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def logits_of(model: nn.Module, example_input: Any) -> Tensor:
    """The model's logits of a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Raises:
        ValueError: they are all 0, or the output has none.
    """
    if isinstance(example_input, Mapping):
        output = model(**example_input)
    else:
        arguments = example_input if isinstance(example_input, tuple) else (example_input,)
        output = model(*arguments)
    logits = get_logits(output)
    if not logits.any():
        raise ValueError("the logits of example_input are all 0, which shows nothing of the head")
    return logits.clone()  # a compiled model may write its next output to the same memory


def outputs_of(layer: Layer) -> Tensor:
    """What a layer makes of random features.

    Raises:
        ValueError: it does not take features as torch's own layers do.
    """
    if isinstance(layer, nn.Linear):
        shape = [2, layer.in_features]
    else:
        sizes = zip(layer.dilation, layer.kernel_size, strict=True)
        shape = [2, layer.in_channels, *(1 + step * (size - 1) for step, size in sizes)]
    features = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    try:
        # Not by a call, which would tell the layer's hooks of features that are none.
        return layer.forward(features.to(layer.weight))
    except Exception as error:
        raise ValueError(
            f"the head is a {type(layer).__name__} whose forward takes no features of shape "
            f"{tuple(shape)}; pass example_input= to try the whole model on"
        ) from error


def last_layer_called(model: nn.Module, example_input: Any) -> Layer | None:
    """The linear or convolutional layer that an example reaches last."""
    called: list[Layer] = []

    def note(layer: Any, *_: Any) -> None:
        called.append(layer)

    hooks = [layer.register_forward_hook(note) for layer in layers_of(model).values()]
    try:
        logits_of(model, example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else None


def check_scaled(z: Tensor, scaled: Tensor, factor: float, instead: str) -> None:
    """Refuse logits that are not `factor` z, within the rounding of their dtype.

    `instead` is what a user can do, as the end of a sentence.

    Raises:
        ValueError: they are not.
    """
    dtype = torch.promote_types(z.dtype, torch.float32)
    expected = factor * z.to(dtype)
    eps = torch.finfo(z.dtype).eps
    if z.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        eps = torch.finfo(torch.bfloat16).eps
    largest = float(torch.where(expected.isfinite(), expected, 0).abs().max())
    # Of sums of products that are rounded: some ulps in half types, more in the others, whose
    # ulps are smaller.
    tolerance = max(8 * eps, eps**0.5 / 4) * largest
    if not torch.isclose(scaled.to(dtype), expected, rtol=0, atol=tolerance).all():
        raise ValueError(
            "the logits do not become alpha times what they were when the head is multiplied by "
            "alpha: this is not their head, or what comes after it is not linear; nothing has been "
            f"changed; pass another head=, or {instead}"
        )
