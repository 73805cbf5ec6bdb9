"""The contract of `reference`, fast on a CPU, in plain torch operations.

For class indices without smoothing it calls the operations that torch's own
cross-entropy is made of, the backward ones at alpha z. Rows are taken in blocks that
stay in the cache, so that beside the gradient nothing of size (N, C) is made.
"""

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    compute_dtype,
    is_index,
    row_scale,
)

aten = torch.ops.aten

# Elements of a block: larger blocks leave the cache, smaller ones pay more calls.
BLOCK_SIZE = 2**18
_REDUCTION = {"none": 0, "mean": 1, "sum": 2}


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    if not _is_native(target, options):
        return reference.forward(z, target, alpha, options)
    reduction = options.reduction
    if z.numel() <= BLOCK_SIZE:
        loss, divisor = _nll(z, target, options, _REDUCTION[reduction])
        if reduction != "mean":
            divisor = torch.ones_like(divisor)
        return loss.to(options.loss_dtype), divisor
    rowwise = 0 if reduction == "none" else 2
    blocks = zip(_split(z, z), _split(target, z), strict=True)
    losses, divisors = zip(*(_nll(*block, options, rowwise) for block in blocks), strict=True)
    if reduction == "none":
        loss = torch.cat(losses)
        return loss.to(options.loss_dtype), loss.new_ones(())
    loss, divisor = torch.stack(losses).sum(), torch.stack(divisors).sum()
    if reduction == "sum":
        return loss.to(options.loss_dtype), torch.ones_like(divisor)
    return (loss / divisor).to(options.loss_dtype), divisor


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    if z.numel() <= BLOCK_SIZE:
        if _is_native(target, options):
            return _nll_backward(grad_loss, z, target, alpha, stats, options)
        return reference.backward(grad_loss, z, target, alpha, stats, options)
    scale = row_scale(grad_loss, target, stats, options).expand(z.shape[0], 1).squeeze(-1)
    rowwise, one = options._replace(reduction="none"), torch.ones_like(stats)
    block_backward = _nll_backward if _is_native(target, options) else reference.backward
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    blocks = zip(*(_split(tensor, z) for tensor in (grad, scale, z, target)), strict=True)
    for grad_rows, scale_rows, z_rows, target_rows in blocks:
        grad_rows.copy_(block_backward(scale_rows, z_rows, target_rows, alpha, one, rowwise))
    return grad


def _is_native(target: Tensor, options: Options) -> bool:
    return is_index(target) and options.label_smoothing == 0


def _nll(z: Tensor, target: Tensor, options: Options, reduction: int) -> tuple[Tensor, Tensor]:
    """The loss of a block and the weight of the rows that count."""
    log_p = torch.log_softmax(z, -1, dtype=compute_dtype(z.dtype))
    weight = None if options.weight is None else options.weight.to(log_p.dtype)
    return aten.nll_loss_forward.default(log_p, target, weight, reduction, options.ignore_index)


def _nll_backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, divisor: Tensor, options: Options
) -> Tensor:
    """grad - p' sum_c(grad), where grad = -scale * q is the gradient of the log-probability."""
    log_p = reference.tampered_log_softmax(z.to(compute_dtype(z.dtype)), alpha)
    weight = None if options.weight is None else options.weight.to(log_p.dtype)
    grad = aten.nll_loss_backward.default(
        grad_loss.to(log_p.dtype),
        log_p,
        target,
        weight,
        _REDUCTION[options.reduction],
        options.ignore_index,
        divisor,
    )
    return aten._log_softmax_backward_data.default(grad, log_p, -1, log_p.dtype).to(z.dtype)


def _split(tensor: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Split the rows of `tensor` into those of the blocks of z (N, C)."""
    return tensor.split(max(1, BLOCK_SIZE // max(1, z.shape[-1])))
