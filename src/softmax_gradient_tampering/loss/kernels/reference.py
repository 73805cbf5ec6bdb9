"""The paper's equations, in differentiable torch operations of any dtype.

Legend: N rows, C classes; z (N, C) logits, q (N, C) target distribution with the
class weights multiplied in, p' = p^alpha / sum(p^alpha) = softmax(alpha z). Further
dimensions, (N, C, d1, ...), are rows too: dimension 1 is that of the classes everywhere.

    value      L     = cross_entropy(z, q)
    gradient   dL/dz = scale * (sum_c(q) p' - q)       without weights sum_c(q) = 1

Source: arXiv 2111.12495, section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    along_classes,
    compute_dtype,
    is_index,
    loss_divisor,
    row_scale,
)


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """The ordinary cross-entropy, which alpha does not touch.

    Args:
        z: (N, C, d1, ...) logits.
        target: (N, d1, ...) class indices, int64, or (N, C, d1, ...) probabilities.
        alpha: unused here; for kernels whose forward prepares their backward.
        options: the loss's options.

    Returns:
        loss: 0-d, or (N, d1, ...) where the reduction is "none", in `options.loss_dtype`.
        stats: what `backward` needs, of `stats_shape`; here what the reduction divides by.
    """
    dtype = compute_dtype(z.dtype)
    weight = options.weight
    loss = F.cross_entropy(
        z.to(dtype),
        target if is_index(target) else target.to(dtype),
        weight=None if weight is None else weight.to(dtype),
        ignore_index=options.ignore_index,
        reduction=options.reduction,
        label_smoothing=options.label_smoothing,
    )
    return loss.to(options.loss_dtype), loss_divisor(target, options, z)


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """The tampered gradient; differentiable in `grad_loss` and `z`.

    Args:
        grad_loss: the gradient of the loss, 0-d or (N, d1, ...).
        z: (N, C, d1, ...) logits.
        target: (N, d1, ...) class indices, int64, or (N, C, d1, ...) probabilities.
        alpha: the exponent, a number or a 0-d tensor.
        stats: what `forward` returned.
        options: the loss's options.

    Returns:
        The gradient of the loss with respect to z, in z's shape and dtype, contiguous.
    """
    log_p = tampered_log_softmax(z.to(compute_dtype(z.dtype)), alpha)
    return gradient(grad_loss, log_p.exp(), target, stats, options).to(z.dtype).contiguous()


def gradient(
    grad_loss: Tensor, p: Tensor, target: Tensor, divisor: Tensor, options: Options
) -> Tensor:
    """As `backward`, from p' in the compute dtype."""
    q = target_distribution(target, p, options)
    is_sum_one = is_index(target) and options.weight is None  # where it is not, the row is ignored
    q_sum = 1.0 if is_sum_one else q.sum(1, keepdim=True)
    return row_scale(grad_loss, target, divisor, options) * (q_sum * p - q)


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """The shape of stats: 0-d. Its dtype is the compute dtype of z."""
    return ()


def tampered_log_softmax(z: Tensor, alpha: Alpha) -> Tensor:
    """log p' = log_softmax(alpha z), of z's shape; at alpha = 0, p' uniform where z is not -inf."""
    return torch.log_softmax(multiply(z, alpha), dim=1)


def multiply(z: Tensor, alpha: Alpha) -> Tensor:
    """alpha z; at alpha = 0, -inf stays, and all else is 0."""
    if isinstance(alpha, Tensor):
        product = torch.where(alpha == 0, 0, alpha.to(z.dtype) * z)  # 0 times inf or nan is nan
    elif alpha == 0:
        product = torch.zeros_like(z)
    else:
        return alpha * z
    return torch.where(z == -torch.inf, z, product)


def target_distribution(target: Tensor, z: Tensor, options: Options) -> Tensor:
    """q of z's shape: one-hot or given, smoothed first, then weighted, as torch does."""
    dtype = compute_dtype(z.dtype)
    num_classes = z.shape[1]
    if is_index(target):
        classes = torch.arange(num_classes, device=z.device)
        q = (target.unsqueeze(1) == along_classes(classes, z)).to(dtype)
    else:
        q = target.to(dtype)
    if options.label_smoothing > 0:
        q = q * (1 - options.label_smoothing) + options.label_smoothing / num_classes
    return q if options.weight is None else q * along_classes(options.weight.to(dtype), z)
