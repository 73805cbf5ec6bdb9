"""`sgt data check`: what it reports, and its exit code."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.data.folder.tree import find_split
from softmax_gradient_tampering.data.inspection.report import find_files
from softmax_gradient_tampering.errors import UserError


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
            "bad: val/bee/gone.jpg: no such file",
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
    assert report["bad"] == [
        {"file": "train/cat", "what": "a class without an image, which training refuses"},
        {"file": "val", "what": "class newt, which is not in train; training refuses it"},
    ]
    code, report = check_json(capsys, photos / "train")
    assert (code, [finding["file"] for finding in report["bad"]]) == (1, ["cat"])


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
        find_split(photos, "train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere: no such folder"),
        (["check", "x" * 300], "File name too long"),
        (["check", "."], r"\.: no images in it, files that end in \.png, \.jpg, \.jpeg"),
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
