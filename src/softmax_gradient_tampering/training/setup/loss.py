"""From a configuration to the training loss, and to what computes it."""

import warnings

import torch
from timm.loss import JsdCrossEntropy
from torch import nn

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.loss.kernels.selection import check_kernel, describe_kernel
from softmax_gradient_tampering.training.config.fields import Config


def create_loss(config: Config) -> nn.Module:
    """The training loss; --modify-softmax 0 is the ordinary cross-entropy."""
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
    loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=smoothing)
    if config.modify_softmax or config.equivalent_to is not None:
        # At alpha 1 the same kernel, so that the equivalent training rounds as the tampered does.
        alpha = config.modify_softmax or 1.0
        loss = TamperedCrossEntropyLoss(alpha, label_smoothing=smoothing, kernel=config.loss_kernel)
    return loss


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
