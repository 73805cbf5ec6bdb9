"""A tree of image files, looked through: bad files, class counts, duplicates between splits."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from timm.data.readers.img_extensions import get_img_extensions

from softmax_gradient_tampering.data.folder.tree import (
    SYNONYMS,
    empty_classes,
    opening,
    walk_folders,
)
from softmax_gradient_tampering.data.inspection.images import Inspection, inspect_images
from softmax_gradient_tampering.errors import UserError


class Finding(NamedTuple):
    """A file, relative to the tree's root, and what is to be said of it."""

    file: str
    what: str


class Duplicate(NamedTuple):
    """Two files of the same bytes, relative to the tree's root."""

    train: str
    val: str


@dataclass
class Split:
    """One split of a tree.

    Attributes:
        name: train or val; images for a tree without splits.
        folder: where it is.
        files: its image files, by their names.
        classes: readable images of every class.
        passed_over: files that the loaders do not take for images, by the ends of their names.
    """

    name: str
    folder: Path
    files: list[str] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass
class Report:
    """What was found in a tree.

    Attributes:
        root: the tree.
        splits: its splits.
        bad: files that cannot be trained on, folders that cannot be listed, and links and
            classes that training refuses.
        notes: images that can be read but are unusual.
        duplicates: images that are in training and in validation.
    """

    root: Path
    splits: list[Split]
    bad: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.bad and not self.duplicates


def find_files(root: Path) -> Report:
    """List the splits of a tree and their files, without opening any.

    Raises:
        UserError: root is no folder, cannot be looked into, or holds no image.
    """
    with opening(str(root)):
        report = Report(root, _find_splits(root))
    for split in report.splits:
        _list_files(report, split)
    _check_classes(report)
    if not any(split.files for split in report.splits):
        endings = ", ".join(get_img_extensions())
        raise UserError(f"{root}: no images in it, files that end in {endings}")
    return report


def check_files(
    report: Report,
    num_workers: int,
    track: Callable[[Iterable[Inspection], int], Iterable[Inspection]] = lambda found, _: found,
) -> None:
    """Decode and hash every file of a report, and add what is found to it.

    Args:
        report: of find_files.
        num_workers: threads.
        track: wraps the inspections and their number, for a progress bar.
    """
    files = [(split, file) for split in report.splits for file in split.files]
    paths = [str(report.root / file) for _, file in files]
    digests: dict[str, dict[str, str]] = {split.name: {} for split in report.splits}
    inspections = track(inspect_images(paths, num_workers, with_digest=True), len(paths))
    for (split, file), found in zip(files, inspections, strict=True):
        if found.problem:
            report.bad.append(Finding(file, found.problem))
            continue
        split.classes[_class_of(report, split, file)] += 1
        report.notes += [Finding(file, note) for note in found.notes]
        digests[split.name].setdefault(found.digest, file)
        if split.name == "val" and found.digest in digests.get("train", {}):
            report.duplicates.append(Duplicate(digests["train"][found.digest], file))


def _find_splits(root: Path) -> list[Split]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    splits = []
    for name, synonyms in zip(("train", "val"), SYNONYMS, strict=True):
        folders = [root / synonym for synonym in synonyms if (root / synonym).is_dir()]
        splits += [Split(name, folder) for folder in folders[:1]]
    return splits or [Split("images", root)]


def _list_files(report: Report, split: Split) -> None:
    endings = get_img_extensions(as_set=True)

    def cannot_be_listed(error: OSError) -> None:
        folder = os.path.relpath(error.filename, report.root)
        report.bad.append(Finding(folder, f"cannot be listed: {error.strerror}"))

    def goes_round(folder: str) -> None:
        what = "a link to a folder above it, which training refuses"
        report.bad.append(Finding(os.path.relpath(folder, report.root), what))

    for folder, names in walk_folders(split.folder, cannot_be_listed, goes_round):
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in endings:
                split.files.append(os.path.relpath(path, report.root))
            else:
                split.passed_over[path.suffix.lower() or name] += 1
    split.files.sort()


def _check_classes(report: Report) -> None:
    """Find the classes that training refuses: without an image, or in validation alone."""
    train, *others = report.splits
    if train.name == "val":
        return
    with opening(str(train.folder)):
        empty = empty_classes(train.folder)
    folder = os.path.relpath(train.folder, report.root)
    for name in empty:
        report.bad.append(
            Finding(str(Path(folder, name)), "a class without an image, which training refuses")
        )
    known = _labels(report, train)
    for split in others:
        for name in sorted(_labels(report, split) - known):
            found = f"class {name}, which is not in {train.name}; training refuses it"
            report.bad.append(Finding(os.path.relpath(split.folder, report.root), found))


def _labels(report: Report, split: Split) -> set[str]:
    """The classes as the loaders name them: by the last folder alone."""
    return {Path(_class_of(report, split, file)).name for file in split.files}


def _class_of(report: Report, split: Split, file: str) -> str:
    return os.path.relpath((report.root / file).parent, split.folder)
