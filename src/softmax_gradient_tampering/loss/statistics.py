"""Statistics of the logits, as the published code prints them (--logit-stats)."""

from typing import NamedTuple

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import check_tensors


class LogitStatistics(NamedTuple):
    """Float32 0-d tensors: means over the rows of a batch of logits."""

    norm: Tensor
    mean: Tensor
    max: Tensor
    var: Tensor


@torch.no_grad()
def logit_statistics(logits: Tensor) -> LogitStatistics:
    """Norm, mean, max and variance of the logits, averaged over the rows::

        norm = mean of the rows' l2 norms       max = mean of |row maximum|
        mean = mean of |row mean|               var = mean of the rows' unbiased variances

    Args:
        logits: (N, C) logits of any floating dtype.

    Returns:
        The four statistics as float32 0-d tensors on the logits' device.

    Raises:
        TypeError: logits is no tensor.

    >>> [s.item() for s in logit_statistics(torch.tensor([[3.0, -4.0], [0.0, 0.0]]))]
    [2.5, 0.25, 1.5, 12.25]

    Source: the published code's --logit-stats.
    """
    check_tensors(logits=logits)
    logits = logits.float()
    return LogitStatistics(
        norm=torch.linalg.vector_norm(logits, dim=1).mean(),
        mean=logits.mean(dim=1).abs().mean(),
        max=logits.amax(dim=1).abs().mean(),
        var=logits.var(dim=1).mean(),
    )
