"""The layers whose outputs are a model's logits: found for sure, or not at all."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

# A layer of these multiplies its logits by what its weight and bias are multiplied by.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
HeadArgument = nn.Module | str | Sequence[nn.Module | str]

_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten)
# Torch's layers whose parameters meet only their own inputs, and are known to be no head.
_BODY_FILES = ("batchnorm", "conv", "instancenorm", "normalization", "rnn")
_TORCHVISION_NAMES = ("fc", "classifier", "heads", "head")


def find_heads(model: nn.Module, head: HeadArgument | None = None) -> tuple[Layer, ...]:
    """The linear or convolutional layers that give the logits; several where these are averaged.

    In this order: the head that is given; the model, where it is such a layer; what its
    `get_classifier()` (timm) or `get_output_embeddings()` (transformers) returns; the head of a
    torchvision classifier; the end of an nn.Sequential; the one linear layer, where nothing that
    might change its outputs is registered after it.

    Args:
        model: any module.
        head: the layer, or a module that holds it alone, or its name in the model; or several.

    Raises:
        ValueError: none is found for sure.
    """
    if head is None:
        return tuple(_heads_of(model, model))
    given = [head] if isinstance(head, nn.Module | str) else list(head)
    members = [_member(model, item) for item in given]
    return tuple(layer for member in members for layer in _heads_of(member, model))


def find_classifier(model: nn.Module) -> nn.Linear:
    """The one linear layer that gives the logits.

    Raises:
        ValueError: none is found for sure, or there are several, or it is a convolution.
    """
    heads = find_heads(model)
    if len(heads) != 1 or not isinstance(heads[0], nn.Linear):
        raise ValueError(f"the logits of {type(model).__name__} are not one nn.Linear's")
    return heads[0]


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """The layers of a model that might be its head, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def _member(model: nn.Module, item: nn.Module | str) -> nn.Module:
    """A module of the model, given as such or by its name."""
    if isinstance(item, nn.Module):
        if all(module is not item for module in model.modules()):
            raise ValueError(
                f"head is a {type(item).__name__} that is not part of {type(model).__name__}; "
                "pass one of its modules, or the name of one"
            )
        return item
    try:
        return model.get_submodule(item)
    except AttributeError:
        names = ", ".join(map(repr, list(layers_of(model))[-3:])) or "none"
        raise ValueError(
            f"head={item!r} is no module of {type(model).__name__}; its last layers: {names}"
        ) from None


def _heads_of(part: Any, model: nn.Module) -> Iterator[Layer]:
    """The heads of a part of the model, which is what the messages speak of."""
    if isinstance(part, Layer):
        yield part
    elif isinstance(part, tuple | list | nn.ModuleList):  # averaged, as in timm's distilled models
        for each in part:
            yield from _heads_of(each, model)
    elif not isinstance(part, nn.Module):
        raise ValueError(_refusal(model, f"its head is given as a {type(part).__name__}"))
    elif (own := _own_answer(part)) is not None and own is not part:
        yield from _heads_of(own, model)
    elif isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
        children = [child for child in part if not isinstance(child, _TRANSPARENT)]
        if not children:
            raise ValueError(_refusal(model, "its head is empty"))
        yield from _heads_of(children[-1], model)
    else:
        yield _only_layer(part, model)


def _own_answer(part: nn.Module) -> Any:
    """What a module says is its head; None where it does not say."""
    for name in ("get_classifier", "get_output_embeddings"):
        method = getattr(part, name, None)
        if callable(method):
            answer = method()
            if answer is not None:
                return answer
    library, *files = type(part).__module__.split(".")
    if library == "torchvision" and len(files) == 2:  # of models, not of models.detection and such
        names = [name for name in _TORCHVISION_NAMES if hasattr(part, name)]
        if len(names) == 1:
            return getattr(part, names[0])
    return None


def _only_layer(part: nn.Module, model: nn.Module) -> Layer:
    """The one linear layer of a module, where nothing can come after it."""
    layers = list(layers_of(part).values())
    layers = [layer for layer in layers if isinstance(layer, nn.Linear)] or layers
    if not layers:
        raise ValueError(_refusal(model, f"{type(part).__name__} has no linear layer"))
    if len(layers) > 1:
        raise ValueError(_refusal(model, f"{type(part).__name__} has {len(layers)} linear layers"))
    layer, modules = layers[0], list(part.modules())
    after = [
        module
        for module in modules[modules.index(layer) + 1 :]
        if not isinstance(module, _TRANSPARENT)
    ]
    if after:
        reason = f"{type(after[0]).__name__} is registered after its linear layer"
        raise ValueError(_refusal(model, reason))
    width = layer.weight.shape[0]
    for module in modules:
        if module is not layer and _may_multiply(module, width):
            reason = f"what its linear layer gives may be multiplied by {type(module).__name__}"
            raise ValueError(_refusal(model, reason))
    return layer


def _may_multiply(module: nn.Module, width: int) -> bool:
    """Whether a module has weights of its own that (..., width) may be multiplied by."""
    _, _, file = type(module).__module__.rpartition(".")
    if type(module).__module__.startswith("torch.nn.modules.") and file in _BODY_FILES:
        return False
    shapes = [parameter.shape for parameter in module.parameters(recurse=False)]
    if isinstance(module, nn.Embedding):  # (words, features): a product is over the features
        shapes = [shape[-1:] for shape in shapes]
    return any(width in shape for shape in shapes)


def _refusal(model: nn.Module, reason: str) -> str:
    names = ", ".join(map(repr, list(layers_of(model))[-3:]))
    hint = f" (its last layers: {names})" if names else ""
    return (
        f"which layer gives the logits of {type(model).__name__} is not certain: {reason}; pass "
        f"head=, the layer or its name{hint}, or example_input=, on which it is looked for"
    )
