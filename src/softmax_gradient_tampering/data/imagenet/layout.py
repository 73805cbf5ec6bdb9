"""The folders of classes that training reads, made of ImageNet's images."""

import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from softmax_gradient_tampering.data.folder.listing import list_folder
from softmax_gradient_tampering.data.imagenet.sources import SourceImage
from softmax_gradient_tampering.errors import UserError, first_line

_NUM_NAMED = 3
# A file of our own making: what somebody has put at the temporary name is not written through.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass(frozen=True)
class Expected:
    """What a split must hold in the end.

    Attributes:
        num_classes: classes.
        num_images: images.
        of_class: images of every class, to name those that lack some; may be empty.
    """

    num_classes: int
    num_images: int
    of_class: dict[str, int]


@dataclass(frozen=True)
class Split:
    """A split that is to be made.

    Attributes:
        source: where its images come from.
        images: the images, as they come.
        folder: where they go, a folder for every class.
        expected: what it must hold in the end.
    """

    source: Path
    images: Iterator[SourceImage]
    folder: Path
    expected: Expected


def make_split(split: Split, report: Callable[[int], object]) -> bool:
    """Sort the images of a split into its folder; returns False where that was done before.

    They are collected in `<folder>.unfinished`, which is renamed when all are there, so that
    what an interruption leaves is not taken for a data set. A file that is there already, of the
    right size, is not written again.

    Args:
        split: what is to be made.
        report: told how many images are done.

    Raises:
        UserError: an image cannot be read or written, or their numbers are not as expected.
    """
    source, folder = split.source, split.folder
    if folder.exists():
        _check_counts(folder, split.expected)
        return False
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    if source.is_file() and not unfinished.exists():
        _check_space(folder.parent, source.stat().st_size)
    class_folders: dict[str, Path] = {}
    try:
        for number, image in enumerate(split.images, start=1):
            name = image.class_name
            if name not in class_folders:
                class_folders[name] = _make_folder(_make_folder(unfinished) / name)
            _place(image, class_folders[name])
            report(number)
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{source}: cannot be read ({reason}); compare its size with that of the download"
        ) from error
    _check_counts(_make_folder(unfinished), split.expected)
    with _writing(folder):
        os.sync()  # once for all files: what is renamed is whole after a power cut, too
        unfinished.rename(folder)
    return True


def _place(image: SourceImage, folder: Path) -> None:
    """Put an image into its folder: a hard link to a file, where that can be, or a copy."""
    target = folder / image.name
    temporary = folder / f".{image.name}.tmp"
    with _writing(target):
        if _has_size(target, image.num_bytes):
            return
        temporary.unlink(missing_ok=True)
        if _link(image, temporary):
            temporary.replace(target)
            return
    with image.open() as file:
        content = file.read()
    with _writing(target):
        with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as copy:
            copy.write(content)
        temporary.replace(target)


def _link(image: SourceImage, path: Path) -> bool:
    if image.path is None or image.path.is_symlink():
        return False
    try:
        path.hardlink_to(image.path)
    except OSError:  # another file system, or one without links
        return False
    return True


def _has_size(path: Path, num_bytes: int) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == num_bytes


def _make_folder(path: Path) -> Path:
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise UserError(f"{path}: a link, which is not written through; remove it")
    return path


def _check_space(folder: Path, num_bytes: int) -> None:
    with _writing(folder):
        free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UserError(
            f"--output {folder}: {free / 1e9:,.1f} GB are free, and the images need "
            f"{num_bytes / 1e9:,.1f}; make room, or choose another folder"
        )


def _check_counts(folder: Path, expected: Expected) -> None:
    """Compare what a folder holds, as training would list it, with what it must."""
    with _writing(folder):
        listing = list_folder(folder)
    found = {name: len(files) for name, files in listing.classes.items()}
    if (len(found), listing.num_files) == (expected.num_classes, expected.num_images):
        return
    short = [
        f"{name} has {found.get(name, 0):,} of {number:,}"
        for name, number in sorted(expected.of_class.items())
        if found.get(name, 0) != number
    ]
    named = "".join(f"; {line}" for line in short[:_NUM_NAMED])
    flags = f"--classes and --{folder.name.split('.')[0]}-images"
    raise UserError(
        f"{folder}: {listing.num_files:,} images of {len(found):,} classes, and not "
        f"{expected.num_images:,} of {expected.num_classes:,}{named}; the source may not be "
        f"whole; {flags} tell of other numbers, for a part of ImageNet"
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a disk reports into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or first_line(error)}); the same command "
            "goes on where it was"
        ) from error
