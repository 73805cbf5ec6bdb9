"""Reading studies, runs and summaries: what is there, what is missing, what was edited."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.analysis.measurements import measure
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.results.study import Study, StudyCell
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.run import run
from tests.studies.synthetic import (
    BASELINE,
    FakeArm,
    Size,
    cell_folder,
    write_run,
    write_study,
)

TAMPERED = FakeArm("alpha-0.25", "tampered", 0.25, effect=1.0)
EQUIVALENT = FakeArm("equivalent-0.25", "equivalent", 0.25, effect=1.0)
SMALL = Size(num_epochs=3, num_samples=40, num_classes=4)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", (BASELINE, TAMPERED, EQUIVALENT), range(3), SMALL)


def cell_of(study: Study, arm: str, seed: int) -> StudyCell:
    (found,) = (each for each in study.cells if (each.cell.arm, each.cell.seed) == (arm, seed))
    return found


def test_a_finished_study(study: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = collect(study, lambda done, total: calls.append((done, total)))
    assert (found.kind, found.name, len(found.cells)) == ("study", "synthetic", 9)
    assert {cell.state for cell in found.cells} == {State.FINISHED}
    assert calls == [(number, 9) for number in range(1, 10)]
    assert found.command[:3] == ("sgt", "study", "run")
    arm = found.arms[1]
    assert arm.logit_scale == 0.25
    runs = found.finished(arm)
    assert sorted(runs) == [0, 1, 2]
    assert runs[1].curves["epoch"].tolist() == [1, 2, 3]
    assert found.notes == ()


def test_an_equivalent_arm_is_held_against_the_arm_that_it_follows(study: Path) -> None:
    agreements = collect(study).agreements
    assert list(agreements) == ["equivalent-0.25"]
    assert sorted(agreements["equivalent-0.25"]) == [0, 1, 2]
    for agreement in agreements["equivalent-0.25"].values():
        assert agreement.num_same == agreement.num_samples == 40
        assert agreement.deviation == 0


def test_cells_that_are_not_finished(study: Path) -> None:
    failed = cell_folder(study, "alpha-0.25", 0)
    for file in failed.iterdir():
        file.unlink()
    failure = {"attempts": 2, "error": "ValueError: no <b>luck</b>\nmore", "time": 1.0}
    (failed / "failure.json").write_text(json.dumps(failure))
    (cell_folder(study, "alpha-0.25", 1) / "result.json").unlink()
    missing = cell_folder(study, "alpha-0.25", 2)
    for file in missing.iterdir():
        file.unlink()
    missing.rmdir()
    (study / "cells" / "elsewhere").mkdir()

    found = collect(study)
    cells = [cell_of(found, "alpha-0.25", seed) for seed in range(3)]
    assert [cell.state for cell in cells] == [State.FAILED, State.UNFINISHED, State.MISSING]
    assert cells[0].reason == "ValueError: no <b>luck</b> (2 attempts)"
    assert all(cell.run is None for cell in cells)
    assert found.notes == (
        "1 folder in cells/ that the plan does not name, passed over: elsewhere",
    )


def test_seeds_that_were_added_are_said(study: Path) -> None:
    plan = json.loads((study / "plan.json").read_text())
    (study / "plan.json").write_text(json.dumps({**plan, "stages": [1, 2]}))
    (note,) = collect(study).notes
    assert note.startswith(
        "Seeds were added to this study 2 times, at first after 1 and at last after 2. Its"
    )


def test_a_run_with_other_settings_than_the_plans_is_invalid(study: Path) -> None:
    plan = json.loads((study / "plan.json").read_text())
    (study / "plan.json").write_text(
        json.dumps({**plan, "config": {**plan["config"], "holdout": 0.2}})
    )
    for cell in collect(study).cells:
        assert cell.state is State.INVALID
        assert cell.reason == "args.yaml has holdout: 0.0, the plan 0.2"


def test_a_finished_cell_that_failed_before_is_finished(study: Path) -> None:
    failure = {"attempts": 1, "error": "was killed", "time": 1.0}
    (cell_folder(study, "baseline", 0) / "failure.json").write_text(json.dumps(failure))
    assert cell_of(collect(study), "baseline", 0).state is State.FINISHED


def _edit_summary(folder: Path) -> None:
    path = folder / "summary.csv"
    *lines, last = path.read_text().splitlines()
    values = last.split(",")
    values[4] = "99.9"
    path.write_text("\n".join([*lines, ",".join(values)]) + "\n")


def _edit_args(folder: Path) -> None:
    path = folder / "args.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.3"))


def _edit_what_the_plan_leaves_open(folder: Path) -> None:
    path = folder / "args.yaml"
    path.write_text(path.read_text().replace("num_classes: null", "num_classes: 9"))


def _edit_predictions(folder: Path) -> None:
    with np.load(folder / "predictions.npz") as arrays:
        logits, labels = -arrays["logits"], arrays["labels"]
    np.savez(folder / "predictions.npz", logits=logits, labels=labels)


def _another_seed(folder: Path) -> None:
    write_run(folder, TAMPERED, 5, SMALL)


def _another_alpha(folder: Path) -> None:
    write_run(folder, FakeArm("x", "tampered", 0.5), 0, SMALL)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_edit_summary, "eval_top1 of summary.csv and of result.json differ"),
        (_edit_args, "args.yaml has lr: 0.3, the plan 0.1"),
        (_edit_what_the_plan_leaves_open, "args.yaml is not the one"),
        (_edit_predictions, "predictions.npz is right in .* summary.csv says"),
        (_another_seed, "has seed: 5, the plan 0"),
        (_another_alpha, "has modify_softmax: 0.5, the plan 0.25"),
        (lambda folder: (folder / "result.json").write_text("{"), "result.json cannot be read"),
        (lambda folder: (folder / "summary.csv").write_text(""), "no rows"),
        (lambda folder: (folder / "predictions.npz").write_text("x"), "cannot be read"),
    ],
)
def test_an_edited_cell_is_invalid_and_in_no_number(
    study: Path, edit: Callable[[Path], object], reason: str
) -> None:
    edit(cell_folder(study, "alpha-0.25", 0))
    cell = cell_of(collect(study), "alpha-0.25", 0)
    assert cell.state is State.INVALID
    assert cell.run is None
    assert re.search(reason, cell.reason), cell.reason


def test_another_versions_hash_is_not_held_against_a_cell(study: Path) -> None:
    folder = cell_folder(study, "baseline", 0)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"config_hash": "0" * 16}))
    assert cell_of(collect(study), "baseline", 0).state is State.INVALID
    environment = {"packages": {"softmax-gradient-tampering": "0.0.9"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    assert cell_of(collect(study), "baseline", 0).state is State.FINISHED


def test_a_run_of_the_program(tmp_path: Path) -> None:
    words = "--epochs 2 --modify-softmax 0.25 --logit-stats --output . --experiment one --seed 3"
    run(parse_arguments(words.split()), is_silent=True)
    found = collect(tmp_path / "one")
    assert (found.kind, found.name, found.arms[0].alpha) == ("run", "one", 0.25)
    (cell,) = found.cells
    assert (cell.state, cell.cell.seed) == (State.FINISHED, 3)
    assert cell.run is not None
    values = measure(cell.run)
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert values["eval_top1"] == result["final"]["eval_top1"]
    assert values["ece_alpha"] == result["measurements"]["softmax(alpha z)"]["ece"]
    assert values["logit_norm"] == result["final"]["logit_norm"]


def test_measurements_of_predictions_are_those_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, TAMPERED, 0, SMALL)
    (cell,) = collect(folder).cells
    assert cell.run is not None
    assert cell.run.predictions is not None
    values = measure(cell.run, target_train_acc=0.0)
    assert values["nll_alpha"] == cell.run.predictions.calibration["softmax(alpha z)"]["nll"]
    assert values["epochs_to_baseline"] == 1
    assert np.isnan(measure(cell.run, target_train_acc=101)["epochs_to_baseline"])


PUBLISHED = """\
epoch,train_loss,train_acc,eval_loss,eval_top1,eval_top5
1,2.2,18.75,2.26,25.0,100.0
2,2.26,12.5,2.25,12.5,75.0
4,2.2,12.5,2.25,25.0,75.0
epoch,train_loss,train_acc,eval_loss,eval_top1,eval_top5
4,2.17,31.25,2.17,50.0,81.25
"""


def test_a_published_summary_with_a_second_header(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text(PUBLISHED)
    found = collect(path)
    assert (found.kind, found.name) == ("summary", tmp_path.name)
    run = found.cells[0].run
    assert run is not None
    assert run.curves["epoch"].tolist() == [1, 2, 4]  # the epoch trained again counts once
    assert run.final("eval_top1") == 50
    assert "logit_norm" not in run.curves


def test_a_loss_that_is_not_a_number_is_not_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text("epoch,train_loss,eval_top1,eval_loss\n1,nan,10,\n2,nan,10,\n")
    run = collect(path).cells[0].run
    assert run is not None
    assert run.final("train_loss") == np.inf
    assert "eval_loss" not in run.curves


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no rows"),
        ("epoch,eval_top1\n", "no rows"),
        ("a,b\n1,2\n", "no columns epoch and eval_top1"),
        ("epoch,eval_top1\n1,x\n", "could not convert"),
        ("epoch,eval_top1\n1,2,3\n", "more values than columns"),
        ("epoch,eval_top1\n,2\n", "without an epoch"),
        ("\x00\x01", "no rows|no columns|line contains NUL"),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "some.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        collect(path)


def test_paths_that_are_none_of_the_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        collect(tmp_path / "nowhere")
    (tmp_path / "studies" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"neither a study .* nor a run folder"):
        collect(tmp_path / "studies")
    (tmp_path / "studies" / "mine" / "plan.json").write_text("{}")
    with pytest.raises(UserError, match=r"did you mean .*mine"):
        collect(tmp_path / "studies")


NAMED = Size(num_epochs=3, num_samples=40, num_classes=4, class_names=("cat", "frog", "ship", "x"))


def test_the_classes_of_a_study_have_the_names_that_its_runs_recorded(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study", (BASELINE, TAMPERED), range(2), NAMED)
    found = collect(path)
    assert found.class_names == ("cat", "frog", "ship", "x")
    assert [found.class_name(label) for label in (1, 4)] == ["frog", "4"]
    for cell in found.cells:
        assert cell.run is not None
        values = measure(cell.run)
        assert values["eval_top1"] == pytest.approx(cell.run.classes and cell.run.classes.accuracy)
        recalls = [values[f"recall:{name}"] for name in found.class_names]
        assert values["balanced_accuracy"] == pytest.approx(sum(recalls) / 4)
        assert values["lowest_recall"] == min(recalls)


def test_classes_without_predictions_are_those_of_the_result(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study", (BASELINE,), range(2), NAMED)
    before = [measure(cell.run) for cell in collect(path).cells if cell.run is not None]
    for folder in (path / "cells").iterdir():
        (folder / "predictions.npz").unlink()
    for cell, expected in zip(collect(path).cells, before, strict=True):
        assert cell.run is not None
        after = measure(cell.run)
        names = [name for name in after if name.startswith(("recall", "macro", "balanced"))]
        assert len(names) == 6
        assert {name: after[name] for name in names} == {name: expected[name] for name in names}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": [9, 10, 10, 10]}, "the counts do not fit each other"),
        ({"names": "cat"}, "classes.names must be a list of text"),
        ({"correct": [0, 0, 0, 0]}, "result.json is right in 0.00 % of its samples"),
    ],
)
def test_recorded_classes_that_were_edited_are_not_used(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = write_study(tmp_path / "study", (BASELINE,), range(1), NAMED)
    file = cell_folder(path, "baseline", 0) / "result.json"
    result = json.loads(file.read_text())
    result["classes"] |= change
    file.write_text(json.dumps(result))
    (cell,) = collect(path).cells
    assert cell.state is State.INVALID
    assert reason in cell.reason
