"""--filter-norms: what is recorded, and what counts as zeroed."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.models import create_model
from softmax_gradient_tampering.training.measure.filter_norms import (
    FeatureNorms,
    FilterHistory,
    filter_norms,
    num_zeroed,
    read_filter_norms,
)
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.training.runs import train


def test_norms_are_those_of_the_output_channels() -> None:
    first = nn.Conv2d(2, 3, 3, bias=False)
    model = nn.Sequential(first, nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        first.weight.zero_()
        first.weight[1] = 2
        first.weight[2] = 1e-8
    norms = filter_norms(model)
    assert list(norms) == ["0", "2"]
    torch.testing.assert_close(norms["0"], torch.tensor([0, 2 * 18**0.5, 1e-8 * 18**0.5]))
    assert num_zeroed(norms["0"]) == 2


def test_a_feature_is_zeroed_when_no_sample_has_it() -> None:
    classifier = nn.Linear(3, 2)
    features = FeatureNorms(classifier)
    with features.watch():
        classifier(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1e-9]]))
        classifier(torch.tensor([[4.0, 0.0, 0.0]]))
    classifier(torch.ones(1, 3))  # not watched
    total = features.total(Processes(1, 0, torch.device("cpu")))
    np.testing.assert_allclose(total, [5, 0, 1e-9])
    assert num_zeroed(total) == 2


def test_a_history_goes_on_from_the_epochs_that_count(tmp_path: Path) -> None:
    history = FilterHistory(tmp_path, 0)
    for epoch in (1, 2, 3):
        history.add(epoch, {"conv": torch.full((2,), float(epoch))})
    again = FilterHistory(tmp_path, 2)  # killed before the third epoch's checkpoint
    again.add(3, {"conv": torch.full((2,), 3.5)})
    arrays = read_filter_norms(tmp_path / "filter_norms.npz")
    assert arrays["epochs"].tolist() == [1, 2, 3]
    assert arrays["conv"].tolist() == [[1, 1], [2, 2], [3.5, 3.5]]


def arrays_file(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04trunc",
        arrays_file(epochs=np.arange(1, 3), conv=np.ones((2, 2)))[:-40],
        arrays_file(conv=np.ones((2, 2))),
        arrays_file(epochs=np.arange(1, 3), conv=np.ones((1, 2))),
        arrays_file(epochs=np.array(["x"])),
    ],
    ids=["empty", "no zip", "cut short", "without epochs", "too few rows", "text"],
)
def test_a_damaged_history_starts_anew_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "filter_norms.npz").write_bytes(content)
    history = FilterHistory(tmp_path, 2)
    assert "filter_norms.npz: damaged" in capsys.readouterr().out
    history.add(3, {"conv": torch.ones(2)})
    assert read_filter_norms(tmp_path / "filter_norms.npz")["epochs"].tolist() == [3]


def test_a_history_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "filter_norms.npz").mkdir()
    with pytest.raises(UserError, match=r"filter_norms\.npz: cannot be read"):
        FilterHistory(tmp_path, 2)


@pytest.mark.parametrize("model", ["digits_cnn", "digits_cnn_wobn"])
def test_a_run_records_every_epoch(tmp_path: Path, model: str) -> None:
    flags: list[Any] = ["--model", model, "--epochs", 3, "--eval-every", 2, "--output", tmp_path]
    flags += ["--experiment", "run", "--filter-norms"]
    train(*flags, "--max-steps", 8)
    train(*flags, "--resume", "auto")
    arrays = read_filter_norms(tmp_path / "run" / "filter_norms.npz")
    assert arrays.pop("epochs").tolist() == [1, 2, 3]
    names = [n for n, m in create_model(model).named_modules() if isinstance(m, nn.Conv2d)]
    assert list(arrays) == names
    rows = read_summary(tmp_path / "run" / "summary.csv")
    assert [row["epoch"] for row in rows] == [2, 3]
    assert all(isinstance(row["zeroed_filters"], int) for row in rows)
    assert all(isinstance(row["zeroed_features"], int) for row in rows)
