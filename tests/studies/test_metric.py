"""--metric: what a study is judged by, from its plan to its verdict."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.analysis.comparison import (
    Results,
    compare_arms,
    open_arms,
)
from softmax_gradient_tampering.studies.analysis.verdict import Verdict
from softmax_gradient_tampering.studies.launch.cost import RunCost, try_run
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.runner import check_arms
from softmax_gradient_tampering.studies.plan.plan_file import read_plan, to_json
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.report.report import write_report
from softmax_gradient_tampering.studies.report.text import results_json, results_text
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.results.collect import collect, collect_tables
from softmax_gradient_tampering.studies.results.study_folder import create_study
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.run import run
from tests.studies.studies import InProcess, launch, plan_of, study_of
from tests.studies.synthetic import FakeArm, Size, write_study
from tests.training.measure.test_classes import write_images

UNEVEN = Size(num_epochs=2, class_samples=(320, 64, 16), class_names=("cat", "frog", "ship"))
# Right in about 80 % as well, but of every class.
ARMS = (
    FakeArm("alpha-1", "baseline", answers=0),
    FakeArm("alpha-0.25", "tampered", 0.25, effect=-12.0),
)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An 80/16/4 % set: the baseline always answers cat, the other arm does not."""
    return write_study(tmp_path_factory.mktemp("uneven") / "study", ARMS, range(8), UNEVEN)


def judged_by(study: Path, metric: str) -> Results:
    """The study as its plan would have it judged."""
    return compare_arms(replace(collect_tables(study), metric=metric), only_metric=True)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "lowest-recall", "recall:sea lion"])
def test_the_plan_names_what_is_judged(metric: str) -> None:
    plan = plan_of("--metric", metric)
    assert plan.metric == metric
    Path("plan.json").write_text(to_json(plan))
    assert json.loads(Path("plan.json").read_text())["metric"] == metric
    assert read_plan(Path("plan.json")) == plan
    Path("study.yaml").write_text(f"name: small\nmetric: '{metric}'\n")
    assert parse_run(["--config", "study.yaml"]).plan.metric == metric


def test_a_plan_of_before_is_judged_by_accuracy() -> None:
    content = json.loads(to_json(plan_of()))
    del content["metric"]
    Path("plan.json").write_text(json.dumps(content))
    assert read_plan(Path("plan.json")).metric == "accuracy" == plan_of().metric


