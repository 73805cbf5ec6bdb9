"""The nearest layout that could be trained on, for the message that refuses another."""

import os
from itertools import islice
from pathlib import Path

from softmax_gradient_tampering.data.folder.listing import folders_in, is_image
from softmax_gradient_tampering.data.folder.splits import SPLIT_NAMES, find_split

_NUM_LOOKED_AT = 30  # folders or files of a folder, for the answer to come at once


def nearest_layout(root: Path) -> str:
    """Flags that would work: of a data set near `root`, or of folders deeper in its splits.

    Empty where none is found.
    """
    splits = _splits(root)
    if splits is not None:
        train, val = (_descend(split) for split in splits)
        if train and val:
            names = (os.path.relpath(folder, root) for folder in (train, val))
            return "--train-split {} --val-split {}".format(*names)
    below = folders_in(root)[:_NUM_LOOKED_AT]
    two_below = [inner for folder in below for inner in folders_in(folder)[:_NUM_LOOKED_AT]]
    for candidate in (root.absolute().parent, *below, *two_below):
        splits = _splits(candidate)
        if splits is not None and all(map(_holds_classes, splits)):
            return f"--data_dir {candidate}"
    return ""


def _splits(root: Path) -> tuple[Path, Path] | None:
    """The folders of the two splits in `root`."""
    try:
        sources = (find_split(root, "train"), find_split(root, "validation"))
    except OSError:
        return None
    train, val = (source.folder if source else None for source in sources)
    return (train, val) if train and val else None


def _descend(folder: Path) -> Path | None:
    """The folder itself if it holds class folders, else the one folder in it that does."""
    if _holds_classes(folder):
        return folder
    found = [inner for inner in folders_in(folder)[:_NUM_LOOKED_AT] if _holds_classes(inner)]
    return found[0] if len(found) == 1 else None


def _holds_classes(folder: Path) -> bool:
    """Whether two folders or more in it hold images, and none of them is called a split."""
    folders = folders_in(folder)[:_NUM_LOOKED_AT]
    if any(inner.name.lower() in SPLIT_NAMES for inner in folders):
        return False
    return len(list(islice(filter(_holds_images, folders), 2))) == 2


def _holds_images(folder: Path, depth: int = 2) -> bool:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _NUM_LOOKED_AT)]
    except OSError:
        return False
    inner = folders_in(folder)[:_NUM_LOOKED_AT] if depth > 1 else []
    return any(map(is_image, names)) or any(_holds_images(path, depth - 1) for path in inner)
