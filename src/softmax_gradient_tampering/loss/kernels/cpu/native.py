"""The contract of `reference` on a CPU, by the compiled rows of `native.cpp`.

float32 and half types; class indices, or class probabilities in float32. The logits are read
twice in each pass, from the cache the second time, and nothing of their size is made but the
gradient. What it does not take, and every machine without the library, has `blocks`, whose stats
are the same.
"""

import ctypes

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.cpu.native_library import Problem, native_library
from softmax_gradient_tampering.loss.kernels.options import Options, is_index
from softmax_gradient_tampering.loss.torch_internals import is_transformed

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Below it alpha may be 0 in float32, and 0 * -inf is no limit.
_SMALLEST_ALPHA = 1e-30


def takes(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> bool:
    """Whether these arguments can be computed here."""
    return (
        z.dtype in _DTYPES
        and type(alpha) is float
        and alpha >= _SMALLEST_ALPHA
        and z.numel() > 0
        and z.layout is torch.strided
        and (is_index(target) or target.dtype is torch.float32)
        and not is_transformed()
        and native_library() is not None
    )


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`; where `takes` says so."""
    library = _loaded()
    problem, _held = _problem(z, target, options)
    # Of the logits' device and of float32, whatever torch's defaults are set to.
    losses = z.new_empty(z.shape[0], dtype=torch.float32)
    loss, divisor = losses.new_empty(()), losses.new_empty(())
    wrong = library.sgt_forward(
        ctypes.byref(problem), losses.data_ptr(), loss.data_ptr(), divisor.data_ptr()
    )
    if wrong >= 0:
        raise IndexError(f"Target {int(target[wrong])} is out of bounds.")
    result = losses if options.reduction == "none" else loss
    return result.to(options.loss_dtype), divisor


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    library = _loaded()
    problem, _held = _problem(z, target, options)
    # The clone also makes real what torch keeps as a promise: expanded, negated or all zero.
    scale = grad_loss.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    library.sgt_backward(
        ctypes.byref(problem),
        scale.data_ptr(),
        min(scale.dim(), 1),
        stats.data_ptr(),
        alpha,
        grad.data_ptr(),
    )
    return grad


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """See `reference.stats_shape`."""
    return ()


def _loaded() -> ctypes.CDLL:
    library = native_library()
    assert library is not None  # `takes` was asked
    return library


def _problem(
    z: Tensor, target: Tensor, options: Options
) -> tuple[Problem, tuple[Tensor | None, ...]]:
    """The arguments as `native.cpp` takes them, and the tensors that must live as long."""
    rows = z.resolve_neg()
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    target = target.resolve_neg().contiguous()
    weight = options.weight
    if weight is not None:
        weight = weight.to(torch.float32).resolve_neg().contiguous()
    has_labels = is_index(target)
    problem = Problem(
        rows.data_ptr(),
        target.data_ptr() if has_labels else None,
        None if has_labels else target.data_ptr(),
        None if weight is None else weight.data_ptr(),
        z.shape[0],
        z.shape[1],
        rows.stride(0),
        options.ignore_index,
        options.label_smoothing,
        _DTYPES[z.dtype],
        options.reduction == "mean",
        torch.get_num_threads(),
    )
    return problem, (rows, target, weight)
