"""A tree of image files, looked through: bad files, class counts, duplicates between splits."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from softmax_gradient_tampering.data.folder.faults import find_faults
from softmax_gradient_tampering.data.folder.listing import ENDINGS, Listing, list_folder
from softmax_gradient_tampering.data.folder.splits import (
    find_split,
    list_split,
    names_of,
    opening,
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
        listing: its image files, as training lists them.
        classes: readable images of every class.
    """

    name: str
    listing: Listing
    classes: Counter[str] = field(default_factory=Counter)


@dataclass
class Report:
    """What was found in a tree.

    Attributes:
        root: the tree.
        splits: its splits.
        bad: why training refuses the tree, and files that cannot be trained on.
        notes: images that can be read but are unusual, and how the tree was read.
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

    @property
    def num_files(self) -> int:
        return sum(split.listing.num_files for split in self.splits)


def find_files(root: Path, train_split: str = "train", val_split: str = "validation") -> Report:
    """List the splits of a tree and their files, without opening any.

    Args:
        root: holds the splits, or is one tree of classes.
        train_split: name of the training split.
        val_split: name of the validation split.

    Raises:
        UserError: root is no folder, cannot be looked into, or holds no image.
    """
    with opening(str(root)):
        report = Report(root, _list_splits(root, train_split, val_split))
    listings = [split.listing for split in report.splits]
    if not any(listing.num_files or listing.loose or listing.faults for listing in listings):
        raise UserError(f"{root}: no images in it, files that end in {', '.join(ENDINGS)}")
    of_name = {split.name: split.listing for split in report.splits}
    train = of_name.get("train", of_name.get("images"))
    for path, what in find_faults(root, train, of_name.get("val")):
        report.bad.append(Finding(os.path.relpath(path, root), what))
    for name, asked in (("train", train_split), ("val", val_split)):
        if name not in of_name and "images" not in of_name:
            what = f"no folder {' or '.join(names_of(asked))} in it, which training needs"
            report.bad.append(Finding(".", what))
    for split in report.splits:
        report.notes += [Finding(split.name, remark) for remark in split.listing.remarks]
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
    files = [
        (split, name, split.listing.path(file))
        for split in report.splits
        for name, of_class in split.listing.classes.items()
        for file in of_class
    ]
    digests: dict[str, dict[str, str]] = {split.name: {} for split in report.splits}
    paths = [path for _, _, path in files]
    inspections = track(inspect_images(paths, num_workers, with_digest=True), len(paths))
    for (split, name, path), found in zip(files, inspections, strict=True):
        file = os.path.relpath(path, report.root)
        if found.problem:
            report.bad.append(Finding(file, found.problem))
            continue
        split.classes[name] += 1
        report.notes += [Finding(file, note) for note in found.notes]
        digests[split.name].setdefault(found.digest, file)
        if split.name == "val" and found.digest in digests.get("train", {}):
            report.duplicates.append(Duplicate(digests["train"][found.digest], file))


def _list_splits(root: Path, train_split: str, val_split: str) -> list[Split]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    splits = []
    for name, asked in (("train", train_split), ("val", val_split)):
        source = find_split(root, asked)
        if source is not None:
            splits.append(Split(name, list_split(source, asked)))
    splits = splits or [Split("images", list_folder(root))]
    for split in splits:
        split.classes.update(dict.fromkeys(split.listing.names, 0))
    return splits
