"""The optimizer and its parameter groups: biases and norms have no weight decay."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from softmax_gradient_tampering.errors import as_user_error
from softmax_gradient_tampering.training.config import Config


def create_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The timm optimizer of a configuration.

    Raises:
        UserError: timm has no such optimizer, or it does not take an option.
    """
    options: dict[str, Any] = {}
    if config.opt_eps is not None:
        options["eps"] = config.opt_eps
    if config.opt_betas is not None:
        options["betas"] = tuple(config.opt_betas)
    with as_user_error(f"--opt {config.opt} or an option of it"):
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            **options,
        )
    return optimizer
