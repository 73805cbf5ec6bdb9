"""The power transform of probabilities, and its fixed point (paper section 3)."""

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha, check_alpha, check_tensors


def power_transform(p: Tensor, alpha: Alpha) -> Tensor:
    """p' = p^alpha / sum(p^alpha) over the last axis.

    For p = softmax(z) this is softmax(alpha z); below alpha = 1 it flattens p, and its
    order stays. At alpha = 0, p' is uniform over the classes whose p is not 0.

    Args:
        p: probabilities, (..., C), summing to 1 over the last axis.
        alpha: the exponent, >= 0.

    Returns:
        p', of p's shape and dtype.

    Raises:
        TypeError: p is no tensor.
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient.

    >>> power_transform(torch.tensor([0.64, 0.36]), alpha=0.5)
    tensor([0.5714, 0.4286])

    Source: arXiv 2111.12495, section 3.
    """
    check_tensors(p=p)
    alpha = check_alpha(alpha)
    log_p = p.log()
    # Through the logarithm: p^alpha alone under- and overflows where p' does not.
    return torch.softmax(torch.where(p > 0, alpha * log_p, log_p), dim=-1)


def stationary_threshold(p: Tensor, alpha: Alpha) -> Tensor:
    """The probability that the power transform leaves as it is.

        threshold = (sum_j p_j^alpha) ^ (1 / (alpha - 1)),  exp(-entropy(p)) at alpha = 1

    For alpha < 1, probabilities under the threshold grow and those above it shrink.

    Args:
        p: probabilities, (..., C), summing to 1 over the last axis.
        alpha: the exponent, >= 0.

    Returns:
        The threshold, of p's shape without its last axis.

    Raises:
        TypeError: p is no tensor.
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient.

    >>> stationary_threshold(torch.full((4,), 0.25), alpha=0.5)
    tensor(0.2500)

    Source: arXiv 2111.12495, section 3.
    """
    check_tensors(p=p)
    alpha = check_alpha(alpha)
    log_p = p.log()
    at_one = torch.exp(torch.special.xlogy(p, p).sum(-1))
    distance = torch.as_tensor(alpha, dtype=p.dtype, device=p.device) - 1
    log_sum = torch.logsumexp(torch.where(p > 0, alpha * log_p, log_p), dim=-1)
    elsewhere = torch.exp(log_sum / torch.where(distance == 0, 1, distance))
    return torch.where(distance == 0, at_one, elsewhere)
