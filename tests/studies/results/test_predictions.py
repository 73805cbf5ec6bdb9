"""Measurements of predictions against their definitions, written out."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from softmax_gradient_tampering.studies.results import prediction_measures
from softmax_gradient_tampering.studies.results.prediction_measures import fit_factor
from softmax_gradient_tampering.studies.results.prediction_measures import (
    summarise as summarise_arrays,
)
from softmax_gradient_tampering.studies.results.predictions import (
    HELD_OUT,
    PLAIN,
    SCALED,
    Predictions,
    PredictionSummary,
    agreement,
    read_predictions,
)


def summarise(z: Tensor, labels: Tensor, scale: float) -> PredictionSummary:
    return summarise_arrays(Predictions(z.numpy(), labels.numpy()), scale)


def drawn(number: int = 301, num_classes: int = 5, factor: float = 0.4) -> tuple[Tensor, Tensor]:
    """Logits z, and labels drawn from softmax(factor * z)."""
    generator = torch.Generator().manual_seed(0)
    z = 4 * torch.randn(number, num_classes, generator=generator)
    labels = torch.multinomial(torch.softmax(factor * z, 1), 1, generator=generator).squeeze(1)
    return z, labels


def expected_scores(z: Tensor, labels: Tensor) -> dict[str, float]:
    """NLL, Brier score and ECE of softmax(z), sample by sample."""
    p = torch.softmax(z.double(), 1)
    onehot = F.one_hot(labels, z.shape[1])
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(p, labels, strict=True):
        confidence = row.max().item()
        number = min(14, math.ceil(15 * confidence) - 1)
        bins.setdefault(number, []).append((confidence, int(row.argmax()) == int(label)))
    gaps = (abs(sum(c for c, _ in bin_) - sum(r for _, r in bin_)) for bin_ in bins.values())
    return {
        "nll": F.cross_entropy(z.double(), labels).item(),
        "brier": ((p - onehot) ** 2).sum(1).mean().item(),
        "ece": 100 * sum(gaps) / len(labels),
    }


def test_scores_are_those_of_the_definitions() -> None:
    z, labels = drawn()
    found = summarise(z, labels, scale=0.25).calibration
    assert found[PLAIN] == pytest.approx(expected_scores(z, labels), rel=1e-9)
    assert found[SCALED] == pytest.approx(expected_scores(0.25 * z, labels), rel=1e-9)


def test_the_held_out_factor_of_a_half_comes_from_the_other_half() -> None:
    z, labels = drawn()
    summary = summarise(z, labels, scale=0.25)
    even, odd = summary.factors
    assert even == pytest.approx(fit_factor(z[::2], labels[::2], 1.0), rel=1e-5)
    assert odd == pytest.approx(fit_factor(z[1::2], labels[1::2], 1.0), rel=1e-5)
    scaled = z.double().clone()
    scaled[::2] *= odd
    scaled[1::2] *= even
    found = summary.calibration[HELD_OUT]
    assert found == pytest.approx(expected_scores(scaled, labels), rel=1e-9)
    assert found["nll"] < summary.calibration[PLAIN]["nll"]
    assert summary.factor == pytest.approx(math.sqrt(even * odd))


@pytest.mark.parametrize("start", [0.05, 0.4, 1.0, 7.0])
def test_the_factor_has_the_least_nll(start: float) -> None:
    z, labels = drawn(2000)
    best = minimize_scalar(
        lambda s: F.cross_entropy(s * z.double(), labels).item(), bounds=(0.01, 10),
        method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert fit_factor(z, labels, start) == pytest.approx(best.x, rel=1e-5)


def test_a_factor_without_a_minimum_stays_within_its_bounds() -> None:
    z = torch.eye(3)
    labels = torch.arange(3)
    # All are right: the larger the better, until the probabilities round to 1.
    assert 25 < fit_factor(z, labels, 0.5) <= 50
    assert fit_factor(z, labels.roll(1), 0.5) == pytest.approx(0.005, rel=1e-4)
    assert fit_factor(torch.zeros(2, 3), torch.tensor([0, 1]), 0.5) == 0.5  # no slope at all
    assert math.isnan(fit_factor(z[:0], labels[:0], 1.0))
    assert math.isnan(fit_factor(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), 1.0))


def test_large_sets_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = drawn()
    whole = summarise(z, labels, 0.25)
    monkeypatch.setattr(prediction_measures, "_CHUNK_ELEMENTS", 40)
    parts = summarise(z, labels, 0.25)
    assert parts.calibration[HELD_OUT] == pytest.approx(whole.calibration[HELD_OUT], rel=1e-9)
    assert np.allclose(parts.bins[PLAIN], whole.bins[PLAIN])


def test_confusions_are_counted_by_label_and_prediction() -> None:
    predicted = torch.tensor([0, 1, 1, 2, 1])
    labels = torch.tensor([0, 0, 0, 2, 2])
    logits = F.one_hot(predicted, 3).float()
    assert summarise(logits, labels, 1.0).confused == {(0, 1): 2, (2, 1): 1}
    assert Predictions(logits.numpy(), labels.numpy()).count_classes().accuracy == pytest.approx(40)


def test_agreement_counts_classes_and_measures_logits() -> None:
    z = np.array([[2.0, 0, 0], [0, 4, 0], [0, 0, 8]], np.float32)
    labels = np.arange(3)
    other = 0.25 * z
    other[1] = [1.25, 1, 0]
    tampered, equivalent = Predictions(z, labels), Predictions(other, labels)
    assert agreement(tampered, equivalent, 0.25) == (3, 2, 1.25, 2.0)
    with pytest.raises(ValueError, match="different samples"):
        agreement(tampered, Predictions(other, labels[::-1]), 0.25)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"logits": np.zeros((2, 3))}, "cannot be read"),
        ({"logits": np.zeros((2, 3)), "labels": np.zeros(3, int)}, "labels int64"),
        ({"logits": np.zeros((2, 3), int), "labels": np.zeros(2, int)}, "logits int64"),
        ({"logits": np.zeros((2, 3)), "labels": np.array([0, 3])}, "outside its 3 classes"),
        ({"logits": np.array([[object()]]), "labels": np.zeros(1, int)}, "cannot be read"),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, arrays: dict[str, object], reason: str
) -> None:
    np.savez(tmp_path / "predictions.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason):
        read_predictions(tmp_path / "predictions.npz")


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    np.savez(path, logits=np.zeros((50, 3)), labels=np.zeros(50, int))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read"):
        read_predictions(path)
