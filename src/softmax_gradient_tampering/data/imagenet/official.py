"""From the official files of ILSVRC2012 to a folder that can be trained on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softmax_gradient_tampering.data.imagenet.devkit import Devkit, read_devkit
from softmax_gradient_tampering.data.imagenet.layout import Expected, Split, make_split
from softmax_gradient_tampering.data.imagenet.sources import train_images, val_images
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.lock import FolderLock

Progress = Callable[[str, int, int], object]  # split, images done, images in all


@dataclass(frozen=True)
class OfficialFiles:
    """The official files, archives as downloaded or folders that they unpack to.

    Attributes:
        train: ILSVRC2012_img_train.tar; None to leave training alone.
        val: ILSVRC2012_img_val.tar; None to leave validation alone.
        devkit: ILSVRC2012_devkit_t12.tar.gz; needed for validation.
    """

    train: Path | None
    val: Path | None
    devkit: Path | None


@dataclass(frozen=True)
class Counts:
    """What is to be found in the files."""

    classes: int = 1000
    train: int = 1_281_167
    val: int = 50_000


def sort_imagenet(
    files: OfficialFiles, output: Path, counts: Counts, progress: Progress
) -> list[str]:
    """Make `output/train` and `output/val` of the official files; goes on where it was.

    Args:
        files: what there is.
        output: holds the two splits in the end; nothing else is written to.
        counts: what the splits must hold.
        progress: told of every image.

    Returns:
        A line on each split.

    Raises:
        UserError: a file is missing, damaged or another one, the disk is full, or the numbers
            of images or classes are not as they must be.
    """
    if files.train is None and files.val is None:
        raise UserError("neither --train nor --val is given: there is nothing to sort")
    if files.val is not None and files.devkit is None:
        raise UserError("--val needs --devkit, which tells the class of every validation image")
    for flag, path in (("--train", files.train), ("--val", files.val), ("--devkit", files.devkit)):
        if path is not None and not (path.is_file() or path.is_dir()):
            raise UserError(f"{flag} {path}: no such file or folder")
    devkit = Devkit((), {}) if files.devkit is None else read_devkit(files.devkit)
    lock = FolderLock(output)
    try:
        lines = []
        if files.train is not None:
            expected = Expected(counts.classes, counts.train, devkit.num_train)
            split = Split(files.train, train_images(files.train), output / "train", expected)
            lines.append(_sort(split, progress))
        if files.val is not None:
            expected = Expected(counts.classes, counts.val, Counter(devkit.classes))
            split = Split(files.val, val_images(files.val, devkit), output / "val", expected)
            lines.append(_sort(split, progress))
    finally:
        lock.release()
    return lines


def _sort(split: Split, progress: Progress) -> str:
    name, expected = split.folder.name, split.expected
    is_new = make_split(split, lambda number: progress(name, number, expected.num_images))
    what = f"{expected.num_images:,} images of {expected.num_classes:,} classes"
    return f"{split.folder}: {what}{'' if is_new else ', as before'}"