@pytest.mark.parametrize("metric", ["recall:", "auroc", "Accuracy", "top1"])
def test_a_metric_that_there_is_not_is_one_line(metric: str) -> None:
    with pytest.raises(UserError, match=r"--metric .*there are accuracy, balanced-accuracy, "):
        plan_of("--metric", metric)
    content = json.loads(to_json(plan_of())) | {"metric": metric}
    Path("plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="metric must be what a study is judged by"):
        read_plan(Path("plan.json"))


def test_a_study_keeps_its_metric() -> None:
    study = study_of("--seeds", "2", "--metric", "macro-f1")
    before = (study.path / "plan.json").read_bytes()
    for words in (("--seeds", "2"), ("--seeds", "3", "--metric", "balanced-accuracy")):
        with pytest.raises(UserError, match="judged by 'macro-f1' there, by '"):
            create_study(study.path, plan_of(*words))
    assert (study.path / "plan.json").read_bytes() == before
    grown = create_study(study.path, plan_of("--seeds", "3", "--metric", "macro-f1"))
    assert (grown.plan.metric, len(grown.plan.seeds)) == ("macro-f1", 3)


class Tries:
    """Tries no run, and says what the classes of the data are."""

    num_idle = 1

    def __init__(self, *class_names: str, untested: tuple[str, ...] = ()) -> None:
        self.cost = RunCost(1.0, class_names=class_names, untested=untested)
        self.started: list[str] = []

    def start(self, key: str, config: Config, is_trial: bool = False) -> None:
        assert is_trial
        self.started.append(key)

    def wait(self, timeout_s: float) -> list[Ended]:
        return [Ended(self.started.pop(), cost=self.cost)]

    def stop(self) -> None:
        pass


def test_a_class_that_the_data_does_not_have_is_refused_before_anything_is_planned() -> None:
    plan = plan_of("--metric", "recall:frogs")
    with pytest.raises(
        UserError, match="recall:frogs: the data has no class of this name; did you"
    ):
        check_arms(plan, Tries("cat", "frog", "ship"))
    assert check_arms(plan, Tries("cat", "frogs"))
    assert check_arms(plan, Tries())  # which has no names: they are numbered


def test_a_class_that_no_sample_tests_is_refused_before_anything_is_planned() -> None:
    plan = plan_of("--metric", "recall:frog")
    tries = Tries("cat", "frog", "ship", untested=("frog",))
    with pytest.raises(UserError, match="recall:frog: the test set has no sample of this class"):
        check_arms(plan, tries)
    assert check_arms(plan_of("--metric", "recall:cat"), tries)
    assert check_arms(plan_of("--metric", "lowest-recall"), tries)
    tuned = plan_of("--metric", "recall:frog", "--controls", "tuned", "--grid", "lr=0.1")
    with pytest.raises(UserError, match="held-out part of the training set has no sample"):
        check_arms(tuned.only(["tuning-lr-0.1"]), tries)


def test_what_cannot_be_evaluated_is_said_by_the_run_and_its_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_images(tmp_path / "images", {"cat": 4, "frog": 4}, {"cat": 2, "frog": 0})
    words = ["--data_dir", str(folders), "--model", "resnet20", "--img-size", "8", "--dry-run"]
    config = parse_arguments(words)
    cost = try_run(config)
    assert (cost.class_names, cost.untested) == (("cat", "frog"), ("frog",))
    assert not capsys.readouterr().out
    run(config)
    assert "Warning: no validation image is of class frog: nothing is" in capsys.readouterr().out
    assert try_run(replace(config, holdout=0.5)).untested == ()


def test_a_dry_run_says_what_the_classes_are() -> None:
    config = Config(model="digits_mlp_plain", dry_run=True)
    assert try_run(config).class_names == tuple(map(str, range(10)))


def test_verdict_and_settling_are_by_what_is_judged(uneven: Path) -> None:
    accuracy, balanced = judged_by(uneven, "accuracy"), judged_by(uneven, "balanced-accuracy")
    (by_accuracy,), (by_balanced,) = (
        [result.comparison(results.baseline) for result in results.judged]
        for results in (accuracy, balanced)
    )
    assert by_accuracy is not None
    assert by_balanced is not None
    assert abs(by_accuracy.mean) < 2
    assert by_balanced.verdict is Verdict.HELPS
    assert by_balanced.mean > 40
    assert accuracy.baseline is not None
    assert balanced.baseline is not None
    assert accuracy.baseline.spreads["eval_top1"].interval.mean == pytest.approx(80)
    assert balanced.baseline.spreads["balanced_accuracy"].interval.mean == pytest.approx(100 / 3)
    assert open_arms(balanced) == []
    assert "points of balanced accuracy" in verdict_sentence(balanced)
    assert "points of test accuracy" in verdict_sentence(accuracy)


def test_all_that_is_reported_is_by_what_the_plan_names(uneven: Path, tmp_path: Path) -> None:
    plan = json.loads((uneven / "plan.json").read_text())
    study = tmp_path / "study"
    study.mkdir()
    (study / "cells").symlink_to(uneven / "cells")
    (study / "plan.json").write_text(json.dumps(plan | {"metric": "recall:ship"}))
    results = compare_arms(collect_tables(study), only_metric=True)
    sentence = verdict_sentence(results)
    assert "points of recall of ship" in sentence
    assert "recall of ship (%)" in results_text(results)
    assert results_json(results)["metric"] == "recall:ship"
    report = write_report(study)
    assert sentence in report.read_text()
    assert "Recall of ship less that of alpha-1" in report.read_text()
    content = json.loads(report.with_suffix(".json").read_text())
    assert (content["metric"], content["verdict"]) == ("recall:ship", sentence)
    with report.with_name("report-differences.csv").open(newline="") as file:
        rows = {row["measurement"]: row for row in csv.DictReader(file)}
    judged = [name for name, row in rows.items() if row["verdict"]]
    assert judged == ["recall:ship"]
    full = compare_arms(collect(study))
    compared = [each.judged[0].comparison(each.baseline) for each in (full, results)]
    assert repr(compared[0]) == repr(compared[1])  # some numbers are nan, which equals nothing


def test_of_very_many_classes_the_one_that_is_judged_is_measured(tmp_path: Path) -> None:
    size = Size(num_epochs=2, num_samples=202, num_classes=101)
    study = write_study(tmp_path / "study", ARMS, range(2), size)
    results = compare_arms(replace(collect(study), metric="recall:7"))
    assert {key for key in results.keys if "recall" in key} == {"lowest_recall", "recall:7"}


def test_what_no_run_has_recorded_is_said(uneven: Path) -> None:
    sentence = verdict_sentence(judged_by(uneven, "recall:dog"))
    assert sentence == (
        "Nothing can be compared: no run of the baseline, alpha 1, says what its recall of dog is, "
        "by which this study is judged."
    )


def test_the_tuned_baseline_is_chosen_by_what_is_judged() -> None:
    words = ("--controls", "tuned", "--grid", "lr=1e-9,0.02", "--seeds", "1", "--alphas", "1")
    study = study_of(*words, "--metric", "macro-f1")
    launch(study, InProcess())
    (tuned,) = (arm for arm in read_plan(study.path / "plan.json").arms if arm.kind == "tuned")
    assert tuned.selection is not None
    assert tuned.selection["metric"].startswith("macro_f1 after the last epoch")
    assert tuned.selection["chosen"] == {"lr": 0.02}
    for entry in tuned.selection["table"]:
        assert entry["mean_metric"] < entry["mean_top1"]  # a class that is never answered counts


def test_progress_is_told_by_what_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    from softmax_gradient_tampering.studies.launch.driver import Driver
    from softmax_gradient_tampering.studies.launch.progress import StudyProgress

    study = study_of("--seeds", "1", "--alphas", "1", "--metric", "macro-f1")
    runner: Any = InProcess()
    Driver(study, runner, StudyProgress()).run()
    assert "macro-f1 " in capsys.readouterr().out
