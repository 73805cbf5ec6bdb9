"""The contract of `reference` on a CPU, by the compiled code of `source/native.cpp`.

float32 and half types; class indices, or class probabilities in float32. Logits (N, C, d1, ...)
are N images of P = d1 ... positions. They are read twice in each pass, from the cache the second
time, and nothing of their size is made but the gradient. What it does not take, and every machine
without the library, has `blocks`, whose stats are the same.
"""

import ctypes
import math

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.cpu import plain
from softmax_gradient_tampering.loss.kernels.cpu.native_library import PROBLEM, native_library
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.torch_internals import is_all_zero, is_transformed

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Below it alpha may be 0 in float32, and 0 * -inf is no limit.
SMALLEST_ALPHA = 1e-30


def takes(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> bool:
    """Whether these arguments can be computed here."""
    return (
        z.dtype in _DTYPES
        and type(alpha) is float
        and alpha >= SMALLEST_ALPHA
        and z.numel() > 0
        and z.layout is torch.strided
        and (is_index(target) or target.dtype is torch.float32)
        and not (is_all_zero(z) or is_all_zero(target))
        and not is_transformed()
        and native_library() is not None
    )


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`; where `takes` says so."""
    problem, _held = _problem(z, target, options)
    # Of the logits' device and of float32, whatever torch's defaults are set to.
    loss = z.new_empty((), dtype=torch.float32)
    divisor = torch.empty_like(loss)  # outputs of an operator share no memory
    losses = None
    if options.reduction == "none":
        losses = loss.new_empty(z.shape[:1] + z.shape[2:])
    each = None if losses is None else losses.data_ptr()
    wrong = _loaded().sgt_forward(problem, each, loss.data_ptr(), divisor.data_ptr())
    if wrong >= 0:
        raise _out_of_bounds(target, wrong)
    return (loss if losses is None else losses).to(options.loss_dtype), divisor


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    assert type(alpha) is float  # `takes` was asked
    problem, _held = _problem(z, target, options)
    scale, grad = _as_floats(grad_loss), torch.empty_like(z, memory_format=torch.contiguous_format)
    of_loss = scale.data_ptr(), scale.dim() > 0, stats.data_ptr()
    _loaded().sgt_backward(problem, *of_loss, alpha, grad.data_ptr())
    return grad


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """See `reference.stats_shape`."""
    return ()


class PlainLogits(plain.PlainLogits):
    """`forward` and `backward` in the fewest steps, of what it takes."""

    __slots__ = ("_divisor", "_library", "_problem")

    def __init__(self, library: ctypes.CDLL, z: Tensor, target: Tensor) -> None:
        super().__init__(z, target)
        self._library = library
        num_images, num_classes, *others = z.shape
        num_positions = math.prod(others)
        self._problem = PROBLEM.pack(
            *(*self._addresses, 0, 0, num_images, num_classes, num_positions),
            *(num_classes * num_positions, num_positions, -100, 0.0),
            *(_DTYPES[torch.float32], True, torch.get_num_threads()),
        )
        self._divisor = ctypes.c_float()

    @property
    def stats(self) -> Tensor:
        return torch.full((), self._divisor.value, dtype=torch.float32, device="cpu")

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        loss = z.new_empty(())
        divisor = ctypes.byref(self._divisor)
        wrong = self._library.sgt_forward(self._problem, None, loss.data_ptr(), divisor)
        if wrong >= 0:
            raise _out_of_bounds(target, wrong)
        return loss

    def backward(self, grad_loss: Tensor, z: Tensor, target: Tensor, alpha: float) -> Tensor:
        scale = _as_floats(grad_loss)
        grad = torch.empty_like(z)
        divisor = ctypes.byref(self._divisor)
        self._library.sgt_backward(
            self._problem, scale.data_ptr(), False, divisor, alpha, grad.data_ptr()
        )
        return grad


def _out_of_bounds(target: Tensor, position: int) -> IndexError:
    return IndexError(f"Target {int(target.flatten()[position])} is out of bounds.")


def _as_floats(grad_loss: Tensor) -> Tensor:
    """The incoming gradient as float32 in memory, one number or adjacent ones."""
    is_ready = (
        grad_loss.dtype is torch.float32
        and grad_loss.dim() == 0
        and grad_loss.data_ptr() != 0
        and not grad_loss.is_neg()
    )
    if is_ready:
        return grad_loss
    # The clone makes real what torch keeps as a promise: expanded, negated or all zero.
    return grad_loss.to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def _loaded() -> ctypes.CDLL:
    library = native_library()
    assert library is not None  # `takes` was asked
    return library


def _problem(
    z: Tensor, target: Tensor, options: Options
) -> tuple[bytes, tuple[Tensor | None, ...]]:
    """The arguments as `native.cpp` takes them, and the tensors that must live as long."""
    z = z.resolve_neg()
    if z.dim() > 3:
        z = z.flatten(2)
    if z.stride(-1) != 1 or (z.dim() == 3 and z.shape[2] == 1):  # an image of one position is a row
        z = z.contiguous()
    target = target.resolve_neg().contiguous()
    weight = options.weight
    if weight is not None:
        weight = weight.to(torch.float32).resolve_neg().contiguous()
    has_labels = is_index(target)
    num_positions = z.shape[2] if z.dim() == 3 else 1
    problem = PROBLEM.pack(
        z.data_ptr(),
        target.data_ptr() if has_labels else 0,
        0 if has_labels else target.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        z.shape[0],
        z.shape[1],
        num_positions,
        z.stride(0),
        1 if num_positions == 1 else z.stride(1),
        options.ignore_index,
        options.label_smoothing,
        _DTYPES[z.dtype],
        options.reduction == "mean",
        torch.get_num_threads(),
    )
    return problem, (z, target, weight)
