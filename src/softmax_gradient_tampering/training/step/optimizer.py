"""The optimizer and its parameter groups: biases and norms have no weight decay."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from softmax_gradient_tampering.data.order import seed_torch
from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.equivalence import group_parameters

_LOOKAHEAD = "lookahead_"  # before any optimizer's name
Generators = Sequence[torch.Generator | random.Random]


def create_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The timm optimizer of a configuration.

    Raises:
        UserError: timm has no such optimizer, or it does not take an option.
    """
    prefix = _LOOKAHEAD if config.opt.lower().startswith(_LOOKAHEAD) else ""
    known = [prefix + name for name in list_optimizers()]
    if config.opt.lower() not in known:
        hint = nearest(config.opt.lower(), known) or "; timm.optim.list_optimizers() lists all"
        raise UserError(f"--opt {config.opt}: timm has no such optimizer{hint}")
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
    device = next(model.parameters()).device
    for part, name, generator in _own_generators(optimizer):
        if isinstance(generator, torch.Generator) and generator.device != device:
            # Otherwise the optimizer makes one itself in its first step, after it was seeded.
            setattr(part, name, torch.Generator(device))
    return optimizer


def is_second_order(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer's step differentiates the gradient again."""
    return bool(getattr(optimizer, "is_second_order", False))


def step_plainly(optimizer: torch.optim.Optimizer) -> None:
    """Step an optimizer without what torch puts around that for its profiler and for hooks.

    It is a tenth of a small net's step, and nobody has a hook on the optimizer of a run. Torch
    marks the steps around which it has put it.
    """
    step: Any = type(optimizer).step
    if getattr(step, "hooked", False) and "step" not in vars(optimizer):
        step.__wrapped__(optimizer)
    else:
        optimizer.step()


def check_processes(opt: str, optimizer: torch.optim.Optimizer, num_processes: int) -> None:
    """Refuse an optimizer that would take other steps in every process.

    Raises:
        UserError: names it.
    """
    if num_processes > 1 and is_second_order(optimizer):
        raise UserError(
            f"--opt {opt} takes second derivatives, which torch does not share among "
            f"{num_processes} processes; run it in one, or choose another optimizer"
        )


def may_draw(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer's step may draw random numbers; those of torch itself never do."""
    return not type(optimizer).__module__.startswith("torch.optim.")


def own_generators(optimizer: torch.optim.Optimizer) -> Generators:
    """The generators that an optimizer, or the one in its wrapper, keeps."""
    return [generator for _, _, generator in _own_generators(optimizer)]


def seed_optimizer(own: Generators, bits: int, device: torch.device) -> None:
    """Seed all generators that an optimizer's step may draw from, torch's and its own.

    Args:
        own: its `own_generators`.
        bits: the same in all processes, whose weights would otherwise differ after the step.
        device: in use.
    """
    seed_torch(bits, device)
    for generator in own:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(bits)
        else:
            generator.seed(bits)


def _own_generators(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[object, str, torch.Generator | random.Random]]:
    """The generators that an optimizer, or the one in its wrapper, keeps: where, name, generator.

    They are not in its state, or not in a form that every version reads.
    """
    for part in (optimizer, getattr(optimizer, "_base_optimizer", None)):
        for name, value in list(vars(part).items()) if part is not None else ():
            if isinstance(value, torch.Generator | random.Random):
                yield part, name, value
