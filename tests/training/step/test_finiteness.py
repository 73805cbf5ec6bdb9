"""Losses and gradients that are not finite: found, reported, left out or the end."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.step.finiteness import LateReader, are_finite
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.supervision import MAX_SKIPS_RUNNING
from tests.training.runs import train
from tests.training.step.epoch import train_epoch
from tests.training.step.test_trainer import (
    CPU,
    FixedLoader,
    make_trainer,
    weight_of,
    weights_after_an_epoch,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_gradients_are_looked_at_and_left_as_they_are(dtype: torch.dtype, value: float) -> None:
    parameters = [nn.Parameter(torch.zeros(3, dtype=dtype)) for _ in range(3)]
    gradients = [torch.full((3,), 0.1, dtype=dtype), None, torch.tensor([1, value, 2], dtype=dtype)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    loss = torch.tensor(2.5)
    flag = are_finite([loss], [parameter.grad for parameter in parameters])
    assert bool(flag) == (value == 1e38)
    assert loss == 2.5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_losses_are_looked_at_and_left_as_they_are(value: float) -> None:
    losses = [torch.tensor(0.5), torch.tensor(value), torch.tensor(1.5)]
    assert bool(are_finite(losses)) == (value == 1e38)
    assert bool(are_finite(losses, [None, torch.zeros(2)])) == (value == 1e38)
    assert [str(loss.item()) for loss in losses] == ["0.5", str(torch.tensor(value).item()), "1.5"]


def test_a_reader_names_the_first_that_is_false() -> None:
    reader = LateReader(CPU)
    for step, value in enumerate([True, False, False]):
        reader.push(step, torch.tensor(value))
    assert reader.first_false() == 1


def test_a_run_of_bad_numbers_stops_with_all_that_is_needed_to_find_out(tmp_path: Path) -> None:
    flags: list[Any] = ["--epochs", 3, "--output", tmp_path, "--experiment", "run", "--lr", 1e9]
    with pytest.raises(UserError, match=r"epoch 1, batch \d, step \d: .*lr 1e\+09.*sample \d+"):
        train(*flags)
    report = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert len(report["samples"]) == 256
    assert list((tmp_path / "run").glob("*.pth.tar")) == []


def test_good_checkpoints_stay_and_the_run_goes_on_from_them(tmp_path: Path) -> None:
    flags: list[Any] = [
        "--epochs",
        2,
        "--output",
        tmp_path,
        "--experiment",
        "run",
        "--no-resume-opt",
    ]
    train(*flags[:-1], "--max-steps", 8)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pth.tar")}
    assert before
    with pytest.raises(UserError, match=r"is not finite|the loss is"):
        train(*flags, "--resume", "auto", "--lr", 1e9)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pth.tar")}
    assert before == after
    assert train(*flags, "--resume", "auto", "--lr", 0.1).status == "finished"


def test_a_skipped_batch_changes_nothing() -> None:
    whole, bad = FixedLoader([4, 4, 4]), FixedLoader([4, 4, 4, 4])
    bad.images = (*whole.images[:1], torch.full((4, 6), torch.nan).double(), *whole.images[1:])
    bad.labels = (*whole.labels[:1], whole.labels[0], *whole.labels[1:])
    trainer = make_trainer(skips_nonfinite=True)
    tally = Tally(CPU)
    outcomes = list(train_epoch(trainer, bad, tally))
    assert [outcome.is_skipped for outcome in outcomes] == [False, True, False, False]
    assert tally.count == 12
    assert tally.loss.isfinite()
    expected = weights_after_an_epoch(make_trainer(), whole)
    assert torch.equal(weight_of(trainer).detach(), expected)


def test_one_bad_batch_spoils_the_step_that_it_is_part_of() -> None:
    loader = FixedLoader([4, 4, 4, 4])
    loader.images = (torch.full((4, 6), torch.inf).double(), *loader.images[1:])
    trainer = make_trainer(accumulation=2, skips_nonfinite=True)
    outcomes = list(train_epoch(trainer, loader))
    assert [outcome.is_skipped for outcome in outcomes] == [False, True, False, False]
    assert weight_of(trainer).isfinite().all()


def test_a_model_that_diverged_in_its_last_step_is_not_kept(tmp_path: Path) -> None:
    # The one step's own loss and gradient are finite, and the weights that it leaves huge.
    flags: list[Any] = ["--epochs", 1, "-b", 2000, "--lr", 1e30, "--warmup-epochs", 0]
    flags += ["--output", tmp_path, "--experiment", "run"]
    with pytest.raises(UserError, match=r"epoch 1, step 1: the loss on the validation set is nan"):
        train(*flags)
    assert list((tmp_path / "run").glob("*.pth.tar")) == []
    train(*flags, "--on-nonfinite", "skip", "--resume", "auto")
    result = json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["final"]["eval_loss"] is None


def test_a_loss_that_is_not_finite_may_be_float16s(tmp_path: Path) -> None:
    flags: list[Any] = ["--epochs", 1, "-b", 2000, "--lr", 1e30, "--warmup-epochs", 0]
    flags += ["--output", tmp_path, "--amp-dtype", "float16"]
    with pytest.raises(UserError, match=r"float16 has overflowed, or .* --amp-dtype bfloat16"):
        train(*flags)


@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_every_step_that_is_skipped_is_reported(
    tmp_path: Path, rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: list[Any] = ["--epochs", 12, "--lr", rate, "--warmup-epochs", 0, "--log-interval", 1]
    words = ("--on-nonfinite", "skip", "--output", tmp_path, "--experiment", "run")
    with pytest.raises(UserError, match=f"{MAX_SKIPS_RUNNING} steps running were skipped"):
        train(*flags, *words, is_silent=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "it is left out" in line]
    assert len(lines) == MAX_SKIPS_RUNNING
    where = (
        r"epoch \d+, batch \d+, step \d+: the loss is .+ \(lr .+, loss scale 1; samples sample \d"
    )
    assert all(re.match(where, line) for line in lines)


def test_skipping_without_end_ends(tmp_path: Path) -> None:
    flags: list[Any] = ["--epochs", 30, "--output", tmp_path, "--experiment", "run", "--lr", 1e9]
    with pytest.raises(UserError, match=f"{MAX_SKIPS_RUNNING} steps running were skipped"):
        train(*flags, "--on-nonfinite", "skip")
