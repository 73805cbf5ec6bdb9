"""ResNets of small images: those of CIFAR (arXiv 1512.03385, section 4.2), and ResNet-18."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

_CFG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "conv1",
    "classifier": "fc",
}
DEPTHS = (20, 32, 44, 56, 110, 1202)
_SMALL = ("resnet8_narrow", "resnet8_narrow_wobn", "resnet20_wobn")
_RESNET18 = ("resnet18_cifar", "resnet18_cifar_wobn")
default_cfgs = generate_default_cfgs(
    {**{f"resnet{depth}": _CFG for depth in DEPTHS}, **dict.fromkeys(_SMALL + _RESNET18, _CFG)}
)


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut is strided and zero-padded."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm_layer: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = norm_layer(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm_layer(channels)
        self.stride = stride
        self.num_padded = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1 or self.num_padded:
            front = self.num_padded // 2
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, front, self.num_padded - front))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """Three stages of n blocks with 16, 32 and 64 channels (times `width`)."""

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        width: float = 1.0,
        drop_rate: float = 0.0,
        norm_layer: Any = nn.BatchNorm2d,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if global_pool != "avg":
            raise TypeError(f"global_pool={global_pool!r}: only 'avg'")
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        channels = [max(1, round(width * c)) for c in (16, 32, 64)]
        self.num_features = self.head_hidden_size = channels[-1]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, 1, 1, bias=False)
        self.bn1 = norm_layer(channels[0])
        blocks: list[nn.Module] = []
        for stage, out_channels in enumerate(channels):
            in_channels = channels[max(0, stage - 1)]
            blocks.append(CifarBlock(in_channels, out_channels, 2 if stage else 1, norm_layer))
            num_more = (depth - 2) // 6 - 1
            blocks += [
                CifarBlock(out_channels, out_channels, 1, norm_layer) for _ in range(num_more)
            ]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _create(depth: int, pretrained: bool, suffix: str = "", **kwargs: Any) -> CifarResNet:
    name = f"resnet{depth}{suffix}"
    model: CifarResNet = build_model_with_cfg(CifarResNet, name, pretrained, depth=depth, **kwargs)
    return model


@register_model
def resnet8_narrow(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 8 layers and half the channels, 0.02 M parameters: for studies on CPUs."""
    return _create(8, pretrained, "_narrow", width=0.5, **kwargs)


@register_model
def resnet8_narrow_wobn(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """The same without batch normalisation."""
    kwargs |= {"width": 0.5, "norm_layer": nn.Identity}
    return _create(8, pretrained, "_narrow_wobn", **kwargs)


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 20 layers, 0.27 M parameters."""
    return _create(20, pretrained, **kwargs)


@register_model
def resnet20_wobn(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """The same without batch normalisation."""
    return _create(20, pretrained, "_wobn", **(kwargs | {"norm_layer": nn.Identity}))


@register_model
def resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 32 layers, 0.46 M parameters."""
    return _create(32, pretrained, **kwargs)


@register_model
def resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 44 layers, 0.66 M parameters."""
    return _create(44, pretrained, **kwargs)


@register_model
def resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 56 layers, 0.85 M parameters."""
    return _create(56, pretrained, **kwargs)


@register_model
def resnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 110 layers, 1.7 M parameters."""
    return _create(110, pretrained, **kwargs)


@register_model
def resnet1202(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 1202 layers, 19.4 M parameters."""
    return _create(1202, pretrained, **kwargs)


class SmallImageResNet(ResNet):
    """timm's ResNet of basic blocks whose stem keeps the size of the images: 3x3, no pooling."""

    def __init__(self, in_chans: int = 3, **kwargs: Any) -> None:
        super().__init__(BasicBlock, in_chans=in_chans, **kwargs)
        self.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()


def _create_resnet18(name: str, pretrained: bool, **kwargs: Any) -> SmallImageResNet:
    kwargs = {"layers": (2, 2, 2, 2), "zero_init_last": False} | kwargs
    model: SmallImageResNet = build_model_with_cfg(SmallImageResNet, name, pretrained, **kwargs)
    return model


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """ResNet-18 for 32x32 images, 11.2 M parameters."""
    return _create_resnet18("resnet18_cifar", pretrained, **kwargs)


@register_model
def resnet18_cifar_wobn(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """The same without batch normalisation."""
    kwargs |= {"norm_layer": nn.Identity}
    return _create_resnet18("resnet18_cifar_wobn", pretrained, **kwargs)
