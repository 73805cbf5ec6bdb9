"""From a configuration to the training loss, and to what computes it."""

import warnings
from collections.abc import Sequence

import torch
from timm.loss import JsdCrossEntropy
from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.loss.kernels.selection import check_kernel, describe_kernel
from softmax_gradient_tampering.training.config.fields import Config


class MeanOfSum(nn.Module):
    """The sum that a loss gives of a batch, over the number of its rows.

    torch's own mean of a weighted loss is over the sum of the rows' weights. That is another one
    in every part of a batch, so that processes and accumulated batches would train otherwise
    than one batch of all their images; and of soft targets torch has no such mean.

    Args:
        loss: of logits and targets, with reduction "sum".
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        total: Tensor = self.loss(input, target)
        return total / len(input)


def create_loss(config: Config, class_weights: Sequence[float] | None = None) -> nn.Module:
    """The training loss; --modify-softmax 0 is the ordinary cross-entropy.

    Args:
        config: the configuration.
        class_weights: what an image of each class counts.
    """
    # timm's mixup smooths the targets itself.
    smoothing = 0.0 if config.is_mixing else config.smoothing
    if config.jsd:
        jsd: nn.Module = JsdCrossEntropy(num_splits=config.aug_splits, smoothing=smoothing)
        return jsd
    if config.modify_softmax > 1:
        warnings.warn(
            f"--modify-softmax {config.modify_softmax} is above 1: it sharpens the gradient's "
            "probabilities; the published values are 0.05 to 0.92",
            stacklevel=2,
        )
        warnings.filterwarnings("ignore", message="alpha = .* is above 1")  # the loss's own words
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    reduction = "mean" if weight is None else "sum"
    loss: nn.Module = nn.CrossEntropyLoss(weight, label_smoothing=smoothing, reduction=reduction)
    if config.modify_softmax or config.equivalent_to is not None:
        # At alpha 1 the same kernel, so that the equivalent training rounds as the tampered does.
        alpha = config.modify_softmax or 1.0
        loss = TamperedCrossEntropyLoss(
            alpha,
            weight,
            label_smoothing=smoothing,
            reduction=reduction,
            kernel=config.loss_kernel,
        )
    return loss if weight is None else MeanOfSum(loss)


def check_loss_kernel(config: Config, device: torch.device) -> None:
    """Refuse a kernel that cannot run on a device.

    Raises:
        UserError: it cannot.
    """
    if config.loss_kernel == "auto":
        return
    try:
        check_kernel(config.loss_kernel, device)
    except ValueError as error:
        raise UserError(f"--loss-kernel {config.loss_kernel}: {first_line(error)}") from error


def loss_kernel_name(config: Config, device: torch.device) -> str:
    """What computes the tampered loss, or "torch" where nothing is tampered with."""
    if config.modify_softmax or config.equivalent_to is not None:
        return describe_kernel(config.loss_kernel, device)
    return "torch"
