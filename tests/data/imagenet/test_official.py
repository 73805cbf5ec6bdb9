"""`sgt data imagenet`: from the official files to folders that can be trained on."""

import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.data.imagenet import layout
from tests.data.imagenet.archives import (
    CLASSES,
    COUNTS,
    GROUND_TRUTH,
    TRAIN,
    VAL,
    devkit_files,
    tar_of,
    write_official,
)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write_official(tmp_path / "official")


def sort(train: object, val: object, devkit: object, *words: str) -> int:
    given = (("--train", train), ("--val", val), ("--devkit", devkit))
    flags = [str(word) for flag, path in given if path for word in (flag, path)]
    return main(["data", "imagenet", *flags, "--output", "made", *words])


def sort_all(official: Path, words: tuple[str, ...] = COUNTS) -> int:
    names = ("train.tar", "val.tar", "devkit.tar.gz")
    train, val, devkit = (official / name for name in names)
    return sort(train, val, devkit, *words)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("sgt data: error: ")
    assert error.count("\n") == 1
    return error


EXPECTED = {
    **{f"train/{name}/{file}": content for name in TRAIN for file, content in TRAIN[name].items()},
    **{
        f"val/{CLASSES[GROUND_TRUTH[number] - 1]}/{file}": content
        for number, (file, content) in enumerate(VAL.items())
    },
}


def assert_made(output: Path = Path("made")) -> None:
    """Every image lies in the folder of its class, whole, and nothing lies elsewhere."""
    found = {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }
    assert found == EXPECTED


def test_the_official_archives_become_folders_of_classes(
    official: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sort_all(official) == 0
    assert_made()
    assert capsys.readouterr().out.splitlines() == [
        "made/train: 20 images of 5 classes",
        "made/val: 7 images of 5 classes",
        "sgt data check made looks for images that are damaged",
    ]
    train, val, _ = open_folder(Path("made"), "train", "val")
    assert train.classes == tuple(sorted(CLASSES))
    assert (len(train), len(val)) == (20, 7)
    assert sort_all(official) == 0
    assert "made/train: 20 images of 5 classes, as before" in capsys.readouterr().out


def unpack(official: Path, folder: Path, depth: int) -> Path:
    """Train archives, unpacked once or twice, images of val, and the kit; into one folder each."""
    for name in ("train.tar", "val.tar", "devkit.tar.gz"):
        with tarfile.open(official / name) as archive:
            archive.extractall(folder / name.split(".")[0], filter="data")
    for path in sorted((folder / "train").glob("*.tar"))[: None if depth == 2 else depth]:
        with tarfile.open(path) as archive:
            archive.extractall(path.with_suffix(""), filter="data")
        if depth == 2:
            path.unlink()
    return folder


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("has_links", [True, False])
def test_unpacked_folders_do_too_by_hard_links_where_the_disk_has_them(
    official: Path, tmp_path: Path, depth: int, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = unpack(official, tmp_path / "unpacked", depth)
    if depth == 1:  # a class unpacked in part, beside its archive
        next((folder / "train").glob("*/*.JPEG")).unlink()
    before = sorted(folder.rglob("*"))
    assert sort(folder / "train", folder / "val", folder / "devkit", *COUNTS) == 0
    assert_made()
    assert sorted(folder.rglob("*")) == before
    name = next(iter(VAL))
    is_same = (folder / "val" / name).samefile(next(Path("made/val").rglob(name)))
    assert is_same == has_links


def test_one_split_alone(official: Path) -> None:
    assert sort(official / "train.tar", None, None, *COUNTS) == 0
    assert [path.name for path in Path("made").iterdir()] == ["train"]
    assert sort(None, official / "val.tar", official / "devkit.tar.gz", *COUNTS) == 0
    assert_made()


@pytest.mark.parametrize("at", [1, 9, 20, 24])
def test_after_an_interruption_the_same_command_goes_on(
    official: Path, at: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, placed = layout._place, []

    def interrupted(image: object, folder: Path) -> None:
        placed.append(image)
        if len(placed) == at:
            raise KeyboardInterrupt
        place(image, folder)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(layout, "_place", interrupted)
        assert sort_all(official) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    unfinished = "train" if at <= 20 else "val"
    assert not Path("made", unfinished).exists()
    done = sorted(Path("made", f"{unfinished}.unfinished").rglob("*.JPEG"))
    assert len(done) == at - 1 - (20 if unfinished == "val" else 0)
    for path in done[:1]:
        path.write_bytes(b"cut")  # as a power cut may leave it
    times = {path.name: path.stat().st_mtime_ns for path in done[1:]}
    assert sort_all(official) == 0
    assert_made()
    for path in Path("made").rglob("*.JPEG"):
        assert times.get(path.name) in (None, path.stat().st_mtime_ns)  # not written again


def test_a_killed_program_leaves_nothing_that_is_taken_for_a_data_set(official: Path) -> None:
    code = (
        "import os, sys; from softmax_gradient_tampering.cli import main; "
        "from softmax_gradient_tampering.data.imagenet import layout; place = layout._place; "
        "n = iter(range(9)); "
        "layout._place = lambda *a: place(*a) if next(n, 9) < 8 else os.kill(os.getpid(), 9); "
        "main(sys.argv[1:])"
    )
    flags = [
        word for name in ("train.tar", "val.tar") for word in (f"--{name[:-4]}", official / name)
    ]
    words = [*flags, "--devkit", official / "devkit.tar.gz", "--output", "made", *COUNTS]
    done = subprocess.run([sys.executable, "-c", code, "data", "imagenet", *map(str, words)])
    assert done.returncode == -9
    assert not Path("made/train").exists()
    assert sort_all(official) == 0
    assert_made()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "20 images of 5 classes, and not 1,281,167 of 1,000; the source may not be whole"),
        (("--classes", "5", "--train-images", "21"), "20 images of 5 classes, and not 21 of 5"),
        (("--classes", "6", "--train-images", "20"), "20 images of 5 classes, and not 20 of 6"),
        (
            ("--classes", "5", "--train-images", "20", "--val-images", "8"),
            "val.unfinished: 7 images of 5 classes, and not 8 of 5",
        ),
    ],
)
def test_the_numbers_of_images_and_classes_are_checked(
    official: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(official / name) for name in ("train.tar", "val.tar", "devkit.tar.gz")]
    flags = [
        word for pair in zip(("--train", "--val", "--devkit"), names, strict=True) for word in pair
    ]
    assert main(["data", "imagenet", *flags, "--output", "made", *words]) == 2
    assert message in error_of(capsys)


