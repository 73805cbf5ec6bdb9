"""What `loss.linear` has done to its blocks of classes on a GPU, one launch a block and way."""

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.kernels.triton.class_blocks import (
    NUM_SUMS,
    add_block_kernel,
    block_gradient_kernel,
)
from softmax_gradient_tampering.loss.kernels.triton.kernel import as_kernels_take
from softmax_gradient_tampering.loss.kernels.triton.launch import (
    Launcher,
    is_aligned,
    on_device_of,
)

# Classes that a program takes at once; a pass over a block has a program a row, or a part of it.
MOST_ADDED, MOST_WRITTEN = 4096, 2048


class Passes:
    """The passes over the blocks of one loss.

    Args:
        bias: (C,), or None.
        num_classes: C.
        target: (N,) class indices as int64, or (N, C) probabilities.
        alpha: the exponent, a number or a 0-d tensor.
        options: the loss's options.
    """

    def __init__(
        self, bias: Tensor | None, num_classes: int, target: Tensor, alpha: Alpha, options: Options
    ) -> None:
        _, target, alpha = as_kernels_take(target, target, alpha)
        self._inputs = bias, target, alpha, options.weight
        self._numbers = num_classes, target.stride(0), options.ignore_index
        self._smoothing = float(options.label_smoothing)
        self._flags = (
            isinstance(alpha, Tensor),
            not is_index(target),
            options.weight is not None,
            options.label_smoothing > 0,
        )
        tensors = [tensor for tensor in self._inputs if isinstance(tensor, Tensor)]
        present = tuple(isinstance(tensor, Tensor) for tensor in self._inputs)
        dtypes = tuple(tensor.dtype for tensor in tensors)
        self._kind = target.device, present, dtypes, is_aligned(*tensors), self._numbers
        self.sums = torch.zeros(
            NUM_SUMS, target.shape[0], dtype=torch.float32, device=target.device
        )
        self.sums[0] = torch.finfo(torch.float32).min
        # A label that no block holds leaves nan, on devices that check no labels.
        self.sums[5] = torch.nan

    def add(self, z: Tensor, first_class: int) -> None:
        """Add a block of logits (N, block) without the bias to the sums."""
        (num_rows, num_block), (num_classes, target_stride, _) = z.shape, self._numbers
        launcher = _launcher(add_block_kernel, self._flags, num_block, self._kind, z.dtype)
        with on_device_of(z):
            launcher(
                *(num_rows, z, *self._inputs, self.sums, num_rows, num_block, first_class),
                *(num_classes, target_stride, self._smoothing),
            )

    def gradient(
        self, z: Tensor, first_class: int, stats: Any, scale: Tensor, grad: Tensor
    ) -> None:
        """Write scale * (sum_c(q) p' - q) of a block to `grad`, which may be the block itself.

        `stats` are `RowStatistics`; scale is (N, 1) or 0-d.
        """
        num_rows, num_block = z.shape
        launcher = _launcher(block_gradient_kernel, self._flags, num_block, self._kind, grad.dtype)
        num_parts = -(-num_block // launcher.block)
        scale_stride = scale.stride(0) if scale.dim() else 0
        with on_device_of(z):
            launcher(
                *(num_rows * num_parts, z, *self._inputs, *stats, scale, scale_stride, grad),
                *(num_block, first_class, *self._numbers, self._smoothing),
            )


class _BlockLauncher(Launcher):
    """A launcher that knows how many classes a program takes."""

    def __init__(self, kernel: Any, flags: tuple[bool, ...], block: int) -> None:
        super().__init__(kernel, (*flags, block), max(1, min(8, block // 256)))
        self.block = block


@functools.lru_cache(maxsize=1024)
def _launcher(
    kernel: Any, flags: tuple[bool, ...], num_block: int, kind: Any, dtype: torch.dtype
) -> _BlockLauncher:
    """A launcher; the kind and the dtype are all else that a compiled kernel depends on."""
    most = MOST_ADDED if kernel is add_block_kernel else MOST_WRITTEN
    return _BlockLauncher(kernel, flags, min(triton.next_power_of_2(num_block), most))
