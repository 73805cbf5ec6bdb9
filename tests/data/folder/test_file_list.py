"""CSV files of paths and labels in the place of class folders."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_gradient_tampering.data.factory import open_dataset
from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.errors import UserError

Make = Callable[..., Path]


@pytest.fixture
def pool(tmp_path: Path, make_images: Make) -> Path:
    """Images 000.jpg to 005.jpg in `all/`, not sorted by anything."""
    make_images(tmp_path, {"": 6}, ("all",))
    return tmp_path


def write_lists(root: Path, train: str, val: str = "path,label\nall/005.jpg,2\n") -> None:
    (root / "train.csv").write_text(train)
    (root / "val.csv").write_text(val)


TRAIN = "path,label\nall/003.jpg,10\nall/001.jpg,2\nall/000.jpg,10\n"


def test_labels_become_classes_as_names_of_folders_do(pool: Path) -> None:
    write_lists(pool, TRAIN)
    train, val, _ = open_folder(pool, "train", "validation")
    assert train.classes == val.classes == ("2", "10")
    assert list(train) == [
        (f"{pool}/all/001.jpg", 0),
        (f"{pool}/all/000.jpg", 1),
        (f"{pool}/all/003.jpg", 1),
    ]
    assert list(val) == [(f"{pool}/all/005.jpg", 0)]
    assert open_dataset(str(pool)).num_classes == 2


@pytest.mark.parametrize(
    "text",
    [
        "label,width,path\r\n10,5,all/003.jpg\r\n2,5,all/001.jpg\r\n10,5,all/000.jpg\r\n",
        "\ufeffPath, Label\nall/003.jpg, 10\n\nall/001.jpg, 2\nall/000.jpg, 10\n",
        TRAIN.partition("\n")[2],
    ],
    ids=["other columns and line ends", "from a spreadsheet", "without a first line"],
)
def test_lists_as_programs_write_them(pool: Path, text: str) -> None:
    write_lists(pool, TRAIN)
    expected = list(open_folder(pool, "train", "validation").train)
    write_lists(pool, text)
    assert list(open_folder(pool, "train", "validation").train) == expected


def test_paths_may_be_absolute_or_relative_to_the_folder_of_the_split(pool: Path) -> None:
    (pool / "all").rename(pool / "train")
    write_lists(
        pool,
        f"path,label\n003.jpg,b\n{pool}/train/001.jpg,a\n",
        f"path,label\n{pool}/train/002.jpg,a\n",
    )
    train, val, _ = open_folder(pool, "train", "validation")
    assert train.paths == [f"{pool}/train/001.jpg", f"{pool}/train/003.jpg"]
    assert val.paths == [f"{pool}/train/002.jpg"]


def test_class_folders_come_before_a_list_unless_it_is_named(pool: Path, make_images: Make) -> None:
    write_lists(pool, TRAIN)
    make_images(pool, {"cat": 1, "dog": 2}, ("train", "val"))
    with pytest.warns(UserWarning, match="is not read") as warned:
        train, _, _ = open_folder(pool, "train", "val")
    assert [str(each.message).split("; ")[1] for each in warned] == [
        "--train-split train.csv reads it",
        "--val-split val.csv reads it",
    ]
    assert train.classes == ("cat", "dog")
    train, _, _ = open_folder(pool, "train.csv", "val.csv")
    assert train.classes == ("2", "10")


def test_a_file_that_is_named_twice_counts_twice_and_it_is_said(pool: Path) -> None:
    write_lists(pool, TRAIN + "all/001.jpg,2\n")
    with pytest.warns(UserWarning, match=r"train.csv: 1 lines name a file again"):
        train, _, _ = open_folder(pool, "train", "val")
    assert [label for _, label in train] == [0, 0, 1, 1]


def test_missing_files_are_named_with_their_lines(pool: Path) -> None:
    os.mkfifo(pool / "all/pipe.jpg")
    (pool / "all/link.jpg").symlink_to("nowhere")
    missing = "".join(f"{name},2\n" for name in ("a.jpg", "all/link.jpg", "all/pipe.jpg", "all"))
    write_lists(pool, TRAIN + missing)
    with pytest.raises(
        UserError,
        match=r"train.csv: 4 of 7 files that it names are missing or not plain files in .*"
        r": a.jpg \(line 5\), all/link.jpg \(line 6\), all/pipe.jpg \(line 7\), \.\.\.$",
    ):
        open_folder(pool, "train", "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRAIN + "all/001.jpg,10\n", r"line 5: all/001.jpg is of class 10, and of class 2 in lin"),
        (TRAIN + "all/002.jpg,\n", "line 5: without a label"),
        (TRAIN + ",2\n", "line 5: without a path"),
        (TRAIN + "all/002.jpg\n", "line 5: 1 values, and 2 in the first"),
        (TRAIN + '"all/002.jpg,2\n', "unexpected end of data"),
        (TRAIN.replace(",", ";"), "its first line is 'path;label'; it must name the columns"),
        ("file,class\n" + TRAIN, "its first line is 'file,class'; it must name the columns"),
        ("", "its first line is ''"),
        ("path,label\n", "no images in it"),
        ("path,label\nall/001.jpg,2\n", "one class only, 2; a classifier needs at least two"),
        (TRAIN + "\0.jpg,2\n", "1 of 4 files that it names are missing"),
        (TRAIN.replace("2", "3"), r"val.csv: class 2 is not among the 2 classes of .*train.csv"),
    ],
)
def test_a_list_that_could_be_taken_wrongly_is_refused(pool: Path, text: str, message: str) -> None:
    write_lists(pool, text)
    with pytest.raises(UserError, match=message):
        open_folder(pool, "train", "val")


def test_bytes_that_are_no_text_and_what_is_no_file_are_refused(pool: Path) -> None:
    write_lists(pool, TRAIN)
    (pool / "train.csv").write_bytes(b"path,label\nall/001.jpg,\xff\n")
    with pytest.raises(UserError, match=r"train.csv: 'utf-8' codec can't decode byte 0xff"):
        open_folder(pool, "train", "val")
    (pool / "train.csv").unlink()
    os.mkfifo(pool / "train.csv")
    with pytest.raises(UserError, match="no folder train or training in it, and no such"):
        open_folder(pool, "train", "val")
