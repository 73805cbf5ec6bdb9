"""The seven published models: six are timm's, resnet18_wobn is registered here."""

from typing import Any, NamedTuple

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn


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
