"""The contract of `reference` in Triton: float32 arithmetic on float32 and half logits.

The forward pass reads the logits once, the backward pass reads them once and writes the
gradient once. Of every row the forward keeps two numbers, the maximum m of z and
1 / sum_c(exp(alpha (z - m))), so that p' = exp(alpha (z - m)) times the latter; where the target
distribution q is no one-hot one, sum_c(q) too. Subtracting m before multiplying by alpha
keeps the precision of large logits.

Sizes of blocks depend on the number of classes alone and nothing is summed atomically:
results are the same in every run and for every batch size. Nothing is read from the device.
"""

import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.kernels.triton.device import backward_kernel, forward_kernel

# Classes of a block, and logits of a block where rows are short and a block holds several.
MAX_BLOCK_CLASSES = 4096
MIN_BLOCK_SIZE = 1024


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`; `stats` is laid out as `stats_shape` says."""
    reduction, num_rows = options.reduction, z.shape[0]
    stats = torch.empty(stats_shape(z, target, options), dtype=torch.float32, device=z.device)
    # Zero for logits of no class, for which nothing is launched.
    new = torch.empty if z.numel() else torch.zeros
    if reduction == "none":
        loss = row_sums = new(num_rows, dtype=options.loss_dtype, device=z.device)
    else:
        row_sums = new(2, num_rows, dtype=torch.float32, device=z.device)
    _launch(forward_kernel, z, target, alpha, options, stats, row_sums)
    if reduction == "none":
        return loss, stats
    sums = torch.sum(row_sums, 1, out=stats[-2:])
    loss = sums[0] / sums[1] if reduction == "mean" else sums[0].clone()
    return loss.to(options.loss_dtype), stats


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    incoming_stride = grad_loss.stride(0) if grad_loss.dim() else 0
    _launch(backward_kernel, z, target, alpha, options, stats, grad_loss, incoming_stride, grad)
    return grad


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """One dimension: m, 1 / sum(exp), sum(q) of all rows, each in turn; sums of loss and weight.

    The third only where q is no one-hot one, the sums only where there is a reduction.
    """
    num_vectors = 2 if _is_one_hot(target, options) else 3
    return (num_vectors * z.shape[0] + (0 if options.reduction == "none" else 2),)


@functools.cache
def is_usable(device: torch.device) -> bool:
    """Whether Triton can compile and run for this device, or interprets."""
    if triton.knobs.runtime.interpret:
        return device.type in ("cpu", "cuda")
    if device.type != "cuda":
        return False
    try:  # the driver needs a C compiler to be built for the first time
        triton.runtime.driver.active.get_current_target()
    except Exception:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)


def _launch(
    kernel: Any, z: Tensor, target: Tensor, alpha: Alpha, options: Options, *tensors: Any
) -> None:
    """Launch a kernel over all blocks of z, which it takes in rows of adjacent classes."""
    if z.numel() == 0:
        return
    num_rows, num_classes = z.shape
    z, target = _with_adjacent_classes(z), _with_adjacent_classes(target)
    if isinstance(alpha, Tensor):
        # Reading one of a CPU waits for no device.
        alpha = float(alpha) if alpha.device.type == "cpu" else alpha.to(z.device)
    is_soft = not is_index(target)
    vector = _vector(num_classes, z.stride(0), target.stride(0) if is_soft else 0)
    block_classes = min(triton.next_power_of_2(num_classes), MAX_BLOCK_CLASSES)
    block_rows = max(1, MIN_BLOCK_SIZE // block_classes)
    num_blocks = triton.cdiv(num_rows, block_rows)
    if kernel is backward_kernel:
        num_blocks *= triton.cdiv(num_classes, block_classes)
    with torch.cuda.device_of(z):
        kernel[(num_blocks,)](
            z,
            target,
            alpha,
            options.weight,
            *tensors,
            num_rows,
            num_classes // vector,
            z.stride(0) // vector,
            target.stride(0) // (vector if is_soft else 1),
            options.ignore_index,
            float(options.label_smoothing),
            VECTOR=vector,
            ALPHA_IS_POINTER=isinstance(alpha, Tensor),
            IS_SOFT=is_soft,
            IS_WEIGHTED=options.weight is not None,
            IS_SMOOTHED=options.label_smoothing > 0,
            REDUCTION=options.reduction,
            BLOCK_ROWS=block_rows,
            BLOCK_CLASSES=block_classes,
            num_warps=_num_warps(kernel, block_classes, _is_one_hot(target, options)),
            # The assertion on labels stays in, those on integer overflow do not.
            debug=torch.version.hip is None,
            sanitize_overflow=False,
            enable_fp_fusion=True,  # Triton's default changes with its version
        )


def _vector(*lengths: int) -> int:
    """The largest power of two up to 16 that divides the lengths."""
    return math.gcd(16, *lengths)


def _num_warps(kernel: Any, block_classes: int, is_one_hot: bool) -> int:
    """So many that a thread has 16 logits; 8 where it keeps four sums of each."""
    if block_classes < MAX_BLOCK_CLASSES:
        return 4
    return 16 if kernel is forward_kernel and not is_one_hot else 8


def _is_one_hot(target: Tensor, options: Options) -> bool:
    return is_index(target) and options.label_smoothing == 0


def _with_adjacent_classes(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 1 or tensor.stride(-1) == 1 else tensor.contiguous()
