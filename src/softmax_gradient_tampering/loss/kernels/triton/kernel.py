"""The contract of `reference` in Triton: float32 arithmetic on float32 and half logits.

The forward pass reads the logits once, the backward pass reads them once and writes the
gradient once. Of every row the forward keeps two numbers, the maximum m of z and
1 / sum_c(exp(alpha (z - m))), so that p' = exp(alpha (z - m)) times the latter; where the target
distribution q is no one-hot one, sum_c(q) too. Subtracting m before multiplying by alpha
keeps the precision of large logits.

Sizes of blocks depend on the number of classes and positions alone, and what is summed is summed
in one order: results are the same in every run, and a row's for every batch size. Nothing is read
from the device.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.kernels.triton.device import backward_kernel, forward_kernel
from softmax_gradient_tampering.loss.kernels.triton.launch import Launcher, is_aligned
from softmax_gradient_tampering.loss.kernels.triton.sums import GROUP

# Classes of a block, and logits of a block where rows are short and a block holds several.
MAX_BLOCK_CLASSES = 4096
MIN_BLOCK_SIZE = 1024
# Positions of a block where they are adjacent, and its logits.
MAX_BLOCK_POSITIONS = 256
IMAGE_BLOCK_SIZE = 2048
_LARGEST_INT32 = 2**31 - 1


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`; `stats` is laid out as `stats_shape` says."""
    reduction = options.reduction
    stats = torch.empty(stats_shape(z, target, options), dtype=torch.float32, device=z.device)
    shape = z.shape[:1] + z.shape[2:] if reduction == "none" else ()
    loss = torch.empty(shape, dtype=options.loss_dtype, device=z.device)
    if z.numel() == 0:  # nothing is launched
        return loss.fill_(torch.nan if reduction == "mean" else 0), stats.zero_()
    problem = _problem(forward_kernel, z, target, alpha, options, loss)
    if reduction == "none":
        problem.launch(stats, None, None, loss)
        return loss, stats
    num_groups = triton.cdiv(problem.num_blocks, GROUP.value)
    # Two numbers of each block and of each group; the counters have to begin at zero.
    sums = torch.empty(2 * (problem.num_blocks + num_groups), dtype=torch.float32, device=z.device)
    counters = torch.zeros(1 + num_groups, dtype=torch.int32, device=z.device)
    problem.launch(stats, sums, counters, loss)
    return loss, stats


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    if z.numel() == 0:
        return grad
    if grad_loss.dim() > 1:
        grad_loss = grad_loss.flatten()
    incoming_stride = grad_loss.stride(0) if grad_loss.dim() else 0
    problem = _problem(backward_kernel, z, target, alpha, options, grad_loss)
    problem.launch(stats, grad_loss, incoming_stride, grad)
    return grad


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """One dimension: m, 1 / sum(exp), sum(q) of all rows, each in turn; the mean's divisor.

    The third only where q is no one-hot one.
    """
    num_vectors = 2 if _is_one_hot(target, options) else 3
    num_rows = z.shape[0] * math.prod(z.shape[2:])
    return (num_vectors * num_rows + (1 if options.reduction == "mean" else 0),)


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


class _Kind(NamedTuple):
    """All of a launch that a compiled kernel, and how the logits are cut, depend on.

    Lengths and strides are in elements; without positions there is one, of stride 1.
    """

    kernel: Any
    is_images: bool
    num_classes: int
    num_positions: int
    z_strides: tuple[int, ...]  # of rows or images, of classes
    target_strides: tuple[int, ...]
    dtypes: tuple[torch.dtype | None, ...]  # logits, target, weight, alpha, loss; None if not there
    options: Options
    others: tuple[Any, ...]  # which the compiler sees, and nobody here


class _Plan(NamedTuple):
    """How logits of one kind are cut into blocks, and what launches a kernel over them."""

    launcher: Launcher
    block_rows: int
    num_class_blocks: int  # that have a program each
    numbers: tuple[float, ...]  # the kernel's arguments after the number of rows


class _Problem(NamedTuple):
    """A launch, all but for the tensors that it writes."""

    plan: _Plan
    num_blocks: int
    num_rows: int
    inputs: tuple[Any, ...]  # logits, target, alpha, weight

    def launch(self, *others: Any) -> None:
        z, launcher = self.inputs[0], self.plan.launcher
        arguments = *self.inputs, *others, self.num_rows, *self.plan.numbers
        if z.is_cuda and z.get_device() != torch.cuda.current_device():
            with torch.cuda.device_of(z):
                launcher(self.num_blocks, *arguments)
        else:
            launcher(self.num_blocks, *arguments)


