"""The optimizer and its parameter groups: biases and norms have no weight decay."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from softmax_gradient_tampering.errors import as_user_error
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.equivalence import group_parameters


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
    if config.equivalent_to is not None:
        options["param_group_fn"] = group_parameters(config)
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


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a checkpoint's optimizer state after checking that it fits; torch does not check.

    Raises:
        ValueError: it does not fit.
    """
    own = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in own] != [len(g["params"]) for g in saved["param_groups"]]:
        raise ValueError("its parameter groups are not those of this model")
    # A checkpoint of an older torch may lack a setting of a group: the new optimizer's is kept.
    groups = [{**group, **other} for group, other in zip(own, saved["param_groups"], strict=True)]
    for group, saved_group in zip(own, groups, strict=True):
        for name, value in group.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not isinstance(saved_group.get(name, value), int | float):
                raise ValueError(f"{name} is {saved_group[name]!r:.40}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            is_right = not isinstance(value, list | dict | str)
            if name in _LIKE_THE_PARAMETER and value is not None:
                is_right = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if not is_right:
                raise ValueError(f"{name} of a parameter of shape {tuple(parameter.shape)}")
    optimizer.load_state_dict({**saved, "param_groups": groups})


_LIKE_THE_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq")
