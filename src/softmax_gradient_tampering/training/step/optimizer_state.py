"""The state of an optimizer: whether one from a checkpoint fits, and loading it.

What fits is what a fresh optimizer of the same kind makes in a step; torch itself does not check.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.optimizer import create_optimizer, is_second_order

_COUNT = "lookahead_step"
State = Mapping[int, Mapping[str, Any]]  # by the number of the parameter and by name


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], config: Config, model: nn.Module
) -> None:
    """Load a checkpoint's optimizer state after checking that it fits.

    Args:
        optimizer: of the model; unchanged where the state does not fit.
        saved: its state_dict in the checkpoint.
        config: that the optimizer was made by.
        model: whose parameters it steps; a copy of it is stepped.

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
    _check_state(saved, groups, config, model)
    optimizer.load_state_dict({**saved, "param_groups": groups})


def _check_state(
    saved: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], config: Config, model: nn.Module
) -> None:
    """Compare the state of every parameter with what a fresh optimizer makes of a copy of it.

    Raises:
        ValueError: one differs in its names, or in the type or shape of a value.
    """
    at_start, after_step, parameters = _fresh_states(groups, config, model)
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for own_number, (number, parameter) in enumerate(zip(numbers, parameters, strict=True)):
        state, made = saved["state"].get(number, {}), after_step.get(own_number, {})
        shape = tuple(parameter.shape)
        if set(state) != set(at_start.get(own_number, {})):
            for name in made:
                if name not in state:
                    raise ValueError(f"{name} of a parameter of shape {shape} is missing")
        for name, value in state.items():
            # What the first step does not make, as the slow weights of Lookahead, is of the
            # parameter's shape or a number.
            like = [made[name]] if name in made else [parameter, 0, None]
            if not any(_is_like(value, other) for other in like):
                raise ValueError(f"{name!s:.40} of a parameter of shape {shape}")


def _fresh_states(
    groups: Sequence[Mapping[str, Any]], config: Config, model: nn.Module
) -> tuple[State, State, list[Tensor]]:
    """The states of a fresh optimizer before and after a step, and the parameters of its groups."""
    model = copy.deepcopy(model)
    optimizer = create_optimizer(config, model)
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        # Copies: a count among the settings may be a tensor, which a step increases. Lookahead's
        # stays at 0: its step of a certain number makes more than the one before has left.
        settings = {n: value for n, value in group.items() if n not in ("params", _COUNT)}
        own.update(copy.deepcopy(settings))
    at_start = {n: dict(state) for n, state in optimizer.state_dict()["state"].items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # The gradient of this loss is 1 where the parameter is 0, so that nothing is divided by 0.
    loss = torch.stack([(p + 1).square().sum() / 2 for p in parameters]).sum()
    loss.backward(create_graph=is_second_order(optimizer))
    optimizer.step()
    return at_start, optimizer.state_dict()["state"], parameters


def _is_like(value: Any, made: Any) -> bool:
    """Whether a value is of the kind and the shape of one that a fresh optimizer made."""
    if _is_number(made):  # versions of torch and timm differ in whether a count is a tensor
        return _is_number(value)
    if isinstance(made, Tensor):
        is_same_kind = isinstance(value, Tensor) and value.dtype.is_complex == made.dtype.is_complex
        return is_same_kind and value.shape == made.shape
    if isinstance(made, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(made)
            and all(_is_like(*pair) for pair in zip(value, made, strict=True))
        )
    return type(value) is type(made)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.shape == ())
