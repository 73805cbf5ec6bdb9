"""Nets for the 8x8 handwritten digits: with and without normalisation, one without biases."""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_CFG = {
    "num_classes": 10,
    "input_size": (1, 8, 8),
    "pool_size": None,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.3046,),
    "std": (0.3747,),
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs(
    dict.fromkeys(("digits_mlp", "digits_mlp_plain", "digits_cnn", "digits_cnn_wobn"), _CFG)
)


class DigitsNet(nn.Module):
    """A body of features and a linear classifier, with timm's interface."""

    def __init__(
        self, body: nn.Module, num_features: int, num_classes: int, drop_rate: float, bias: bool
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = num_features
        self.body = body
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(num_features, num_classes, bias=bias)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes, bias=self.fc.bias is not None)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(torch.flatten(x, 1))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _mlp(
    num_classes: int = 10,
    in_chans: int = 1,
    hidden: int = 64,
    drop_rate: float = 0.0,
    norm: bool = True,
    bias: bool = True,
    img_size: int = 8,
) -> DigitsNet:
    layers: list[nn.Module] = [nn.Flatten()]
    num_inputs = in_chans * img_size**2
    for _ in range(2):
        layers.append(nn.Linear(num_inputs, hidden, bias=bias and not norm))
        layers += [nn.BatchNorm1d(hidden)] * norm + [nn.ReLU()]
        num_inputs = hidden
    return DigitsNet(nn.Sequential(*layers), hidden, num_classes, drop_rate, bias)


def _cnn(
    num_classes: int = 10,
    in_chans: int = 1,
    width: int = 16,
    drop_rate: float = 0.0,
    norm: bool = True,
) -> DigitsNet:
    layers: list[nn.Module] = []
    for channels, stride in ((width, 1), (2 * width, 2)):
        layers.append(nn.Conv2d(in_chans, channels, 3, stride, 1, bias=not norm))
        layers += [nn.BatchNorm2d(channels)] * norm + [nn.ReLU()]
        in_chans = channels
    layers.append(nn.AdaptiveAvgPool2d(2))
    return DigitsNet(nn.Sequential(*layers), 8 * width, num_classes, drop_rate, bias=True)


def _create(factory: Any, name: str, pretrained: bool, **kwargs: Any) -> DigitsNet:
    model: DigitsNet = build_model_with_cfg(factory, name, pretrained, **kwargs)
    return model


@register_model
def digits_mlp(pretrained: bool = False, **kwargs: Any) -> DigitsNet:
    """Two hidden layers of 64 with batch normalisation, 9 k parameters."""
    return _create(_mlp, "digits_mlp", pretrained, **kwargs)


@register_model
def digits_mlp_plain(pretrained: bool = False, **kwargs: Any) -> DigitsNet:
    """Two hidden layers of 64, no normalisation, no bias anywhere: positively homogeneous."""
    return _create(_mlp, "digits_mlp_plain", pretrained, norm=False, bias=False, **kwargs)


@register_model
def digits_cnn(pretrained: bool = False, **kwargs: Any) -> DigitsNet:
    """Two convolutions with batch normalisation, 6 k parameters."""
    return _create(_cnn, "digits_cnn", pretrained, **kwargs)


@register_model
def digits_cnn_wobn(pretrained: bool = False, **kwargs: Any) -> DigitsNet:
    """Two convolutions without normalisation, 6 k parameters."""
    return _create(_cnn, "digits_cnn_wobn", pretrained, norm=False, **kwargs)
