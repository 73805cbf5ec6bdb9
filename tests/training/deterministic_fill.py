"""Tensors from names and indices, without any random generator, as the golden files used them."""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def uniform(name: str, number: int) -> NDArray[np.float64]:
    """Numbers in [-1, 1): splitmix64 of crc32(name) * 2^32 + index, the top 53 bits."""
    state = np.uint64(zlib.crc32(name.encode()) << 32) + np.arange(number, dtype=np.uint64)
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


@torch.no_grad()
def fill_state(model: nn.Module) -> None:
    """Fill every parameter and buffer by its name: norms near 1, weights of He's variance."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
            continue
        values = uniform(name, tensor.numel()).reshape(tensor.shape)
        if name.endswith("running_mean"):
            values = 0.1 * values
        elif name.endswith("running_var"):
            values = 1 + 0.25 * values
        elif tensor.dim() == 1:
            values = 1 + 0.25 * values if name.endswith("weight") else 0.1 * values
        else:
            fan_in = int(np.prod(tensor.shape[1:]))
            values = values * np.sqrt(3.0) * np.sqrt(2.0 / fan_in)
        tensor.copy_(torch.from_numpy(np.asarray(values)))


def images(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Float64 images of unit variance."""
    return torch.from_numpy(uniform(name, int(np.prod(shape))).reshape(shape) * np.sqrt(3.0))


def labels(name: str, number: int, num_classes: int) -> torch.Tensor:
    return torch.from_numpy(np.floor((uniform(name, number) + 1) / 2 * num_classes)).long()
