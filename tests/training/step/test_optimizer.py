"""Every optimizer that timm lists: it resumes bit by bit, or is refused before anything is done."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.optim import list_optimizers
from torch import nn

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.optimizer import (
    check_processes,
    create_optimizer,
    step_plainly,
)
from softmax_gradient_tampering.training.step.optimizer_state import load_optimizer_state
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.precision import Precision
from softmax_gradient_tampering.training.step.trainer import Trainer
from tests.training.runs import assert_same, assert_same_run, program, train

CPU = torch.device("cpu")
# Lookahead, which timm puts around any of them, does something in every sixth step.
NAMES = [*list_optimizers(exclude_filters=("bnb*", "fused*"))]
NAMES += ["lookahead_sgd", "lookahead_adahessian", "lookahead_lamb"]
FAMILIES = (
    *("adafactorbv", "adamuon", "adopt", "clamb", "kron", "laprop", "lookahead_adam", "madgrad"),
    *("mars", "rmsproptf", "sgdp"),
)


@pytest.fixture(autouse=True)
def _eager() -> Iterable[None]:
    """kron compiles its arithmetic: half a minute, for the same numbers."""
    with torch.compiler.set_stance("force_eager"):
        yield


def make_trainer(config: Config, rank: int = 0) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 2)),
        *(nn.Flatten(), nn.Linear(6, 3)),
    ).to(memory_format=torch.channels_last)
    optimizer = create_optimizer(config, model)
    return Trainer(model, optimizer, F.cross_entropy, Precision(CPU, None), rank=rank)


def train_steps(trainer: Trainer, numbers: Iterable[int]) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(4, 3, 4, 4, generator=generator)
        labels = torch.randint(3, (4,), generator=generator)
        batch = Batch(images.to(memory_format=torch.channels_last), labels, labels)
        trainer.train_batch(batch, Position(batch=number), [4] * 20)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "lookahead_sgd"])
def test_a_step_is_the_optimizers_own(opt: str) -> None:
    weights = []
    for step in (lambda optimizer: optimizer.step(), step_plainly):
        trainer = make_trainer(Config(opt=opt, lr=0.1))
        for _ in range(7):
            trainer.optimizer.zero_grad()
            torch.stack([p.square().sum() for p in trainer.model.parameters()]).sum().backward()
            step(trainer.optimizer)
        weights.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
    before = torch.cat([p.flatten() for p in make_trainer(Config()).model.parameters()])
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], before)


def written_and_read(content: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def saved_after(steps: int, config: Config) -> dict[str, Any]:
    trainer = make_trainer(config)
    train_steps(trainer, range(steps))
    content = {"model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    loaded: dict[str, Any] = written_and_read(content)
    return loaded


# Lookahead makes its slow weights in the sixth step.
STOPS = [(name, stop) for name in NAMES for stop in ((5, 6) if "lookahead" in name else (2,))]


@pytest.mark.parametrize(("name", "stop"), STOPS)
def test_every_optimizer_goes_on_bit_by_bit(name: str, stop: int) -> None:
    config = Config(opt=name, lr=0.01)
    whole = make_trainer(config)
    end = stop + 2
    train_steps(whole, range(end))
    saved = saved_after(stop, config)
    resumed = make_trainer(config)
    resumed.model.load_state_dict(saved["model"])
    load_optimizer_state(resumed.optimizer, saved["optimizer"], config, resumed.model)
    train_steps(resumed, range(stop, end))
    assert_same(resumed.model.state_dict(), whole.model.state_dict(), name)
    expected = written_and_read(whole.optimizer.state_dict())
    assert_same(written_and_read(resumed.optimizer.state_dict()), expected, name)


@pytest.mark.parametrize("name", list_optimizers(("bnb*", "fused*")))
def test_an_optimizer_for_gpus_is_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(UserError, match=f"^--opt {name} or an option of it: "):
        make_trainer(Config(opt=name, lr=0.01))


@pytest.mark.parametrize("name", ["adahessian", "lookahead_adahessian"])
def test_second_derivatives_are_refused_with_several_processes(name: str) -> None:
    optimizer = make_trainer(Config(opt=name, lr=0.01)).optimizer
    check_processes(name, optimizer, 1)
    with pytest.raises(UserError, match=f"^--opt {name} takes .* among 2 processes; run it in one"):
        check_processes(name, optimizer, 2)


@pytest.mark.parametrize("name", ["adahessian", "kron"])
def test_random_numbers_of_an_optimizer_are_the_same_in_all_processes(name: str) -> None:
    one, other = (make_trainer(Config(opt=name, lr=0.01), rank) for rank in (0, 1))
    for trainer in (one, other):
        train_steps(trainer, range(3))
    assert_same(one.model.state_dict(), other.model.state_dict(), name)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("sgd", "momentum_buffer", torch.zeros(5)),
        ("sgd", "momentum_buffer", None),
        ("sgd", "unheard_of", "text"),
        ("adamw", "exp_avg_sq", None),
        ("adamw", "step", "7"),
        ("novograd", "exp_avg_sq", torch.zeros(6, 4, 2, 2)),
        ("kron", "Q", [torch.eye(6)]),
        ("kron", "Q", torch.eye(6)),
        ("lookahead_sgd", "lookahead_slow_buff", torch.zeros(2)),
    ],
)
def test_a_state_that_a_fresh_optimizer_does_not_make_is_refused(
    name: str, key: str, value: Any
) -> None:
    config = Config(opt=name, lr=0.01)
    saved = saved_after(6, config)["optimizer"]
    trainer = make_trainer(config)
    before = written_and_read(trainer.optimizer.state_dict())
    number = saved["param_groups"][1]["params"][1]  # of the second convolution's weight
    saved["state"][number][key] = value
    with pytest.raises(ValueError, match=f"^{key} of a parameter of shape"):
        load_optimizer_state(trainer.optimizer, saved, config, trainer.model)
    assert_same(written_and_read(trainer.optimizer.state_dict()), before, name)


@pytest.mark.parametrize(("name", "key"), [("adamw", "exp_avg"), ("adahessian", "hessian step")])
def test_a_state_that_lacks_a_value_is_refused(name: str, key: str) -> None:
    config = Config(opt=name, lr=0.01)
    saved = saved_after(2, config)["optimizer"]
    for state in saved["state"].values():
        del state[key]
    trainer = make_trainer(config)
    with pytest.raises(ValueError, match=f"^{key} of a parameter of shape .* is missing"):
        load_optimizer_state(trainer.optimizer, saved, config, trainer.model)


def test_settings_of_the_checkpoint_decide_what_its_state_must_be() -> None:
    """Without momentum, rmsprop keeps no buffer for it."""
    saved = saved_after(2, Config(opt="rmsprop", lr=0.01, momentum=0.0))["optimizer"]
    config = Config(opt="rmsprop", lr=0.01, momentum=0.9)
    trainer = make_trainer(config)
    load_optimizer_state(trainer.optimizer, saved, config, trainer.model)
    train_steps(trainer, range(2, 3))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sgdd", r"did you mean sgd\?"),
        ("Lookahead_adamm", r"did you mean lookahead_adam\?"),
        ("zzzzzz", "list_optimizers"),
    ],
)
def test_an_unknown_optimizer_is_one_line_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"--opt {name}: timm has no such optimizer; .*{hint}"):
        train("--opt", name, "--epochs", 1)


def whole_runs_are_equal(name: str) -> None:
    words = ("--epochs", 2, "-b", 449, "--opt", name, "--lr", 0.01, "--output", "out")
    train(*words, "--experiment", "whole")
    train(*words, "--experiment", "broken", "--max-steps", 4)
    train(*words, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))


@pytest.mark.parametrize("name", ["adahessian", "novograd"])
def test_a_run_with_it_equals_the_unbroken_one(name: str) -> None:
    whole_runs_are_equal(name)


def test_second_derivatives_are_refused_in_several_processes() -> None:
    done = program("--epochs", 1, "--opt", "adahessian", "--output", "out", processes=2)
    assert done.returncode == 2
    assert "error: --opt adahessian takes second derivatives" in done.stderr
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_of_every_family_equals_the_unbroken_one(name: str) -> None:
    whole_runs_are_equal(name)
