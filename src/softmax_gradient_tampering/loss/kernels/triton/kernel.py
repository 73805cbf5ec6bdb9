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
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.kernels.triton.device import backward_kernel, forward_kernel
from softmax_gradient_tampering.loss.kernels.triton.launch import Launcher, is_aligned, on_device_of
from softmax_gradient_tampering.loss.kernels.triton.sums import scratch_size

# Classes of a block, and logits of a block where rows are short and a block holds several.
MAX_BLOCK_CLASSES = 4096
MIN_BLOCK_SIZE = 1024
# Positions of a block where they are adjacent, and its logits.
MAX_BLOCK_POSITIONS = 512
IMAGE_BLOCK_SIZE = 4096
LARGEST_INT32 = 2**31 - 1


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`; `stats` is laid out as `stats_shape` says."""
    reduction = options.reduction
    stats = torch.empty(stats_shape(z, target, options), dtype=torch.float32, device=z.device)
    shape = z.shape[:1] + z.shape[2:] if reduction == "none" else ()
    loss = torch.empty(shape, dtype=options.loss_dtype, device=z.device)
    if z.numel() == 0:  # nothing is launched
        return loss.fill_(torch.nan if reduction == "mean" else 0), stats.zero_()
    problem = problem_of(forward_kernel, z, target, alpha, options, loss)
    scratch = None
    if reduction != "none":
        size = scratch_size(problem.num_blocks)
        scratch = torch.zeros(size, dtype=torch.float32, device=z.device)
    problem.launch(stats, scratch, loss)
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
    problem = problem_of(backward_kernel, z, target, alpha, options, grad_loss)
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


class Kind(NamedTuple):
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

    @property
    def is_soft(self) -> bool:
        """Whether the target holds probabilities."""
        return self.dtypes[1] != torch.int64

    @property
    def has_spread_target(self) -> bool:
        """Whether the target distribution is more than one-hot."""
        return self.is_soft or self.options.label_smoothing > 0

    @property
    def flags(self) -> tuple[Hashable, ...]:
        """ALPHA_IS_POINTER, IS_SOFT, IS_WEIGHTED, IS_SMOOTHED and REDUCTION."""
        is_weighted, is_pointer = (dtype is not None for dtype in self.dtypes[2:4])
        is_smoothed = self.options.label_smoothing > 0
        return is_pointer, self.is_soft, is_weighted, is_smoothed, self.options.reduction


class Plan(NamedTuple):
    """How logits of one kind are cut into blocks, and what launches a kernel over them."""

    launcher: Launcher
    block_rows: int
    num_class_blocks: int  # that have a program each
    numbers: tuple[float, ...]  # the kernel's arguments after the number of rows


class Problem(NamedTuple):
    """A launch, all but for the tensors that it writes."""

    plan: Plan
    num_blocks: int
    num_rows: int
    inputs: tuple[Any, ...]  # logits, target, alpha, weight

    def launch(self, *others: Any, most_programs: int = LARGEST_INT32) -> None:
        """Launch it over all blocks; the others are the kernel's arguments after the inputs."""
        arguments = *self.inputs, *others, self.num_rows, *self.plan.numbers
        with on_device_of(self.inputs[0]):
            self.plan.launcher(min(self.num_blocks, most_programs), *arguments)


def problem_of(
    kernel: Any, z: Tensor, target: Tensor, alpha: Alpha, options: Options, of_loss: Tensor
) -> Problem:
    """What a kernel is launched with; `of_loss` is the loss or its gradient."""
    z, target, alpha = as_kernels_take(z, target, alpha)
    is_images = z.dim() == 3
    num_positions = z.shape[2] if is_images else 1
    num_rows = z.shape[0] * num_positions
    plan = plan_of(kind_of(kernel, z, target, alpha, options, of_loss.dtype))
    num_blocks = -(-(num_positions if is_images else num_rows) // plan.block_rows)
    num_blocks *= plan.num_class_blocks * (z.shape[0] if is_images else 1)
    return Problem(plan, num_blocks, num_rows, (z, target, alpha, options.weight))


def as_kernels_take(z: Tensor, target: Tensor, alpha: Alpha) -> tuple[Tensor, Tensor, Alpha]:
    """Logits (N, C) of adjacent classes, or (N, C, P) of adjacent positions; the target alike."""
    if z.dim() > 2:
        # One position alone is none.
        first = 1 if z.shape[2:].numel() == 1 else 2
        z = z.flatten(first)
        target = target.flatten() if is_index(target) else target.flatten(first)
    if isinstance(alpha, Tensor):
        # Reading one of a CPU waits for no device.
        alpha = float(alpha) if alpha.device.type == "cpu" else alpha.to(z.device)
    return _with_adjacent(z), _with_adjacent(target), alpha


def _with_adjacent(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 1 or tensor.stride(-1) == 1 else tensor.contiguous()


def kind_of(
    kernel: Any,
    z: Tensor,
    target: Tensor,
    alpha: Alpha,
    options: Options,
    loss_dtype: torch.dtype,
) -> Kind:
    """The kind of a launch with what `as_kernels_take` gives."""
    weight, is_images = options.weight, z.dim() == 3
    return Kind(
        kernel,
        is_images,
        z.shape[1],
        z.shape[2] if is_images else 1,
        z.stride()[:2],
        target.stride()[:2] if target.dim() > 1 else (target.stride(0), 1),
        (
            z.dtype,
            target.dtype,
            None if weight is None else weight.dtype,
            alpha.dtype if isinstance(alpha, Tensor) else None,
            loss_dtype,
        ),
        options._replace(weight=None),
        (z.device, z.numel() > LARGEST_INT32 * z.shape[1], *is_aligned(z, target, weight)),
    )


@functools.lru_cache(maxsize=1024)
def plan_of(kind: Kind) -> Plan:
    """How the logits are cut, and a launcher of their own."""
    block_rows, block_classes, num_warps = _cut(kind)
    # What is along the memory is counted in vectors, for the compiler to know what divides it.
    strides = kind.z_strides + (kind.target_strides if kind.is_soft else ())
    if kind.is_images:
        vector = math.gcd(16, kind.num_positions, *strides)
        lengths = kind.num_classes, kind.num_positions // vector
    else:
        vector = math.gcd(16, kind.num_classes, *strides[::2])
        lengths = kind.num_classes // vector, 1
    of_target = vector if kind.is_soft else 1
    numbers = (
        *lengths,
        kind.z_strides[0] // vector,
        kind.z_strides[1] // vector if kind.is_images else 1,
        kind.target_strides[0] // of_target,
        kind.target_strides[1] // of_target if kind.is_images else 1,
        kind.options.ignore_index,
        float(kind.options.label_smoothing),
    )
    constants = vector, kind.is_images, *kind.flags, block_rows, block_classes
    is_forward = kind.kernel is forward_kernel
    num_class_blocks = 1 if is_forward else triton.cdiv(kind.num_classes, block_classes)
    launcher = Launcher(kind.kernel, constants, num_warps)
    return Plan(launcher, block_rows, num_class_blocks, numbers)


def _cut(kind: Kind) -> tuple[int, int, int]:
    """Rows and classes of a block, and its warps: a thread has 16 logits.

    It has 8 where it keeps four sums of each of them.
    """
    has_sums = kind.kernel is forward_kernel and kind.has_spread_target
    classes = triton.next_power_of_2(kind.num_classes)
    if kind.is_images:
        rows = min(triton.next_power_of_2(kind.num_positions), MAX_BLOCK_POSITIONS)
        classes = min(classes, max(1, IMAGE_BLOCK_SIZE // rows))
        return rows, classes, 16 if has_sums else 4
    classes = min(classes, MAX_BLOCK_CLASSES)
    if classes < MAX_BLOCK_CLASSES:
        return max(1, MIN_BLOCK_SIZE // classes), classes, 4
    return 1, classes, 16 if has_sums else 8


def _is_one_hot(target: Tensor, options: Options) -> bool:
    return is_index(target) and options.label_smoothing == 0
