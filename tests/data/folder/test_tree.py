"""What is said of folders that are not what they should be."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softmax_gradient_tampering.data.factory import open_dataset
from softmax_gradient_tampering.errors import UserError

Make = Callable[..., Path]


def test_splits_are_found_by_their_usual_names(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3}, ("training", "valid"))
    dataset = open_dataset(str(root))
    assert (dataset.num_train, dataset.num_val, dataset.num_classes) == (5, 5, 2)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_dataset(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("cifar", [0, 10])
def test_a_name_too_long_is_one_line(cifar: int) -> None:
    with pytest.raises(UserError, match=r"--data_dir x+: File name too long"):
        open_dataset("x" * 300, cifar=cifar)


def test_a_missing_split_is_an_error_and_not_the_folder_itself(
    tmp_path: Path, make_images: Make
) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3}, ("train",))
    with pytest.raises(UserError, match=r"no folder validation or val .*it holds train.*--val-spl"):
        open_dataset(str(root))


def test_an_empty_class_is_named(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3, "zebra": 0})
    with pytest.raises(UserError, match="no image in class zebra"):
        open_dataset(str(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_link_that_goes_round_is_named(tmp_path: Path, make_images: Make, split: str) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    (root / split / "z").symlink_to(root / split / "x", target_is_directory=True)
    (root / split / "x/up").symlink_to("..")
    with pytest.raises(UserError, match=rf"{split}/[xz]/up: a link to a folder above it"):
        open_dataset(str(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_that_cannot_be_listed_is_named(
    tmp_path: Path, make_images: Make, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    scandir = os.scandir

    def refuse(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if Path(path) == root / split / "x":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=rf"{split}/x: cannot be listed: Permission denied"):
        open_dataset(str(root))


def test_a_class_of_validation_alone_is_named(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3}, ("train",))
    make_images(root, {"x": 1, "newt": 1}, ("val",))
    with pytest.raises(UserError, match="class newt is not among the 2 classes"):
        open_dataset(str(root))


def test_both_splits_have_the_class_map_of_training(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"class2": 1, "class10": 1, "class1": 1}, ("train",))
    make_images(root, {"class10": 1}, ("val",))
    dataset = open_dataset(str(root))
    train, val = dataset.train.reader, dataset.val.reader  # type: ignore[attr-defined]
    assert train.class_to_idx == val.class_to_idx == {"class1": 0, "class2": 1, "class10": 2}
    assert [label for _, label in val.samples] == [2]


def test_a_data_set_that_timm_cannot_open_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset torch/cifar10: cannot open split 'train'"):
        open_dataset(str(tmp_path), dataset="torch/cifar10")
