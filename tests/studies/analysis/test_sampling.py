"""The sampling error of the test set: against draws of other test sets."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softmax_gradient_tampering.studies.analysis.measurements import judged_value
from softmax_gradient_tampering.studies.analysis.sampling import (
    influences,
    sampling_half_width,
)
from softmax_gradient_tampering.studies.results.predictions import Answers
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun

NUM_CLASSES = 4
KEYS = {
    "accuracy": "eval_top1",
    "balanced-accuracy": "balanced_accuracy",
    "macro-f1": "macro_f1",
    "lowest-recall": "lowest_recall",
    "recall:2": "recall:2",
}


def run_of(labels: np.ndarray, predicted: np.ndarray) -> RecordedRun:
    answers = Answers(labels.astype(np.uint8), predicted.astype(np.uint8))
    return RecordedRun(Path(), {}, classes=answers.count_classes(NUM_CLASSES), answers=answers)


def population(number: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, and two arms' answers that go wrong together more often than apart."""
    labels = generator.choice(NUM_CLASSES, number, p=[0.6, 0.2, 0.15, 0.05])
    wrong = (labels + generator.integers(1, NUM_CLASSES, number)) % NUM_CLASSES
    difficulty = generator.random(number)
    arms = [
        np.where(difficulty + 0.2 * generator.random(number) < share - 0.15 * labels, labels, wrong)
        for share in (1.05, 0.9)
    ]
    return labels, arms[0], arms[1]


def value(metric: str, run: RecordedRun) -> float:
    assert run.classes is not None
    return judged_value(metric, run.classes.accuracy, run.classes)


@pytest.mark.parametrize("metric", KEYS)
def test_it_is_the_spread_over_other_test_sets(metric: str) -> None:
    """800 samples, drawn again 400 times: the spread is known to 4 %, the bound allows for 15."""
    generator = np.random.default_rng(0)
    differences, widths = [], []
    for _ in range(400):
        labels, treated, control = population(800, generator)
        pair = run_of(labels, treated), run_of(labels, control)
        differences.append(value(metric, pair[0]) - value(metric, pair[1]))
        widths.append(sampling_half_width(KEYS[metric], [pair]))
    assert np.mean(widths) == pytest.approx(1.96 * np.std(differences), rel=0.15)


@pytest.mark.parametrize("metric", KEYS)
def test_influences_are_what_a_sample_more_would_change(metric: str) -> None:
    labels, treated, _ = population(300, np.random.default_rng(1))
    run, key = run_of(labels, treated), KEYS[metric]
    found = influences(key, run)
    assert found.sum() == pytest.approx(0, abs=1e-9)
    for sample in (0, 7, 50):
        many = np.append(np.tile(np.arange(300), 200), sample)
        heavier = run_of(labels[many], treated[many])
        # Of 60,001 samples one more weighs 1 / 200 of what one of 300 does.
        change = 200 * (value(metric, heavier) - value(metric, run))
        assert change == pytest.approx(found[sample], abs=1e-3 + 0.02 * abs(found[sample]))


def test_of_accuracies_it_is_the_error_of_paired_differences() -> None:
    labels, treated, control = population(500, np.random.default_rng(2))
    difference = 100 * ((treated == labels).astype(float) - (control == labels))
    expected = 1.959964 * difference.std() / math.sqrt(500)
    pair = run_of(labels, treated), run_of(labels, control)
    assert sampling_half_width("eval_top1", [pair]) == pytest.approx(expected)
    # What both seeds get wrong alike stays; what each has of its own is averaged.
    assert sampling_half_width("eval_top1", [pair, pair]) == pytest.approx(expected)
    assert sampling_half_width("eval_top1", [pair, (pair[1], pair[0])]) == pytest.approx(0)


def _other_labels(labels: np.ndarray, predicted: np.ndarray) -> RecordedRun:
    return run_of(labels[::-1].copy(), predicted)


def _no_answers(labels: np.ndarray, predicted: np.ndarray) -> RecordedRun:
    return RecordedRun(Path(), {}, classes=run_of(labels, predicted).classes)


@pytest.mark.parametrize("other", [_other_labels, _no_answers])
def test_answers_that_cannot_be_compared_say_nothing(
    other: Callable[[np.ndarray, np.ndarray], RecordedRun],
) -> None:
    labels, treated, control = population(50, np.random.default_rng(3))
    pair = run_of(labels, treated), other(labels, control)
    assert math.isnan(sampling_half_width("eval_top1", [pair]))
    assert math.isnan(sampling_half_width("eval_top1", []))


def test_classes_that_are_nowhere_do_not_count() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    run = run_of(labels, predicted)  # classes 2 and 3 neither occur nor are answered
    for key in ("balanced_accuracy", "macro_f1", "lowest_recall"):
        assert np.isfinite(influences(key, run)).all()
        assert influences(key, run).sum() == pytest.approx(0, abs=1e-9)
