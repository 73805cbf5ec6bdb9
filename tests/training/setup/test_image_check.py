"""Bad image files: they stop a run, or are left out of it, before it begins."""

import errno
import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from softmax_gradient_tampering.data.folder.image_file import open_image
from softmax_gradient_tampering.data.inspection import images as inspection
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.records.run_files import Row, read_summary
from tests.training.runs import assert_same_run, program, train

WORDS: tuple[str | int | float, ...] = (
    "--data_dir",
    "photos",
    "--model",
    "resnet20",
    "--img-size",
    32,
    "-b",
    4,
    "-j",
    0,
)
WORDS += ("--epochs", 2, "--lr", 0.01, "--output", "out")
SKIP = (*WORDS, "--on-bad-image", "skip")
LOADERS = {"workers": (), "dali": ("--dali",)}


@pytest.fixture
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "photos", {"ant": 9, "bee": 8})


@pytest.fixture
def bad_files(photos: Path) -> list[Path]:
    """Truncated, empty, and no image at all; in training and in validation."""
    files = [
        photos / name for name in ("train/ant/003.jpg", "train/bee/000.jpg", "val/bee/007.jpg")
    ]
    content = files[0].read_bytes()
    for file, bad in zip(files, (content[: len(content) // 2], b"", b"text"), strict=True):
        file.write_bytes(bad)
    return files


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is an optional extra")
    return LOADERS[request.param]


def test_a_run_with_bad_files_left_out_is_the_run_without_them(
    bad_files: list[Path], loader: tuple[str, ...]
) -> None:
    with pytest.warns(UserWarning, match="left out: ") as warned:
        train(*SKIP, *loader, "--experiment", "skipped")
    named = [Path(str(warning.message).split(": ")[1]).resolve() for warning in warned]
    assert sorted(named) == sorted(bad_files)
    for file in bad_files:
        file.unlink()
    train(*SKIP, *loader, "--experiment", "removed")
    rows, expected = (
        read_summary(Path("out", name, "summary.csv")) for name in ("skipped", "removed")
    )
    drop: Row = {"images_per_s": None, "bad_images": None}
    assert [row | drop for row in rows] == [row | drop for row in expected]
    assert [row["bad_images"] for row in rows] == [3, 3]
    assert [row["bad_images"] for row in expected] == [0, 0]


def test_two_processes_leave_out_the_same(bad_files: list[Path]) -> None:
    done = program(*SKIP, "--dry-run", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out: ") == 3
    assert "15 training and 16 validation images" in done.stdout
    trained = program(*SKIP, "-b", 2, "--experiment", "two", processes=2)
    assert trained.returncode == 0, trained.stderr
    assert [row["bad_images"] for row in read_summary(Path("out/two/summary.csv"))] == [3, 3]


def test_a_bad_file_stops_a_run_of_dali_before_it_begins(bad_files: list[Path]) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is an optional extra")
    with pytest.raises(UserError, match=r"3 bad image files \(.*ant/003\.jpg: .*[Tt]runcated"):
        train(*WORDS, "--dali", "--experiment", "a")
    assert not Path("out/a").exists()


def test_what_pil_reads_and_dali_does_not_is_bad_with_dali_alone(photos: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is an optional extra")
    Image.new("P", (40, 40)).save(photos / "train/ant/new.png", "GIF")
    with pytest.warns(UserWarning, match=r"ant/new\.png: GIF, which DALI does not decode"):
        (row,) = train(*SKIP, "--dali", "--epochs", 1, "--experiment", "dali").rows
    assert row["bad_images"] == 1
    (row,) = train(*SKIP, "--epochs", 1, "--experiment", "workers").rows
    assert row["bad_images"] == 0


def test_without_skip_workers_stop_at_a_bad_file_when_they_meet_it(bad_files: list[Path]) -> None:
    with pytest.raises(UserError, match=r"(ant/003|bee/000)\.jpg: cannot be read as an image"):
        train(*WORDS, "--experiment", "a")


def test_a_folder_without_a_readable_image_is_refused(photos: Path) -> None:
    for file in (photos / "val").rglob("*.jpg"):
        file.write_bytes(b"")
    with (
        pytest.raises(UserError, match="photos: no image can be read in val"),
        pytest.warns(UserWarning, match="left out: "),
    ):
        train(*SKIP, "--experiment", "a")


def test_files_are_looked_at_again_only_when_they_have_changed(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    inspect = inspection.inspect_image

    def count(path: str, with_digest: bool = False) -> inspection.Inspection:
        looked_at.append(path)
        return inspect(path, with_digest)

    monkeypatch.setattr(inspection, "inspect_image", count)
    train(*SKIP, "--dry-run")
    assert len(looked_at) == 34
    assert not Path("out").exists()  # a dry run writes nothing
    train(*SKIP, "--experiment", "a", "--max-steps", 1)
    assert len(looked_at) == 2 * 34
    os.utime(photos / "train/ant/000.jpg", ns=(1, 1))
    (photos / "train/bee/001.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out: .*bee/001\.jpg: an empty file"):
        train(*SKIP, "--experiment", "b", "--max-steps", 1)
    assert [Path(path).name for path in looked_at[2 * 34 :]] == ["000.jpg", "001.jpg"]
    (cache,) = Path("out/.image-checks").iterdir()
    cache.write_text(cache.read_text()[:500])
    train(*SKIP, "--experiment", "c", "--max-steps", 1)  # a damaged cache is none
    assert cache.read_text().count("\n") == 35
    cache.unlink()
    os.mkfifo(cache)
    train(*SKIP, "--experiment", "d", "--max-steps", 1)  # nor is a pipe, which is not waited for
    assert cache.read_text().count("\n") == 35
    assert sorted(path.suffix for path in photos.rglob("*") if path.is_file()) == [".jpg"] * 34


def test_a_file_that_could_not_be_opened_is_tried_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse_to_open(patch, "train/ant/003.jpg")
        with pytest.warns(UserWarning, match=r"ant/003\.jpg: Permission denied"):
            train(*SKIP, "--experiment", "a", "--max-steps", 1)
    (cache,) = Path("out/.image-checks").iterdir()
    assert cache.read_text().count("\n") == 34  # the columns, and all files but one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(*SKIP, "--experiment", "b", "--max-steps", 1)
    assert cache.read_text().count("\n") == 35


def test_a_known_file_that_may_no_longer_be_read_is_looked_at_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*SKIP, "--experiment", "a", "--max-steps", 1)
    refuse_to_open(monkeypatch, "train/ant/003.jpg")
    with pytest.warns(UserWarning, match=r"ant/003\.jpg: Permission denied"):
        train(*SKIP, "--experiment", "b", "--max-steps", 1)


def refuse_to_open(patch: pytest.MonkeyPatch, name: str) -> None:
    """As a mode of no permissions does, which would not stop root."""
    access = os.access

    def refuse(path: str) -> BinaryIO:
        if path.endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_image(path)

    patch.setattr(inspection, "open_image", refuse)
    patch.setattr(os, "access", lambda path, mode: not path.endswith(name) and access(path, mode))


def test_a_run_of_dali_resumes_in_the_middle_of_an_epoch_bitwise(photos: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is an optional extra")
    words = (*WORDS, "--dali", "--mixup", 0.2, "--reprob", 0.4, "--vflip", 0.3)
    train(*words, "--experiment", "whole")
    assert train(*words, "--experiment", "broken", "--max-steps", 6).status == "stopped"
    train(*words, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_other_files_are_refused_in_the_middle_of_an_epoch_and_noted_at_its_end(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*SKIP, "--experiment", "a", "--max-steps", 6)
    (photos / "train/ant/000.jpg").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"16 training samples: .*in the middle of an epoch over 17"),
        pytest.warns(UserWarning, match="left out"),
    ):
        train(*SKIP, "--experiment", "a", "--resume", "auto")
    words = ("--experiment", "b", "--resume", "out/a/last.pth.tar")
    with pytest.warns(UserWarning, match="left out"):
        train(*SKIP, *words, is_silent=False)
    note = "Note: there are 16 training samples, and were 17; their order differs"
    assert note in capsys.readouterr().out


def test_dali_that_is_not_installed_is_named_with_the_command(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def without_dali(name: str, package: str | None = None) -> object:
        return None if name == "nvidia.dali" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_dali)
    with pytest.raises(UserError, match=r"pip install 'softmax-gradient-tampering\[dali\]'"):
        train(*WORDS, "--dali", "--experiment", "a")
