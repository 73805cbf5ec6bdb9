"""Arrays of a file that anybody may have made: as large as their header says, or refused."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.report import write_report
from softmax_gradient_tampering.studies.results.arrays import read_arrays
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.results.predictions import read_predictions
from softmax_gradient_tampering.training.measure.predictions import MAX_VALUES
from tests.studies.synthetic import BASELINE, FakeArm, Size, cell_folder, write_study

LIMIT = 2**20


def npy(shape: tuple[int, ...], dtype: str = "<f4", content: bytes = b"") -> bytes:
    """An .npy file whose header declares what its content need not hold."""
    buffer = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": dtype}
    np.lib.format.write_array_header_2_0(buffer, header)
    return buffer.getvalue() + content


def write_zip(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_arrays_are_read_as_numpy_wrote_them(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(12.0, dtype=np.float32).reshape(3, 4),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.zeros((0, 3)),
        "d": np.array(2, dtype=">i8"),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_arrays(tmp_path / "a.npz", LIMIT)
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
        assert list(read_arrays(tmp_path / "a.npz", LIMIT, ("b",))) == ["b"]


TERABYTES = npy((10**6, 10**6), content=bytes(4000))
HOSTILE: dict[str, Callable[[Path], object]] = {
    "terabytes declared": lambda path: write_zip(path, {"a.npy": TERABYTES}),
    "a size beyond 64 bits": lambda path: write_zip(path, {"a.npy": npy((10**30, 10**30))}),
    "more than allowed": lambda path: np.savez(path, a=np.zeros(LIMIT)),
    "zeros that were packed": lambda path: np.savez_compressed(path, a=np.zeros(2**24)),
    "several that are too large together": lambda path: np.savez(
        path, a=np.zeros(LIMIT // 10), b=np.zeros(LIMIT // 10)
    ),
    "less than declared": lambda path: write_zip(path, {"a.npy": npy((9,), content=bytes(8))}),
    "objects": lambda path: np.savez(path, a=np.array([{}], dtype=object)),
    "a header without end": lambda path: write_zip(
        path, {"a.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(2**20)}
    ),
    "no array": lambda path: write_zip(path, {"a.npy": b"text"}),
    "no zip file": lambda path: path.write_bytes(b"text"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_such_file_is_refused(tmp_path: Path, what: str) -> None:
    HOSTILE[what](tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        read_arrays(tmp_path / "a.npz", LIMIT)


def test_a_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000.0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_arrays(path, LIMIT)


def test_the_largest_predictions_that_are_written_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    logits = np.zeros((MAX_VALUES // 1024, 1024), np.float32)
    np.savez(path, logits=logits, labels=np.zeros(len(logits), np.int64))
    assert read_predictions(path).logits.shape == logits.shape


FILES = ("args.yaml", "summary.csv", "result.json", "environment.json", "predictions.npz")


def test_cells_of_hostile_files_are_invalid_and_the_report_goes_on(tmp_path: Path) -> None:
    size = Size(num_epochs=2, num_samples=30, num_classes=3, num_filters=2)
    arms = (BASELINE, FakeArm("alpha-0.25", "tampered", 0.25))
    study = write_study(tmp_path / "study", arms, range(len(FILES) + 3), size)
    for seed, name in enumerate(FILES):
        path = cell_folder(study, "alpha-0.25", seed) / name
        path.unlink()
        os.mkfifo(path)
    hostile = cell_folder(study, "alpha-0.25", len(FILES)) / "predictions.npz"
    write_zip(hostile, {"logits.npy": TERABYTES, "labels.npy": npy((30,), "<i8", bytes(240))})
    failed = cell_folder(study, "alpha-0.25", len(FILES) + 1)
    (failed / "result.json").unlink()
    os.mkfifo(failed / "failure.json")
    filters = cell_folder(study, "alpha-0.25", len(FILES) + 2) / "filter_norms.npz"
    write_zip(filters, {"epochs.npy": TERABYTES})

    cells = [each for each in collect(study).cells if each.cell.arm == "alpha-0.25"]
    *hurt, last, whole = cells
    assert {each.state for each in hurt} == {State.INVALID}
    for name, each in zip(FILES, hurt, strict=False):
        assert name in each.reason
        assert "\n" not in each.reason
    assert (last.state, last.reason) == (State.FAILED, "failure.json cannot be read")
    assert whole.state is State.FINISHED
    page = write_report(study).read_text()
    assert "filter_norms.npz cannot be read" in page
    assert page.count("predictions.npz cannot be read") == 2
