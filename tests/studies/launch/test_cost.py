"""What a study will cost: measured by a trial of every arm, and said before it starts."""

import math
import os
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch import cost
from softmax_gradient_tampering.studies.launch.cost import (
    RunCost,
    describe_cost,
    trial_folder,
    try_run,
)
from softmax_gradient_tampering.studies.plan.plan import Cell
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.config.fields import Config

CELLS = [Cell(str(n), arm, n) for n in range(3) for arm in ("a", "b")]


def test_costs_are_added_over_the_cells_and_divided_among_the_jobs() -> None:
    costs = {"a": RunCost(60.0, 10_000_000), "b": RunCost(120.0, 20_000_000)}
    assert describe_cost(CELLS, costs, 2) == "6 runs to do, 2 at a time: about 4 min and 90 MB"
    # Cells that are not known yet cost as much as the others.
    assert describe_cost(CELLS, costs, 1, num_waiting=2).endswith("about 12 min and 120 MB")
    assert describe_cost(CELLS[:1], costs, 8) == "1 run to do, 8 at a time: about 60 s and 10 MB"
    assert describe_cost(CELLS, {}, 2) == "6 runs to do, 2 at a time"
    assert describe_cost(CELLS, {"a": RunCost(math.nan)}, 2) == "6 runs to do, 2 at a time"
    assert describe_cost(CELLS, {"a": RunCost(60.0)}, 1).endswith("about 6 min")


WORDS = "--model digits_mlp_plain -b 256 --lr 0.02 --output trial --experiment one"


def config(*words: str) -> Config:
    return parse_arguments([*WORDS.split(), *words])


def test_a_short_run_is_measured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "TRIAL_S", 1e9)
    found = try_run(config("--epochs", "2"))
    assert found.seconds > 0
    folder = Path("trial/one")
    assert (folder / "result.json").exists()
    checkpoint = (folder / "last.pth.tar").stat().st_size
    assert checkpoint < found.num_bytes < 2 * checkpoint


def test_a_long_run_is_tried_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "TRIAL_S", 0.0)
    found = try_run(config("--epochs", "1000", "--save-predictions"))
    assert not (Path("trial/one") / "result.json").exists()
    assert found.seconds > 0
    # A checkpoint, and the predictions that there will be: 450 samples of 10 classes.
    assert found.num_bytes > 4 * 450 * 10
    twice = try_run(config("--epochs", "1000", "--experiment", "two"))
    assert found.num_bytes - twice.num_bytes == pytest.approx(4 * 450 * 10, abs=1000)


def test_what_cannot_be_set_up_is_a_mistake_and_what_diverges_is_none() -> None:
    with pytest.raises(UserError, match=r"--smoothing 2\.0: must be from 0 to 1"):
        try_run(config("--smoothing", "2"))
    found = try_run(config("--lr", "1e30", "--epochs", "50"))
    assert math.isnan(found.seconds) or found.seconds > 0


def test_a_trial_leaves_nothing_behind() -> None:
    path = Path("a/b/study")
    with trial_folder(path) as folder:
        (folder / "file").write_text("x")
        assert folder.parent.samefile(path.parent)
        with trial_folder(path) as other:  # of another process
            assert other != folder
    assert not Path("a").exists()
    with pytest.raises(UserError), trial_folder(path):
        raise UserError("refused")
    assert not Path("a").exists()
    Path("a").mkdir()
    (Path("a") / "kept").write_text("x")
    with trial_folder(path):
        pass
    assert [each.name for each in Path("a").iterdir()] == ["kept"]


def test_what_a_killed_trial_left_is_removed_later() -> None:
    old, young = Path(".study.trial-x"), Path(".study.trial-y")
    for left in (old, young):
        left.mkdir()
        (left / "file").write_text("x")
    os.utime(old, (0, 0))
    with trial_folder(Path("study")) as folder:
        assert folder not in (old, young)
    assert [each.name for each in Path().iterdir()] == [young.name]