def _problem(
    kernel: Any, z: Tensor, target: Tensor, alpha: Alpha, options: Options, of_loss: Tensor
) -> _Problem:
    """What a kernel is launched with; `of_loss` is the loss or its gradient."""
    z, target = _with_adjacent(z, target)
    if isinstance(alpha, Tensor):
        # Reading one of a CPU waits for no device.
        alpha = float(alpha) if alpha.device.type == "cpu" else alpha.to(z.device)
    weight, is_images = options.weight, z.dim() == 3
    num_positions = z.shape[2] if is_images else 1
    num_rows = z.shape[0] * num_positions
    dtypes = (
        z.dtype,
        target.dtype,
        None if weight is None else weight.dtype,
        alpha.dtype if isinstance(alpha, Tensor) else None,
        of_loss.dtype,
    )
    target_strides = target.stride()[:2] if target.dim() > 1 else (target.stride(0), 1)
    plan = _plan(
        _Kind(
            kernel,
            is_images,
            z.shape[1],
            num_positions,
            z.stride()[:2],
            target_strides,
            dtypes,
            options._replace(weight=None),
            (z.device, num_rows > _LARGEST_INT32, *is_aligned(z, target, weight)),
        )
    )
    num_blocks = -(-(num_positions if is_images else num_rows) // plan.block_rows)
    num_blocks *= plan.num_class_blocks * (z.shape[0] if is_images else 1)
    return _Problem(plan, num_blocks, num_rows, (z, target, alpha, weight))


@functools.lru_cache(maxsize=1024)
def _plan(kind: _Kind) -> _Plan:
    """How the logits are cut, and a launcher of their own."""
    is_soft = kind.dtypes[1] != torch.int64
    is_weighted, has_alpha = (dtype is not None for dtype in kind.dtypes[2:4])
    is_smoothed, num_classes = kind.options.label_smoothing > 0, kind.num_classes
    block_rows, block_classes, num_warps = _cut(kind, is_soft or is_smoothed)
    # What is along the memory is counted in vectors, for the compiler to know what divides it.
    strides = kind.z_strides + (kind.target_strides if is_soft else ())
    if kind.is_images:
        vector = math.gcd(16, kind.num_positions, *strides)
        lengths = num_classes, kind.num_positions // vector
    else:
        strides = strides[::2]
        vector = math.gcd(16, num_classes, *strides)
        lengths = num_classes // vector, 1
    of_target = vector if is_soft else 1
    numbers = (
        *lengths,
        kind.z_strides[0] // vector,
        kind.z_strides[1] // vector if kind.is_images else 1,
        kind.target_strides[0] // of_target,
        kind.target_strides[1] // of_target if kind.is_images else 1,
        kind.options.ignore_index,
        float(kind.options.label_smoothing),
    )
    flags = kind.is_images, has_alpha, is_soft, is_weighted, is_smoothed
    constants = vector, *flags, kind.options.reduction, block_rows, block_classes
    is_backward = kind.kernel is backward_kernel
    num_class_blocks = triton.cdiv(num_classes, block_classes) if is_backward else 1
    launcher = Launcher(kind.kernel, constants, num_warps)
    return _Plan(launcher, block_rows, num_class_blocks, numbers)


def _cut(kind: _Kind, has_spread_target: bool) -> tuple[int, int, int]:
    """Rows and classes of a block, and its warps: a thread has 16 logits.

    It has 8 where it keeps four sums of each of them.
    """
    has_sums = kind.kernel is forward_kernel and has_spread_target
    classes = triton.next_power_of_2(kind.num_classes)
    if kind.is_images:
        rows = min(triton.next_power_of_2(kind.num_positions), MAX_BLOCK_POSITIONS)
        classes = min(classes, max(1, IMAGE_BLOCK_SIZE // rows))
        return rows, classes, 8 if has_sums else 4
    classes = min(classes, MAX_BLOCK_CLASSES)
    if classes < MAX_BLOCK_CLASSES:
        return max(1, MIN_BLOCK_SIZE // classes), classes, 4
    return 1, classes, 16 if has_sums else 8


def _is_one_hot(target: Tensor, options: Options) -> bool:
    return is_index(target) and options.label_smoothing == 0


def _with_adjacent(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C) of adjacent classes, or (N, C, P) of adjacent positions; the target alike."""
    if z.dim() > 2:
        if z.shape[2:].numel() == 1:
            z = z.flatten(1)
            target = target.flatten() if is_index(target) else target.flatten(1)
        else:
            z = z.flatten(2)
            target = target.flatten() if is_index(target) else target.flatten(2)
    return _adjacent(z), _adjacent(target)


def _adjacent(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 1 or tensor.stride(-1) == 1 else tensor.contiguous()
