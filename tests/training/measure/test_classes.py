"""Measures of classes: scikit-learn's where it has them, and what a run records of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score
from torch import nn

from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.measure.classes import (
    ClassCounts,
    counts_without_names,
    read_counts,
    unique_names,
)
from softmax_gradient_tampering.training.measure.evaluation import _Classes, evaluate
from softmax_gradient_tampering.training.measure.evaluator import Evaluator
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.precision import Precision
from tests.training.measure.test_evaluation import ALONE, CPU, LogitsLoader
from tests.training.runs import program, train


def counts_of(labels: torch.Tensor, predicted: torch.Tensor, num_classes: int) -> ClassCounts:
    """The counts of an evaluation whose model has these predictions."""
    logits = nn.functional.one_hot(predicted, num_classes).float()
    loader = LogitsLoader(logits, labels, batch_size=13)
    scales = [("softmax(z)", 1.0)]
    found = evaluate(nn.Identity(), loader, ALONE, Precision(CPU, None), scales)
    assert found.classes is not None
    return found.classes


@pytest.mark.parametrize("seed", range(4))
def test_the_measures_are_those_of_scikit_learn(seed: int) -> None:
    """Class 5 has no samples and is predicted, class 6 has some and is not, class 7 neither."""
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 1, 2, 3, 4, 6], 200, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02])
    labels[:6] = [0, 1, 2, 3, 4, 6]
    predicted = np.where(generator.random(200) < 0.6, labels, generator.integers(0, 6, 200))
    predicted[predicted == 6], predicted[0] = 0, 5
    counts = counts_of(torch.tensor(labels), torch.tensor(predicted), 8)
    matrix = confusion_matrix(labels, predicted, labels=range(8))
    assert counts.samples == tuple(matrix.sum(1))
    assert counts.predicted == tuple(matrix.sum(0))
    assert counts.correct == tuple(matrix.diagonal())
    with np.errstate(invalid="ignore"):
        assert counts.recalls == pytest.approx(100 * matrix.diagonal() / matrix.sum(1), nan_ok=True)
    assert counts.accuracy == pytest.approx(100 * (labels == predicted).mean())
    # scikit-learn warns that class 5 is predicted without samples, and leaves it out as well
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = 100 * balanced_accuracy_score(labels, predicted)
    assert counts.balanced_accuracy == pytest.approx(expected)
    assert counts.macro_f1 == pytest.approx(100 * f1_score(labels, predicted, average="macro"))
    assert counts.recalls[counts.lowest] == pytest.approx(0)
    assert (counts.lowest, counts.largest) == (6, 0)


@pytest.mark.parametrize(
    ("samples", "accuracy", "is_near"),
    [
        ((80, 16, 4), 80.0, True),
        ((80, 16, 4), 70.0, True),
        ((80, 16, 4), 87.9, True),  # two standard errors of 80 % of 100 samples are 8 points
        ((80, 16, 4), 88.1, False),
        ((8000, 1600, 400), 80.9, True),  # one point at least
        ((8000, 1600, 400), 81.1, False),
        ((50, 50), 90.0, False),
    ],
)
def test_when_an_accuracy_is_but_that_of_the_largest_class(
    samples: tuple[int, ...], accuracy: float, is_near: bool
) -> None:
    counts = counts_without_names([samples, samples, samples])
    assert counts.is_near_largest(accuracy) == is_near


def test_counts_that_are_recorded_are_read_again() -> None:
    counts = counts_without_names([(3, 0, 2), (2, 1, 2), (2, 0, 1)]).named(["cat", "frog"])
    assert counts.names == ("cat", "frog", "2")
    assert math.isnan(counts.recalls[1])
    recorded = json.loads(json.dumps(counts.recorded() | {"recall": None}))
    assert read_counts(recorded) == counts
    assert read_counts(None) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"names": ["cat", 1, "ship"]}, "classes.names must be a list of text"),
        ({"samples": [3, -1, 2]}, "classes.samples must be a list of a whole number"),
        ({"samples": [3, True, 2]}, "classes.samples"),
        ({"samples": [4, 0, 2]}, "do not fit each other"),
        ({"correct": [2, 1, 1]}, "do not fit each other"),
        ({"names": ["cat", "frog"]}, "do not fit each other"),
        ({"samples": [], "predicted": [], "correct": [], "names": []}, "do not fit each other"),
        ({"predicted": None}, "classes.predicted"),
    ],
)
def test_counts_that_no_run_writes_are_refused(change: dict[str, object], match: str) -> None:
    counts = counts_without_names([(3, 0, 2), (2, 1, 2), (2, 0, 1)])
    with pytest.raises(ValueError, match=match):
        read_counts(counts.recorded() | change)
    with pytest.raises(ValueError, match="classes must be a mapping"):
        read_counts([1, 2])


def test_names_are_printable_and_each_there_once() -> None:
    assert unique_names(["a\nb", "x" * 200, "a\\nb"]) == ("a\\nb", "x" * 100, "a\\nb (2)")


def write_images(root: Path, train: dict[str, int], val: dict[str, int]) -> Path:
    """Class folders of small grey images, all alike."""
    for split, classes in (("train", train), ("val", val)):
        for name, number in classes.items():
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                grey = Image.new("RGB", (8, 8), (40 * index % 256,) * 3)
                grey.save(root / split / name / f"{index}.png")
    return root


def test_a_run_records_its_classes_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_images(tmp_path / "images", {"cat": 16, "frog": 3, "ship": 1},
                           {"cat": 8, "frog": 2, "ship": 0})  # fmt: skip
    (folders / "val" / "ship").mkdir(exist_ok=True)
    result = train(
        *("--data_dir", folders, "--model", "resnet20", "--img-size", 8, "--epochs", 1, "-b", 10),
        *("--lr", 0.01, "--output", tmp_path, "--experiment", "run", "--workers", 1),
        is_silent=False,
    )
    assert result.folder is not None
    recorded = json.loads((result.folder / "result.json").read_text())["classes"]
    assert recorded["names"] == ["cat", "frog", "ship"]
    assert recorded["samples"] == [8, 2, 0]
    assert recorded["recall"][2] is None
    assert sum(recorded["predicted"]) == 10
    accuracy = 10 * sum(recorded["correct"])
    assert accuracy == pytest.approx(result.rows[-1]["eval_top1"])
    printed = capsys.readouterr().out
    assert "Recall: cat " in printed
    assert " of 8, frog " in printed
    assert "ship" not in next(line for line in printed.splitlines() if line.startswith("Recall"))
    assert "no validation image is of class ship: nothing is measured of it" in printed
    assert "Warning: 80.00 % of the images are of class cat: always answering it" in printed


def test_the_best_epoch_is_chosen_by_the_balanced_accuracy_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    folders = write_images(tmp_path / "images", {"cat": 16, "frog": 4}, {"cat": 8, "frog": 2})
    result = train(
        *("--data_dir", folders, "--model", "resnet20", "--img-size", 8, "--epochs", 1, "-b", 10),
        *("--output", tmp_path, "--experiment", "run", "--workers", 0, "--sched", "plateau"),
        *("--lr", 0.01, "--eval-metric", "balanced-accuracy"),
    )
    assert result.folder is not None
    recorded = json.loads((result.folder / "result.json").read_text())
    assert recorded["best_metric"] == sum(recorded["classes"]["recall"]) / 2
    best = load_checkpoint(result.folder / "model_best.pth.tar")
    assert best["metric"] == recorded["best_metric"]


def test_the_balanced_accuracy_of_an_average_is_its_own() -> None:
    logits, labels = torch.eye(3)[[0, 0, 0, 1, 2]], torch.tensor([0, 0, 0, 1, 1])
    average = nn.Linear(3, 3, bias=False)
    average.weight.data = torch.eye(3)[[2, 1, 0]]  # answers 2 for 0, and 0 for 2
    loader, precision = LogitsLoader(logits, labels, 2), Precision(CPU, None)
    evaluator = Evaluator(loader, ALONE, precision, 1.0, counts_classes=True)
    model = evaluator.evaluate_epoch(nn.Identity(), None, False, False)
    assert model.metric("balanced-accuracy") == 75
    assert model.model.top1 == 80
    assert not model.model.measurements
    both = evaluator.evaluate_epoch(nn.Identity(), average, False, False)
    assert both.metric("balanced-accuracy") == 25
    assert both.metric("top1") == 20


def test_several_processes_count_as_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--epochs", 1, "--output", tmp_path, "--experiment", "run", "-b", 64)
    words = ("--validate", "--resume", tmp_path / "run" / "last.pth.tar")
    train(*words, is_silent=False)
    done = program(*words, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = (
        [line for line in printed.splitlines() if line.startswith(("Balanced", "Recall"))]
        for printed in (capsys.readouterr().out, done.stdout)
    )
    assert len(one) == 2
    assert one == two


class WithAnother(Processes):
    """This process, and another one whose samples are of three classes."""

    def most(self, numbers: list[int]) -> list[int]:
        return [max(number, 3) for number in numbers]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + 1 if tensor.ndim == 2 else tensor


def test_a_process_without_samples_takes_part() -> None:
    counts = _Classes(CPU).counts(WithAnother(2, 1, CPU))
    assert counts.samples == counts.correct == (1, 1, 1)
