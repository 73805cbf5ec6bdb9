"""The seven published models: six are timm's, resnet18_wobn is registered here."""

import difflib
from typing import Any, NamedTuple

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from softmax_gradient_tampering.errors import UserError, first_line


class Preprocessing(NamedTuple):
    """How the published code evaluates a model's images."""

    interpolation: str
    crop_pct: float


PUBLISHED_MODELS = {
    "resnet18": Preprocessing("bilinear", 0.875),
    "resnet50": Preprocessing("bicubic", 0.875),
    "resnet101": Preprocessing("bicubic", 0.875),
    "resnet18_wobn": Preprocessing("bilinear", 0.875),
    "seresnet18": Preprocessing("bicubic", 0.875),
    "seresnet50": Preprocessing("bicubic", 0.875),
    "seresnet101": Preprocessing("bicubic", 0.875),
}

default_cfgs = generate_default_cfgs(
    {
        "resnet18_wobn": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


@register_model
def resnet18_wobn(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-18 without batch normalisation, as published."""
    kwargs |= {"block": BasicBlock, "layers": (2, 2, 2, 2), "norm_layer": nn.Identity}
    model: ResNet = build_model_with_cfg(ResNet, "resnet18_wobn", pretrained, **kwargs)
    return model


def create_model(name: str, zero_init_last: bool = False, **kwargs: Any) -> nn.Module:
    """Create any timm model; the published seven with their published initialisation.

    The published code never zero-initialises the last normalisation of a residual block
    (its guard is always false), timm does; `zero_init_last` gives timm's.

    Args:
        name: a model name that timm knows, this project's included.
        zero_init_last: for the published models, timm's initialisation instead.
        **kwargs: passed to timm.create_model; None values are left out.

    Raises:
        UserError: timm has no such model, or the model does not take an option.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists all"
        raise UserError(f"--model {name}: timm has no such model; {hint}")
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    if name in PUBLISHED_MODELS:
        kwargs["zero_init_last"] = zero_init_last
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except TypeError as error:
        # A model's constructor names the argument that it does not take.
        reason = first_line(error).split("() ")[-1]
        raise UserError(f"--model {name} does not take an option given: {reason}") from error
    except Exception as error:
        # Weights that cannot be fetched, options that a model checks late: anything.
        source = "; without a network --pretrained does not work" * bool(kwargs.get("pretrained"))
        raise UserError(f"--model {name}: cannot be made ({first_line(error)}){source}") from error
    return model