def test_a_class_that_lacks_images_is_named(
    official: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = {f"{name}.tar": tar_of(images) for name, images in TRAIN.items()}
    archives["n01443537.tar"] = tar_of(dict([*TRAIN["n01443537"].items()][1:]))
    (official / "train.tar").write_bytes(tar_of(archives))
    assert sort_all(official) == 2
    assert "made/train.unfinished: 19 images" in (error := error_of(capsys))
    assert "; n01443537 has 3 of 4; the source may not be whole" in error
    shutil.rmtree("made")
    words = ("--classes", "5", "--train-images", "19", "--val-images", "7")
    assert sort_all(official, words) == 0


def damaged(name: str, num_bytes: int) -> Callable[[Path], None]:
    def cut(official: Path) -> None:
        content = (official / name).read_bytes()
        (official / name).write_bytes(content[: num_bytes or len(content) - 20_000])

    return cut


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda official: (official / name).write_bytes(content)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def train_with(*members: tarfile.TarInfo) -> bytes:
    """A training archive whose first class has members more."""
    archives = {f"{name}.tar": tar_of(images) for name, images in TRAIN.items()}
    name = CLASSES[0]
    archives[f"{name}.tar"] = tar_of(TRAIN[name], members)
    return tar_of(archives)


NAME = CLASSES[0]
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "train cut short": (damaged("train.tar", 0), "cannot be read (ReadError: unexpected end"),
    "val cut short": (damaged("val.tar", 3000), "cannot be read (ReadError: unexpected end"),
    "no archive": (replaced("train.tar", b"text" * 500), "cannot be read (ReadError"),
    "packed": (replaced("val.tar", tar_of(VAL, mode="w:gz")), "cannot be read (ReadError"),
    "out of the folder": (replaced("train.tar", train_with(member("../../out.JPEG"))), "../../out"),
    "absolute": (replaced("val.tar", tar_of(VAL, [member("/tmp/out.JPEG")])), "/tmp/out.JPEG: not"),
    "an archive out of the folder": (
        replaced("train.tar", tar_of({"../n01440764.tar": tar_of({})})),
        "../n01440764.tar: not what the official files hold",
    ),
    "a link": (
        replaced("train.tar", train_with(member(f"{NAME}_99.JPEG", tarfile.SYMTYPE, "/etc"))),
        f"{NAME}_99.JPEG: 0 bytes",
    ),
    "a hard link": (
        replaced(
            "train.tar", train_with(member(f"{NAME}_99.JPEG", tarfile.LNKTYPE, "/etc/passwd"))
        ),
        f"{NAME}_99.JPEG: 0 bytes",
    ),
    "a device": (
        replaced("train.tar", tar_of({}, [member(f"{NAME}.tar", tarfile.CHRTYPE)])),
        f"{NAME}.tar: not what the official files hold, a plain file",
    ),
    "another class's": (
        replaced("train.tar", tar_of({f"{NAME}.tar": tar_of(TRAIN[CLASSES[1]])})),
        f"such as {NAME}_10026.JPEG",
    ),
    "the validation's in training": (replaced("train.tar", tar_of(VAL)), "the archive of a class"),
    "one validation image too many": (
        replaced("val.tar", tar_of({**VAL, "ILSVRC2012_val_00000008.JPEG": b"x"})),
        "a validation image, the last of which is ILSVRC2012_val_00000007.JPEG",
    ),
    "an empty image": (
        replaced("val.tar", tar_of({**VAL, "ILSVRC2012_val_00000007.JPEG": b""})),
        "0 bytes, which no image of ImageNet has",
    ),
    "no kit": (replaced("devkit.tar.gz", b"text" * 500), "--devkit"),
    "a kit without its list": (
        replaced("devkit.tar.gz", tar_of({"data/meta.mat": devkit_files()["meta.mat"]})),
        "'ILSVRC2012_validation_ground_truth.txt' is not in it",
    ),
    "a kit of other numbers": (
        replaced("devkit.tar.gz", tar_of(devkit_files((3, 1, 9, 5, 2, 4, 3)))),
        "--devkit",
    ),
    "a kit with a damaged table": (
        replaced("devkit.tar.gz", tar_of({**devkit_files(), "meta.mat": b"MATLAB 5.0" * 40})),
        "--devkit",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_imagenets_is_refused_and_nothing_is_written_elsewhere(
    official: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = HOSTILE[case]
    spoil(official)
    before = {path for path in tmp_path.rglob("*") if "made" not in path.parts}
    assert sort_all(official) == 2
    assert message in error_of(capsys)
    assert {path for path in tmp_path.rglob("*") if "made" not in path.parts} == before
    assert not any(path.is_symlink() for path in Path("made").rglob("*"))
    assert not Path("made/val").exists()


@pytest.mark.parametrize("where", ["train.unfinished", f"train.unfinished/{NAME}"])
def test_a_link_in_the_output_is_not_written_through(
    official: Path, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path("made", where).parent.mkdir(parents=True)
    Path("made", where).symlink_to(tmp_path / "elsewhere")
    assert sort_all(official) == 2
    assert f"{where}: a link, which is not written through" in error_of(capsys)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_full_disk_is_told_before_and_when_it_comes(
    official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10_000))
        assert sort_all(official) == 2
    assert "0.0 GB are free, and the images need 0.0" in error_of(capsys)
    assert not Path("made").exists()
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name.endswith("_14.JPEG"):
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert sort_all(official) == 2
    assert "_14.JPEG: cannot be written (No space left on device)" in error_of(capsys)
    assert sort_all(official) == 0
    assert_made()


def test_two_at_a_time_are_kept_apart(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from softmax_gradient_tampering.files.lock import FolderLock; "
        "from pathlib import Path; lock = FolderLock(Path('made')); print(flush=True); "
        "sys.stdin.read(); lock.release()"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert sort_all(official) == 2
        assert "made: another program is at work in it" in error_of(capsys)
        other.communicate()
    assert sort_all(official) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither --train nor --val is given"),
        (("--val", "official/val.tar"), "--val needs --devkit"),
        (("--train", "nowhere.tar"), "--train nowhere.tar: no such file or folder"),
        (("--train", "official/val.tar", "--devkit", "x"), "--devkit x: no such file or folder"),
        (("--train", "official"), "devkit.tar.gz: not what the official files hold"),
    ],
)
def test_a_wrong_call_is_one_line(
    official: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "imagenet", *words, "--output", "made"]) == 2
    assert message in error_of(capsys)
    assert not Path("made/train").exists()
