"""The learning rate as a function of the epoch, so that a resumed run needs no state of it."""

import warnings
from typing import Any

import torch
from timm.scheduler import create_scheduler_v2
from timm.scheduler.plateau_lr import PlateauLRScheduler

from softmax_gradient_tampering.training.config.fields import Config


class Schedule:
    """A timm schedule in either order.

    The published loop ran its schedule one epoch ahead: during epoch e > 0 (from 0) it used
    the rate that timm uses during e + 1, so that the rate of epoch 1 never occurs.

    Attributes:
        num_epochs: epochs to train, the cool-down included.
    """

    def __init__(self, config: Config, optimizer: torch.optim.Optimizer) -> None:
        self._config = config
        self._is_published_order = config.sched_order == "published"
        self._optimizer = optimizer
        # timm warns that plateau forgets its state on resumption; here state() keeps it.
        warnings.filterwarnings("ignore", "PlateauLRScheduler is deprecated", FutureWarning)
        self._timm, self.num_epochs = self._create()

    def _create(self) -> tuple[Any, int]:
        config = self._config
        scheduler: tuple[Any, int] = create_scheduler_v2(
            self._optimizer,
            sched=config.sched,
            num_epochs=config.epochs,
            decay_epochs=_whole(config.decay_epochs),
            decay_milestones=[round(config.decay_epochs * n) for n in (1, 2, 3)],
            cooldown_epochs=config.cooldown_epochs,
            patience_epochs=config.patience_epochs,
            decay_rate=config.decay_rate,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_epochs=config.warmup_epochs,
            noise=list(config.lr_noise) if config.lr_noise else None,
            noise_pct=config.lr_noise_pct,
            noise_std=config.lr_noise_std,
            noise_seed=config.seed % 2**31,
            cycle_mul=config.lr_cycle_mul,
            cycle_limit=config.lr_cycle_limit,
            plateau_mode="min" if config.eval_metric == "loss" else "max",
        )
        return scheduler

    def start_epoch(self, epoch: int) -> None:
        """Set the rates of an epoch, counted from 0."""
        if not self._is_plateau:
            self._timm.step(epoch + (self._is_published_order and epoch > 0))

    def end_epoch(self, epoch: int, metric: float | None) -> None:
        """Tell the plateau schedule, the only one that listens, how an epoch ended."""
        if self._is_plateau and metric is not None:
            self._timm.step(epoch + 1, metric)

    def current(self) -> float:
        """The mean of the parameter groups' rates."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        return float(sum(rates) / len(rates))

    def state(self) -> dict[str, Any]:
        """Empty, but for the plateau schedule, which remembers metrics."""
        if not self._is_plateau:
            return {}
        plateau = self._timm.lr_scheduler
        state = {name: getattr(plateau, name) for name in _PLATEAU_STATE}
        return state | {"restore_lr": self._timm.restore_lr}  # the rates before their noise

    def take_rates(self) -> None:
        """Let the schedule be that of the rates which an optimizer's loaded state begins with."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._timm, _ = self._create()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def restore(self, state: dict[str, Any]) -> None:
        if not self._is_plateau or not state:
            return
        for name in _PLATEAU_STATE:
            setattr(self._timm.lr_scheduler, name, state[name])
        self._timm.restore_lr = state["restore_lr"]

    @property
    def _is_plateau(self) -> bool:
        return isinstance(self._timm, PlateauLRScheduler)


def epoch_rates(config: Config) -> list[float]:
    """The learning rate during every epoch of a configuration."""
    schedule = Schedule(config, torch.optim.SGD([torch.zeros(1)], lr=config.lr))
    rates = []
    for epoch in range(schedule.num_epochs):
        schedule.start_epoch(epoch)
        rates.append(schedule.current())
    return rates


def rate_of_unended_warmup(config: Config, num_epochs: int) -> float | None:
    """The rate of a run's last epoch, if its warm-up does not end before; else None."""
    last = num_epochs - 1
    last += config.sched_order == "published" and last > 0
    if config.warmup_epochs <= last:
        return None
    return config.warmup_lr + last * (config.lr - config.warmup_lr) / config.warmup_epochs


_PLATEAU_STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def _whole(number: float) -> float:
    """30.0 as 30: timm counts epochs in whole numbers where it is given them."""
    return int(number) if number == int(number) else number
