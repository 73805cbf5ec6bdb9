"""A layout one level off: what would work is named."""

import re
from pathlib import Path

import pytest

from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.errors import UserError


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        for name in ("cats", "dogs"):
            (root / folder / name).mkdir(parents=True)
            (root / folder / name / "0.jpg").touch()


def flags_that_would_work(root: Path) -> list[str]:
    """Those of the message that refuses root; and they do."""
    with pytest.raises(UserError, match="would work") as refusal:
        open_folder(root, "train", "validation")
    found = re.search(r"; (--[^;]*) would work", str(refusal.value))
    assert found is not None
    flags = found[1].split()
    names = dict(zip(flags[::2], flags[1::2], strict=True))
    train, val, _ = open_folder(
        Path(names.get("--data_dir", root)),
        names.get("--train-split", "train"),
        names.get("--val-split", "validation"),
    )
    assert (len(train), len(val), train.classes) == (2, 2, ("cats", "dogs"))
    return flags


@pytest.mark.parametrize("inner", ["photos", "a/photos"])
def test_a_folder_above_the_data(tmp_path: Path, inner: str) -> None:
    make(tmp_path, f"{inner}/train", f"{inner}/val")
    assert flags_that_would_work(tmp_path) == ["--data_dir", f"{tmp_path}/{inner}"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_in_the_place_of_the_data(
    tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "train", "val")
    assert flags_that_would_work(tmp_path / split) == ["--data_dir", str(tmp_path)]
    monkeypatch.chdir(tmp_path)
    assert flags_that_would_work(Path(split)) == ["--data_dir", str(tmp_path)]


def test_both_splits_in_a_folder_named_as_one(tmp_path: Path) -> None:
    make(tmp_path, "train/train", "train/val")
    assert flags_that_would_work(tmp_path) == ["--data_dir", f"{tmp_path}/train"]
    make(tmp_path, "val/unrelated")
    assert flags_that_would_work(tmp_path) == ["--data_dir", f"{tmp_path}/train"]


@pytest.mark.parametrize("inner", ["{}", "images"])
def test_a_folder_more_in_either_split(tmp_path: Path, inner: str) -> None:
    train, val = (f"{split}/{inner.format(split)}" for split in ("train", "val"))
    make(tmp_path, train, val)
    expected = ["--train-split", train, "--val-split", val]
    assert flags_that_would_work(tmp_path) == expected


def test_nothing_is_named_where_nothing_would_work(tmp_path: Path) -> None:
    make(tmp_path, "photos/train")
    (tmp_path / "photos/val/cats").mkdir(parents=True)
    with pytest.raises(UserError, match=r"it holds photos\); name the right one with"):
        open_folder(tmp_path, "train", "validation")


def test_archives_in_the_place_of_the_data_are_named(tmp_path: Path) -> None:
    for name in ("train.tar", "val.tar.gz", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        UserError, match=r"it holds train.tar, val.tar.gz\); unpack the archives; sgt"
    ):
        open_folder(tmp_path, "train", "validation")
