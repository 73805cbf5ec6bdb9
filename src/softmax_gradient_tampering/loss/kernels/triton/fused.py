"""Loss and gradient at once, for a loss that autograd records: one launch in the place of two.

The gradient is made for the incoming gradient that is foreseen: the last one that came to a loss
of the kind, at first 1. When it comes, the device compares, and only if it is another one makes the
gradient again from the logits; the host waits for nothing and need not know. What is foreseen
changes how long it takes, and not what comes out.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options
from softmax_gradient_tampering.loss.kernels.triton.device import backward_kernel, forward_kernel
from softmax_gradient_tampering.loss.kernels.triton.kernel import (
    LARGEST_INT32,
    Kind,
    Plan,
    as_kernels_take,
    kind_of,
    plan_of,
    problem_of,
    stats_shape,
)
from softmax_gradient_tampering.loss.kernels.triton.launch import Launcher, on_device_of
from softmax_gradient_tampering.loss.kernels.triton.one_launch import (
    fused_kernel,
    prepare_kernel,
    repair_kernel,
)
from softmax_gradient_tampering.loss.kernels.triton.sums import num_groups, scratch_size

# Where it was measured to be faster (an H200): rows of more classes than this, and not so many of
# them that the one program which prepares all rows takes long.
SHORT_ROW, MOST_ROWS = 4096, 2**16
# Programs that look whether there is anything to repair: as many as a device runs at once.
REPAIRERS = 1024
# Classes of a block by the bytes of a logit, and of a block of rows of so many bytes (measured).
BLOCK_CLASSES, LONG_ROW, LONG_ROW_BLOCK = {2: 4096, 4: 8192}, 200_000, 16384


class Made(NamedTuple):
    """A gradient, and where the incoming gradient is kept that is foreseen for the next loss."""

    grad: Tensor
    predicted: Tensor


def takes(z: Tensor, options: Options) -> bool:
    """Whether loss and gradient of these logits are better made at once."""
    if z.dim() != 2 or options.reduction == "none":
        return False
    num_rows, num_classes = z.shape
    return 0 < num_rows <= MOST_ROWS and num_classes > SHORT_ROW


def forward(
    z: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> tuple[Tensor, Tensor, Made]:
    """As `kernel.forward`, and the gradient; more follows the statistics, for `backward`."""
    z, target, alpha = as_kernels_take(z, target, alpha)
    num_rows, weight = z.shape[0], options.weight
    plan = _plan(kind_of(fused_kernel, z, target, alpha, options, options.loss_dtype))
    (size,) = stats_shape(z, target, options)
    # Statistics, the incoming gradient that is foreseen, and the scratch.
    size += 1 + scratch_size(num_rows)
    memory = torch.empty(size, dtype=torch.float32, device=z.device)
    loss = torch.empty((), dtype=options.loss_dtype, device=z.device)
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    with on_device_of(z):
        plan.prepare(
            *(1, target, weight, plan.predicted, memory, num_rows, 1 + num_groups(num_rows)),
            *(z.shape[1], target.stride(0), options.ignore_index),
        )
        inputs = z, target, alpha, weight
        plan.launcher(num_rows, *inputs, memory, loss, grad, num_rows, *plan.numbers)
    return loss, memory, Made(grad, plan.predicted)


def backward(
    grad_loss: Tensor,
    z: Tensor,
    target: Tensor,
    alpha: Alpha,
    stats: Tensor,
    options: Options,
    made: Made,
) -> Tensor:
    """As `kernel.backward`; the gradient is the one that was made, mended if need be."""
    problem = problem_of(repair_kernel, z, target, alpha, options, grad_loss)
    problem.launch(
        *(stats, grad_loss, made.predicted, made.grad, problem.num_blocks),
        most_programs=REPAIRERS,
    )
    return made.grad


class _Plan(NamedTuple):
    prepare: Launcher
    launcher: Launcher
    numbers: tuple[float, ...]  # the kernel's arguments after the number of rows
    predicted: Tensor


@functools.lru_cache(maxsize=1024)
def _plan(kind: Kind) -> _Plan:
    dtype, num_classes = kind.dtypes[0], kind.num_classes
    assert dtype is not None
    z_stride, target_stride, itemsize = kind.z_strides[0], kind.target_strides[0], dtype.itemsize
    vector = math.gcd(16, num_classes, z_stride, *([target_stride] if kind.is_soft else []))
    width = 16 // itemsize
    # Rows that begin anywhere, one after the other, in memory that begins at 16 bytes.
    is_peeled = vector < width and z_stride == num_classes and kind.others[2]
    most = BLOCK_CLASSES[itemsize] if num_classes * itemsize < LONG_ROW else LONG_ROW_BLOCK
    block = min(triton.next_power_of_2(num_classes + is_peeled * width), most)
    block = max(block, 32 * width)
    num_warps = min(32, max(1, block // 512 if block > 1024 else block // 256))
    numbers = (
        num_classes // vector,
        z_stride // vector,
        target_stride // (vector if kind.is_soft else 1),
        kind.options.ignore_index,
        float(kind.options.label_smoothing),
    )
    constants = vector, is_peeled, *kind.flags, block // width, width
    device = kind.others[0]
    return _Plan(
        Launcher(prepare_kernel, (*kind.flags[1:], 1024), 4),
        Launcher(fused_kernel, constants, num_warps),
        numbers,
        torch.ones((), dtype=torch.float32, device=device),
    )


class PlainLogits:
    """`forward` and `backward` of logits and labels one after the other, and default options.

    The same in the fewest steps of Python, which of few logits take longer than the device does.
    """

    def __init__(self, z: Tensor, target: Tensor, loss_dtype: torch.dtype) -> None:
        addresses = z.data_ptr(), target.data_ptr()
        is_aligned = addresses[0] % 16 == 0, addresses[1] % 16 == 0
        self._is_fused = takes(z, _DEFAULTS)
        self._plan = _plain_plan(
            z.shape[1], z.dtype, loss_dtype, z.device, is_aligned, self._is_fused
        )
        self._address, self._shape = addresses[0], z.shape

    @staticmethod
    def takes(z: Tensor, target: Tensor) -> bool:
        """Whether these arguments can be computed here: plain tensors on one device."""
        return (
            z.dim() == 2
            and target.dim() == 1
            and z.dtype in _DTYPES
            and target.dtype is torch.int64
            and z.shape[0] == target.shape[0]
            and z.device == target.device
            and z.is_contiguous()
            and target.is_contiguous()
            and 0 < z.numel() <= LARGEST_INT32
        )

    def forward(
        self, z: Tensor, target: Tensor, alpha: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss, statistics, and the gradient, if it is made at once."""
        plan, (num_rows, num_classes) = self._plan, self._shape
        loss = torch.empty((), dtype=plan.loss_dtype, device=z.device)
        if not self._is_fused:
            num_blocks = -(-num_rows // plan.forward.block_rows)
            stats = torch.empty(2 * num_rows + 1, dtype=torch.float32, device=z.device)
            scratch = torch.zeros(scratch_size(num_blocks), dtype=torch.float32, device=z.device)
            with on_device_of(z):
                plan.forward.launcher(
                    *(num_blocks, z, target, alpha, None, stats, scratch, loss, num_rows),
                    *plan.forward.numbers,
                )
            return loss, stats, None
        num_counters = 1 + num_groups(num_rows)
        size = 2 * num_rows + 2 + scratch_size(num_rows)
        memory = torch.empty(size, dtype=torch.float32, device=z.device)
        grad = torch.empty_like(z)
        with on_device_of(z):
            plan.forward.prepare(
                *(1, target, None, plan.forward.predicted, memory, num_rows, num_counters),
                *(num_classes, 1, -100),
            )
            plan.forward.launcher(
                *(num_rows, z, target, alpha, None, memory, loss, grad, num_rows),
                *plan.forward.numbers,
            )
        return loss, memory, grad

    def backward(
        self,
        grad_loss: Tensor,
        z: Tensor,
        target: Tensor,
        alpha: float,
        stats: Tensor,
        grad: Tensor | None,
    ) -> Tensor:
        """The gradient: the one that `forward` made, mended if need be, or one that is made now."""
        plan, num_rows = self._plan.backward, self._shape[0]
        num_blocks = -(-num_rows // plan.block_rows) * plan.num_class_blocks
        inputs = z, target, alpha, None, stats, grad_loss
        with on_device_of(z):
            if grad is None:
                grad = torch.empty_like(z)
                plan.launcher(num_blocks, *inputs, 0, grad, num_rows, *plan.numbers)
            else:
                outputs = self._plan.forward.predicted, grad, num_blocks
                num_programs = min(num_blocks, REPAIRERS)
                plan.launcher(num_programs, *inputs, *outputs, num_rows, *plan.numbers)
        return grad

    def holds(self, z: Tensor) -> bool:
        """Whether these are the logits of which the gradient was made, where they were."""
        return z.data_ptr() == self._address


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_DEFAULTS = Options(None, -100, "mean", 0.0, torch.float32)


class _PlainPlan(NamedTuple):
    forward: Any  # a `_Plan` if fused, else a `Plan`
    backward: Plan
    loss_dtype: torch.dtype


@functools.lru_cache(maxsize=1024)
def _plain_plan(
    num_classes: int,
    dtype: torch.dtype,
    loss_dtype: torch.dtype,
    device: torch.device,
    is_aligned: tuple[bool, bool],
    is_fused: bool,
) -> _PlainPlan:
    def kind(kernel: Any) -> Kind:
        return Kind(
            kernel=kernel,
            is_images=False,
            num_classes=num_classes,
            num_positions=1,
            z_strides=(num_classes, 1),
            target_strides=(1, 1),
            dtypes=(dtype, torch.int64, None, None, loss_dtype),
            options=_DEFAULTS._replace(loss_dtype=loss_dtype),
            others=(device, False, *is_aligned),
        )

    if is_fused:
        return _PlainPlan(_plan(kind(fused_kernel)), plan_of(kind(repair_kernel)), loss_dtype)
    forward, backward = (plan_of(kind(kernel)) for kernel in (forward_kernel, backward_kernel))
    return _PlainPlan(forward, backward, loss_dtype)
