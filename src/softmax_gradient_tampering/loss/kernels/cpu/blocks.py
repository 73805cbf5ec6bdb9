"""The contract of `reference` on a CPU, in plain torch operations of every dtype.

Rows are taken in blocks that stay in the cache, so that beside the gradient nothing of
size (N, C) is made: touching fresh memory is what a large loss spends most of its time on.
Few logits go through the operations that torch's own cross-entropy is made of, the
backward ones at alpha z: that takes the fewest calls.
"""

from collections.abc import Callable

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
from softmax_gradient_tampering.loss.torch_internals import log_softmax_backward

aten = torch.ops.aten

# Elements of a block: larger blocks leave the cache, smaller ones pay more calls.
BLOCK_SIZE = 2**19
# Elements up to which the calls of the backward pass take longer than what they do.
SMALL_SIZE = 2**15
_REDUCTION = {"none": 0, "mean": 1, "sum": 2}


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    dtype, reduction = compute_dtype(z.dtype), options.reduction
    options = _in_dtype(options, dtype)
    if z.numel() <= BLOCK_SIZE and _is_native(target, options):
        loss, divisor = _nll(torch.log_softmax(z, -1, dtype), target, options)
    else:
        losses, divisors = _block_losses(z, target, options)
        if reduction == "none":
            loss, divisor = torch.cat(losses), divisors[0]
        else:
            loss, divisor = torch.stack(losses).sum(), torch.stack(divisors).sum()
        if reduction == "mean":
            loss = loss / divisor
    return loss.to(options.loss_dtype), divisor if reduction == "mean" else divisor.new_ones(())


def _block_losses(z: Tensor, target: Tensor, options: Options) -> tuple[list[Tensor], list[Tensor]]:
    """Of every block the losses of its rows, or their sum, and the weight of those that count."""
    if options.reduction == "mean":
        options = options._replace(reduction="sum")
    z_blocks = _split(z, z)
    buffer = _block_buffer(z_blocks[0])
    losses, divisors = [], []
    for z_rows, target_rows in zip(z_blocks, _split(target, z), strict=True):
        log_p = buffer[: z_rows.shape[0]]
        torch.log_softmax(z_rows, -1, log_p.dtype, out=log_p)
        loss, divisor = _block_loss(log_p, target_rows, options)
        losses.append(loss)
        divisors.append(divisor)
    return losses, divisors


