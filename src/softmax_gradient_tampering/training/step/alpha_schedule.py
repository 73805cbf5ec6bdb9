"""alpha as a function of the epoch, so that a resumed run needs no state of it."""

import math

import torch
from torch import nn

from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.training.config.fields import Config


def epoch_alpha(config: Config, epoch: int, num_epochs: int) -> float:
    """alpha during an epoch, from 0: --modify-softmax in the first, --alpha-end in the last.

        linear    start + (end - start) * t           t = epoch / (num_epochs - 1)
        cosine    end + (start - end) * (1 + cos(pi t)) / 2

    >>> config = Config(modify_softmax=1.0, alpha_schedule="linear", alpha_end=0.5)
    >>> [epoch_alpha(config, epoch, num_epochs=3) for epoch in range(3)]
    [1.0, 0.75, 0.5]
    """
    start, end = config.modify_softmax, config.alpha_end
    if config.alpha_schedule == "constant" or end is None or epoch <= 0:
        return start
    if epoch >= num_epochs - 1:
        return end
    share = epoch / (num_epochs - 1)
    if config.alpha_schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


class AlphaSchedule:
    """Sets the loss's alpha at the start of every epoch.

    alpha is a 0-d tensor on the device, written in place: nothing that was compiled or
    captured with it is made anew.

    Args:
        config: with the schedule.
        loss: whose alpha is set, or that of a loss in it; any but the tampered one is left alone.
        num_epochs: of the run, the cool-down included.
        device: where the loss is computed.
    """

    def __init__(
        self, config: Config, loss: nn.Module, num_epochs: int, device: torch.device
    ) -> None:
        self._config = config
        self._num_epochs = num_epochs
        self._alpha: torch.Tensor | None = None
        for module in loss.modules() if config.alpha_schedule != "constant" else ():
            if isinstance(module, TamperedCrossEntropyLoss):
                start = config.modify_softmax
                self._alpha = torch.tensor(start, dtype=torch.float64, device=device)
                module.alpha = self._alpha

    def start_epoch(self, epoch: int) -> None:
        """Set alpha for an epoch, counted from 0."""
        if self._alpha is not None:
            self._alpha.fill_(epoch_alpha(self._config, epoch, self._num_epochs))
