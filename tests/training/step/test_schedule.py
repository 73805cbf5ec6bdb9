"""The learning rate of every epoch, in the published order and in timm's."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.schedule import Schedule

GOLDEN = Path(__file__).parents[1] / "golden" / "lr"
CASES: dict[str, dict[str, Any]] = {
    "fork_cosine": {"sched_order": "published"},
    "fork_step": {"sched_order": "published", "sched": "step"},
    "fork_constant": {"sched_order": "published", "sched": "constant"},
    "fork_cosine_paper_lr0.4_warmup4e-4": {
        "sched_order": "published",
        "lr": 0.4,
        "warmup_lr": 4e-4,
    },
    "timm1031_cosine": {},
    "timm1031_step": {"sched": "step"},
}


def make(**changes: Any) -> Schedule:
    settings: dict[str, Any] = {
        "lr": 0.1,
        "epochs": 90,
        "warmup_epochs": 5,
        "warmup_lr": 0.01,
        "cooldown_epochs": 10,
        "min_lr": 1e-4,
    } | changes
    config = Config(**settings)
    return Schedule(config, torch.optim.SGD([torch.zeros(1)], lr=config.lr))


@pytest.mark.parametrize("name", CASES)
def test_rates_are_the_measured_ones_to_the_last_digit(name: str) -> None:
    with (GOLDEN / f"{name}.csv").open() as file:
        expected = [float(row["lr"]) for row in csv.DictReader(file)]
    schedule = make(**CASES[name])
    rates = []
    for epoch in range(schedule.num_epochs):
        schedule.start_epoch(epoch)
        rates.append(schedule.current())
    assert rates == expected


@pytest.mark.parametrize("order", ["timm", "published"])
def test_a_rate_is_a_function_of_the_epoch_alone(order: str) -> None:
    walked = make(sched_order=order, lr_noise=(0.2, 0.9))
    jumped = make(sched_order=order, lr_noise=(0.2, 0.9))
    for epoch in range(38):
        walked.start_epoch(epoch)
    jumped.start_epoch(37)
    assert walked.current() == jumped.current()


def plateau_rates(schedule: Schedule, epochs: range) -> list[float]:
    rates = []
    for epoch in epochs:
        schedule.start_epoch(epoch)
        rates.append(schedule.current())
        schedule.end_epoch(epoch, metric=50.0)
    return rates


def test_the_plateau_schedule_goes_on_from_its_state() -> None:
    settings = {"sched": "plateau", "patience_epochs": 1, "warmup_epochs": 0}
    unbroken = plateau_rates(make(**settings), range(8))
    assert unbroken[-1] < unbroken[0]
    first = make(**settings)
    before = plateau_rates(first, range(4))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=first.current())
    second = Schedule(Config(lr=0.1, min_lr=1e-4, **settings), optimizer)  # type: ignore[arg-type]
    second.restore(first.state())
    assert before + plateau_rates(second, range(4, 8)) == unbroken
