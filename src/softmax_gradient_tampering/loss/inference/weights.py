"""A head's weight and bias: whether they may be multiplied in place, and their product."""

import gc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.inference.head import Layer

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_weights(layer: Layer, model: nn.Module, instead: str) -> None:
    """Refuse a layer whose weight and bias cannot be multiplied, or not without side effects.

    `instead` is what a user can do, as the end of a sentence.

    Raises:
        ValueError: they are parametrized, sharded, quantized, without memory, or shared.
    """
    names = {id(module): name for name, module in model.named_modules()}
    place = f"{names.get(id(layer)) or 'the head'} ({type(layer).__name__})"
    own = dict(layer.named_parameters(recurse=False))
    is_plain = {"weight"} <= set(own) <= {"weight", "bias"} and own.get("bias") is layer.bias
    if not is_plain or any(layer.children()) or list(layer.buffers()):
        raise ValueError(
            f"the weight of {place} is parametrized, made anew from other numbers at every call: "
            "end that first (torch's remove_parametrizations, remove_weight_norm, prune.remove; "
            f"merge adapters), or {instead}"
        )
    for key, tensor in own.items():
        if type(tensor) is not nn.Parameter or tensor.dtype not in _DTYPES:
            raise ValueError(
                f"the {key} of {place} is a {type(tensor).__name__} of {tensor.dtype}, not a plain "
                f"floating-point tensor: multiply it before sharding or quantizing, or {instead}"
            )
        if tensor.is_meta:
            raise ValueError(f"the {key} of {place} is on the meta device: load the weights first")
    sharer = _find_sharer(list(own.values()), layer)
    if sharer is not None:
        other = f"{names.get(id(sharer)) or 'a module'} ({type(sharer).__name__})"
        raise ValueError(
            f"the weight or the bias of {place} is shared: {other} uses the same memory, and would "
            f"be multiplied by alpha as well; {instead}"
        )


def check_place(layer: Layer, model: nn.Module) -> None:
    """Refuse a layer that a model holds in several places: it may be no head in one of them.

    Raises:
        ValueError: it does.
    """
    modules = model.named_modules(remove_duplicate=False)
    names = [repr(name) for name, module in modules if module is layer]
    if len(names) > 1:
        raise ValueError(
            f"the head is in {len(names)} places of {type(model).__name__}: "
            f"{', '.join(names[:4])}; pass example_input=, which shows whether the logits become "
            "alpha times what they were"
        )


def multiply(layer: Layer, factor: float, instead: str) -> None:
    """Multiply weight and bias in place; `instead` is what a user can do, as a sentence's end.

    Raises:
        ValueError: the dtype cannot hold the products to its precision.
    """
    tensors = list(layer.parameters(recurse=False))
    products = [tensor * factor for tensor in tensors]
    # A class keeps its precision as long as its largest number is not below the normal ones.
    smallest = torch.finfo(layer.weight.dtype).smallest_normal
    is_lost = (_largest_of_classes(tensors) > 0) & (_largest_of_classes(products) < smallest)
    is_infinite = any(
        (product.isinf() & tensor.isfinite()).any()
        for tensor, product in zip(tensors, products, strict=True)
    )
    if is_infinite or is_lost.any():
        raise ValueError(
            f"{layer.weight.dtype} cannot hold the weights of the head times {factor}: "
            f"convert the model to float32 first, or {instead}"
        )
    for tensor, product in zip(tensors, products, strict=True):
        tensor.copy_(product)


def _largest_of_classes(tensors: Sequence[Tensor]) -> Tensor:
    """The largest finite magnitude among the weights and the bias of every class."""
    rows = torch.cat([tensor.abs().reshape(tensor.shape[0], -1) for tensor in tensors], dim=1)
    return torch.where(rows.isfinite(), rows, 0).amax(1)


def _find_sharer(tensors: Sequence[Tensor], layer: nn.Module) -> nn.Module | None:
    """Another module that holds memory of a layer's tensors.

    All modules of the process are looked at, as a layer that is given alone does not lead to the
    embedding that its weight is tied to.
    """
    own = [(tensor.device, _memory(tensor)) for tensor in tensors]
    classes = _module_classes()
    for module in [found for found in gc.get_objects() if type(found) in classes]:
        if module is layer:
            continue
        for other in _tensors_of(module):
            theirs = _memory(other)
            for device, ours in own:
                is_overlap = max(ours.start, theirs.start) < min(ours.stop, theirs.stop)
                if is_overlap and other.device == device:
                    sharer: nn.Module = module
                    return sharer
    return None


def _module_classes() -> set[type[nn.Module]]:
    """All classes of modules, as a set: asking it is the fastest way through a million objects."""
    classes: set[type[nn.Module]] = set()
    waiting = [nn.Module]
    while waiting:
        module_class = waiting.pop()
        if module_class not in classes:
            classes.add(module_class)
            waiting += module_class.__subclasses__()
    return classes


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """The plain tensors that a module itself holds: parameters, buffers, attributes."""
    held = vars(module)
    for values in (held.get("_parameters", {}), held.get("_buffers", {}), held):
        yield from (value for value in values.values() if type(value) in (Tensor, nn.Parameter))


def _memory(tensor: Tensor) -> range:
    """The addresses of a tensor's numbers; none where it is sparse or empty, and no view."""
    if tensor.numel() == 0 or tensor.layout is not torch.strided:
        return range(0)
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return range(tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize)
