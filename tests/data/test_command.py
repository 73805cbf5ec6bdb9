"""`sgt data check`: what it reports, and its exit code."""

import errno
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.data.factory import SampleDataset
from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.data.inspection.report import find_files
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.data import open_configured_dataset


@pytest.fixture
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "photos", {"ant": 5, "bee": 4})


def check(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["data", "check", str(folder), *words])
    return code, capsys.readouterr().out


def check_json(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[int, dict[str, Any]]:
    code, output = check(capsys, folder, "--json")
    return code, json.loads(output)


def test_a_clean_folder_has_its_classes_counted(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/ant/README.txt").write_text("no image")
    code, output = check(capsys, photos)
    assert code == 0
    assert output.splitlines() == [
        "class          train        val",
        "ant                5          5",
        "bee                4          4",
        "2 classes          9          9",
        "passed over in train: 1 .txt",
        "18 files checked: 0 bad, 0 notes, 0 duplicates between train and val",
    ]
    code, report = check_json(capsys, photos)
    assert (code, report["bad"], report["duplicates"]) == (0, [], [])
    assert report["splits"]["train"]["classes"] == {"ant": 5, "bee": 4}


def test_every_bad_file_is_named_and_the_exit_code_is_1(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/ant/000.jpg").write_bytes(b"")
    (photos / "val/bee/003.jpg").write_bytes(b"text")
    (photos / "val/bee/gone.jpg").symlink_to("nowhere")
    before = sorted(photos.rglob("*"))
    for workers in ("1", "3"):
        code, output = check(capsys, photos, "--workers", workers)
        assert code == 1
        assert [line for line in output.splitlines() if line.startswith("bad: ")] == [
            "bad: train/ant/000.jpg: an empty file, of 0 bytes",
            "bad: val/bee/003.jpg: not an image, or of a kind that PIL does not know",
            "bad: val/bee/gone.jpg: a link to nowhere, which is absent",
        ]
        assert "19 files checked: 3 bad" in output
    code, report = check_json(capsys, photos)
    assert (code, len(report["bad"])) == (1, 3)
    assert report["splits"]["val"]["classes"] == {"ant": 5, "bee": 3}
    assert sorted(photos.rglob("*")) == before


def test_images_of_train_in_val_are_found_by_their_content(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(photos / "train/ant/002.jpg", photos / "val/bee/other-name.jpg")
    code, output = check(capsys, photos)
    assert code == 1
    assert "duplicate: val/bee/other-name.jpg is the same as train/ant/002.jpg\n" in output
    code, report = check_json(capsys, photos)
    assert report["duplicates"] == [{"train": "train/ant/002.jpg", "val": "val/bee/other-name.jpg"}]


def test_splits_of_other_names_are_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train").rename(photos / "first")
    (photos / "val").rename(photos / "second")
    words = ("--json", "--train-split", "first", "--val-split", "second")
    code, output = check(capsys, photos, *words)
    report = json.loads(output)
    assert (code, list(report["splits"])) == (0, ["train", "val"])
    code, output = check(capsys, photos, *words[:-2])
    assert code == 1
    assert "no folder validation or val" in output


def test_a_tree_without_splits_is_one(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = check_json(capsys, photos / "train")
    assert (code, list(report["splits"])) == (0, ["images"])
    assert report["splits"]["images"]["classes"] == {"ant": 5, "bee": 4}


def test_classes_that_training_refuses_are_found(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/cat").mkdir()
    shutil.copytree(photos / "val/ant", photos / "val/newt")
    (photos / "val/owl").mkdir()  # without an image it is none of validation's
    code, report = check_json(capsys, photos)
    assert code == 1
    what = {finding["file"]: finding["what"] for finding in report["bad"]}
    assert list(what) == ["train/cat", "val"]
    assert what["train/cat"].startswith("a class without an image")
    assert what["val"].startswith("class newt is not among the 2 classes of ")
    code, report = check_json(capsys, photos / "train")
    assert (code, [finding["file"] for finding in report["bad"]]) == (1, ["cat"])


CATS_AND_DOGS = tuple(
    f"{split}/{name}/{number}"
    for split in ("train", "val")
    for name in ("cats", "dogs")
    for number in range(2)
)
TREES: dict[str, tuple[str, ...]] = {
    "plain": CATS_AND_DOGS,
    "nested": tuple(name.replace("s/", "s/small/") for name in CATS_AND_DOGS),
    "hidden": (*CATS_AND_DOGS, "train/.ipynb_checkpoints/0", "val/cats/.ipynb_checkpoints/0"),
    "an image of no class": (*CATS_AND_DOGS, "train/0"),
    "validation not sorted": (*CATS_AND_DOGS[:4], "val/0", "val/1"),
    "ILSVRC's validation": (*CATS_AND_DOGS[:4], "val/ILSVRC2012_val_00000001.JPEG"),
    "a folder more": tuple(f"photos/{name}" for name in CATS_AND_DOGS),
    "a folder more in the splits": tuple(
        name.replace("train/", "train/train/").replace("val/", "val/val/") for name in CATS_AND_DOGS
    ),
    "all in train": tuple(f"train/{name}" for name in CATS_AND_DOGS),
    "one class": ("train/cats/0", "val/cats/1"),
    "no validation": CATS_AND_DOGS[:4],
    "no training": CATS_AND_DOGS[4:],
    "a class of validation alone": (*CATS_AND_DOGS, "val/newts/0"),
    "a link to nothing": (*CATS_AND_DOGS, "train/cats/gone.jpg"),
    "a class that is a link to nothing": (*CATS_AND_DOGS, "val/gone"),
    "other endings": (*CATS_AND_DOGS, "train/cats/2.webp", "val/dogs/2.tif", "val/dogs/3.gif"),
    "archives": ("train/n01440764.tar", "train/n01443537.tar", *CATS_AND_DOGS[4:]),
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.filterwarnings("ignore:.*(passed over|uppermost)")
def test_the_check_counts_what_training_counts_and_fails_where_training_refuses(
    tree: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0)
    for name in TREES[tree]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "gone" in name:
            path.symlink_to("nowhere")
            continue
        image = Image.fromarray(pixels.integers(0, 256, (36, 40, 3), dtype=np.uint8))
        image.save(path if path.suffix else path.with_suffix(".jpg"), "PNG")
    code, report = check_json(capsys, tmp_path / "data")
    config = Config(data_dir=str(tmp_path / "data"))
    processes = Processes(1, 0, torch.device("cpu"))
    try:
        dataset = open_configured_dataset(config, processes)
    except UserError:
        assert code == 1
        assert report["bad"]
        return
    assert (code, report["bad"]) == (0, [])
    assert isinstance(dataset, SampleDataset)
    assert dataset.files is not None
    for name, files in zip(("train", "val"), dataset.files, strict=True):
        counted = Counter(files.classes[label] for _, label in files)
        assert counted == report["splits"][name]["classes"]


def test_links_that_go_round_are_found_and_not_followed(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ant", "bee"):
        (photos / "train" / name / "up").symlink_to("..")
    (photos / "train/cat").symlink_to(photos / "train/ant", target_is_directory=True)
    code, report = check_json(capsys, photos)
    assert code == 1
    assert report["splits"]["train"]["classes"] == {"ant": 5, "bee": 4, "cat": 5}
    bad = {finding["file"]: finding["what"] for finding in report["bad"]}
    assert sorted(bad) == ["train/ant/up", "train/bee/up", "train/cat/up"]
    assert "a link to a folder above it" in bad["train/ant/up"]


def test_names_cannot_write_to_the_terminal(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/ant/\x1b[2J\n.jpg").write_bytes(b"")
    code, output = check(capsys, photos)
    assert code == 1
    assert "bad: train/ant/\\x1b[2J\\n.jpg: an empty file" in output


def test_a_folder_that_may_not_be_looked_into_is_one_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)  # a mode of no permissions would not stop root
    with pytest.raises(UserError, match=r"photos: Permission denied$"):
        find_files(photos)
    with pytest.raises(UserError, match=r"^--data_dir .*photos: Permission denied$"):
        open_folder(photos, "train", "val")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere: no such folder"),
        (["check", "x" * 300], "File name too long"),
        (["check", "."], r"\.: no images in it, files that end in \.jpg, \.jpeg, \.png"),
        (["check", ".", "--workers", "0"], "--workers 0: must be at least 1"),
        (["scrub", "."], "invalid choice: 'scrub'"),
        ([], "the following arguments are required"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("sgt data: error: ")
    assert re.search(message, error)