def _block_loss(log_p: Tensor, target: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """See `_block_losses`; `log_p` is written to."""
    smoothing, is_sum = options.label_smoothing, options.reduction == "sum"
    if not is_index(target):
        q = reference.target_distribution(target, log_p, options)
        losses = -log_p.mul_(q).sum(-1)
        return losses.sum() if is_sum else losses, losses.new_full((), losses.shape[0])
    loss, divisor = _nll(log_p, target, options)
    if smoothing > 0:
        weighted = log_p if options.weight is None else log_p.mul_(options.weight)
        even = -weighted.sum(-1).masked_fill_(target == options.ignore_index, 0)
        loss = loss * (1 - smoothing) + (even.sum() if is_sum else even) * (
            smoothing / log_p.shape[-1]
        )
    return loss, divisor


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    options = _in_dtype(options, compute_dtype(z.dtype))
    if z.numel() <= SMALL_SIZE and _is_native(target, options):
        return _nll_backward(grad_loss, z, target, alpha, stats, options)
    scale = row_scale(grad_loss, target, stats, options).expand(z.shape[0], 1)
    block_grad: Callable[..., Tensor] = _soft_grad
    rows: tuple[Tensor, ...] = (z, scale, target)
    if is_index(target):
        block_grad, rows = _index_grad, (z, *_index_rows(scale, target, z.shape[-1], options))
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    grad_blocks = _split(grad, z)
    buffer = _block_buffer(grad_blocks[0])
    blocks = zip(grad_blocks, *(_split(tensor, z) for tensor in rows), strict=True)
    for grad_rows, z_rows, *row in blocks:
        logits = _multiply(z_rows, alpha, out=buffer[: z_rows.shape[0]])
        if grad.dtype == buffer.dtype:
            block_grad(torch.softmax(logits, -1, out=grad_rows), *row, options)
        else:
            grad_rows.copy_(block_grad(torch.softmax(logits, -1), *row, options))
    return grad


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """See `reference.stats_shape`."""
    return ()


def _index_rows(
    scale: Tensor, target: Tensor, num_classes: int, options: Options
) -> tuple[Tensor, ...]:
    """What a row of the gradient is made of, (N, 1) each: scale * sum(q), and so on."""
    smoothing, weight = options.label_smoothing, options.weight
    # An ignored index may lie outside of the classes.
    label = torch.where(target == options.ignore_index, 0, target).unsqueeze(-1)
    at_label = scale if weight is None else scale * weight[label]
    total, even = at_label, scale
    if smoothing > 0:
        at_label = at_label * (1 - smoothing)
        even = scale * (smoothing / num_classes)
        total = at_label + even * (num_classes if weight is None else weight.sum())
    return total, even, label, -at_label


def _index_grad(
    p: Tensor, total: Tensor, even: Tensor, label: Tensor, at_label: Tensor, options: Options
) -> Tensor:
    """scale * (sum(q) p' - q) for rows of class indices, in the place of p'."""
    p.mul_(total)
    if options.label_smoothing > 0:
        p.sub_(even if options.weight is None else even * options.weight)
    return p.scatter_add_(-1, label, at_label)


def _soft_grad(p: Tensor, scale: Tensor, target: Tensor, options: Options) -> Tensor:
    """scale * (sum(q) p' - q) for rows of class probabilities, in the place of p'."""
    q = reference.target_distribution(target, p, options)
    return p.mul_(q.sum(-1, keepdim=True)).sub_(q).mul_(scale)


def _multiply(z: Tensor, alpha: Alpha, out: Tensor) -> Tensor:
    """alpha z in the dtype of `out`; at alpha = 0, -inf stays."""
    if isinstance(alpha, Tensor) or alpha == 0:
        return out.copy_(reference.multiply(z.to(out.dtype), alpha))
    if z.dtype == out.dtype:
        return torch.mul(z, alpha, out=out)
    return out.copy_(z).mul_(alpha)


def _is_native(target: Tensor, options: Options) -> bool:
    """Whether torch's nll_loss computes it all."""
    return is_index(target) and options.label_smoothing == 0


def _nll(log_p: Tensor, target: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The loss without smoothing, and the weight of the rows that count."""
    return aten.nll_loss_forward.default(
        log_p, target, options.weight, _REDUCTION[options.reduction], options.ignore_index
    )


def _nll_backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, divisor: Tensor, options: Options
) -> Tensor:
    """grad - p' sum_c(grad), where grad = -scale * q is the gradient of the log-probability."""
    dtype = compute_dtype(z.dtype)
    log_p = reference.tampered_log_softmax(z.to(dtype), alpha)
    grad = aten.nll_loss_backward.default(
        grad_loss.to(dtype),
        log_p,
        target,
        options.weight,
        _REDUCTION[options.reduction],
        options.ignore_index,
        divisor,
    )
    return log_softmax_backward(grad, log_p, dtype).to(z.dtype)


def _in_dtype(options: Options, dtype: torch.dtype) -> Options:
    """The options with the weights in the dtype of the computation."""
    if options.weight is None or options.weight.dtype == dtype:
        return options
    return options._replace(weight=options.weight.to(dtype))


def _block_buffer(rows: Tensor) -> Tensor:
    """Room for a block in the dtype of the computation."""
    return torch.empty(rows.shape, dtype=compute_dtype(rows.dtype))


def _split(tensor: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Split the rows of `tensor` into those of the blocks of z (N, C)."""
    return tensor.split(max(1, BLOCK_SIZE // max(1, z.shape[-1])))
