"""What is said of folders that are not what they should be."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_dataset

from softmax_gradient_tampering.data.factory import open_dataset
from softmax_gradient_tampering.data.folder.image_file import read_image
from softmax_gradient_tampering.data.folder.image_folder import open_folder
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
    with pytest.raises(UserError, match="train/zebra: a class without an image"):
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
    train, val, _ = open_folder(root, "train", "validation")
    assert train.classes == val.classes == ("class1", "class2", "class10")
    assert [label for _, label in val] == [2]
    assert [(Path(path).parent.name, label) for path, label in train] == [
        (name, label) for label, name in enumerate(train.classes)
    ]


def test_the_order_of_the_files_is_timms(tmp_path: Path) -> None:
    names = (
        "a.jpg",
        "a10.PNG",
        "a9.jpeg",
        "Zoë 3.jpg",
        "a 2.jpg",
        "b-1.jpg",
        "9x.jpg",
        "x2y10.jpg",
    )
    classes = ("class2", "class10", "a", "a b", "a-b", "zebra", "n01440764")
    for split in ("train", "val"):
        for folder in classes:
            (tmp_path / split / folder).mkdir(parents=True)
            for name in names:
                (tmp_path / split / folder / name).touch()
    timms = create_dataset("", root=str(tmp_path), split="train").reader
    train, _, _ = open_folder(tmp_path, "train", "val")
    assert list(train) == timms.samples
    assert list(train.classes) == list(timms.class_to_idx)


def test_classes_that_differ_in_case_or_zeros_alone_have_one_order(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("Cat", "cat", "1", "01", "CAT"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").touch()
    train, _, _ = open_folder(tmp_path, "train", "val")
    assert train.classes == ("01", "1", "CAT", "Cat", "cat")


def test_images_below_a_class_folder_are_of_its_class_and_it_is_said(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cats/small", "cats/large", "dogs/small", "dogs/large/old"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").touch()
    with pytest.warns(UserWarning, match=r"class is the uppermost folder, as cats of cats/large"):
        train, val, _ = open_folder(tmp_path, "train", "val")
    assert train.classes == ("cats", "dogs")
    for files in (train, val):
        for path, label in files:
            assert f"/{train.classes[label]}/" in path


def test_what_is_passed_over_is_said(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    shutil.copytree(root / "train/x", root / "train/x/.ipynb_checkpoints")
    shutil.copytree(root / "train/x", root / "train/.hidden")
    shutil.copytree(root / "train/x", root / "train/y/@eaDir/x")
    shutil.copy(root / "train/x/000.jpg", root / "train/x/._000.jpg")
    (root / "train/x/.DS_Store").touch()
    for name in ("a.gif", "b.gif", "notes.txt", "README"):
        (root / "train/y" / name).touch()
    with pytest.warns(UserWarning, match="passed over") as warned:
        train, val, _ = open_folder(root, "train", "val")
    assert [str(each.message).removeprefix(f"{root}/") for each in warned] == [
        "train: 4 hidden files or folders passed over, .hidden for one",
        "train: passed over, as no images by the ends of their names: 2 .gif, 1 .txt, 1 README",
    ]
    assert (len(train), len(val)) == (5, 5)


@pytest.mark.parametrize("ending", ["webp", "tif", "TIFF", "bmp", "PPM", "PNG"])
def test_every_ending_that_is_listed_is_read(
    tmp_path: Path, make_images: Make, ending: str
) -> None:
    root = make_images(tmp_path / "a", {"x": 1, "y": 1})
    with Image.open(root / "train/x/000.jpg") as image:
        image.save(root / "train/x" / f"1.{ending}")
        pixels = np.asarray(image)
    train, _, _ = open_folder(root, "train", "val")
    assert len(train) == 3
    read = np.asarray(read_image(train.path(1), "RGB"))
    assert read.shape == pixels.shape


def test_links_to_images_and_classes_are_followed(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    (root / "train/y/link.jpg").symlink_to(root / "train/x/000.jpg")
    (root / "train/z").symlink_to(root / "train/x")
    train, _, _ = open_folder(root, "train", "val")
    assert train.classes == ("x", "y", "z")
    assert [label for _, label in train] == [0] * 2 + [1] * 4 + [2] * 2


def test_links_to_what_is_absent_are_named(tmp_path: Path, make_images: Make) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    (root / "val/y/gone.jpg").symlink_to("/nowhere/gone.jpg")
    assert open_folder(root, "train", "val").absent == [f"{root}/val/y/gone.jpg"]
    (root / "train/z").symlink_to("/nowhere/z")
    with pytest.raises(UserError, match="train/z: a link to /nowhere/z, which is absent; restore"):
        open_folder(root, "train", "val")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train/a/0.jpg", "train/b/0.jpg", "train/0.jpg"), "1 image beside the class folders"),
        (
            ("train/0.jpg",),
            r"train: 1 image and no class folders; .*train.csv, path,label",
        ),
        (("train/a/0.gif", "train/b/0.jpg"), "train/a: a class without an image"),
        (("train/a/0.jpg",), "train: one class only, a; a classifier needs at least two"),
        (("train/a/0.txt",), "train: no images in it, files that end in .jpg"),
        (("train/n01440764.tar",), "1 archive not unpacked, .*sgt data imagenet --train"),
        (
            ("train/n01440764/0.jpg", "train/n01443537/0.jpg", "train/n01484850.tar"),
            "1 archive not unpacked, n01484850.tar; unpack them: sgt data imagenet",
        ),
        (("train/train.zip",), "1 archive not unpacked, train.zip; unpack them$"),
        (
            ("train/train/a/0.jpg", "train/train/b/0.jpg", "train/val/a/0.jpg"),
            "train: train, val in it, with folders of images, is named as a split is",
        ),
    ],
)
def test_a_layout_that_tells_no_classes_is_refused(
    tmp_path: Path, make_images: Make, files: tuple[str, ...], message: str
) -> None:
    make_images(tmp_path, {"a": 1, "b": 1}, ("val",))
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path, "train", "val")


def test_ilsvrcs_validation_images_as_downloaded_are_told_apart(
    tmp_path: Path, make_images: Make
) -> None:
    make_images(tmp_path, {"a": 1, "b": 1}, ("train",))
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        (tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG").touch()
    with pytest.raises(UserError, match=r"2 validation images of ILSVRC .*sgt data imagenet --val"):
        open_folder(tmp_path, "train", "val")


@pytest.mark.parametrize("name", ["folder", "imagenet", "torch/image_folder"])
def test_timms_names_of_image_folders_have_the_same_rules(
    tmp_path: Path, make_images: Make, name: str
) -> None:
    root = make_images(tmp_path / "a", {"x": 2, "y": 3})
    (root / "train/0.jpg").touch()
    with pytest.raises(UserError, match="1 image beside the class folders"):
        open_dataset(str(root), dataset=name)


def test_a_data_set_that_timm_cannot_open_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset torch/cifar10: cannot open split 'train'"):
        open_dataset(str(tmp_path), dataset="torch/cifar10")
