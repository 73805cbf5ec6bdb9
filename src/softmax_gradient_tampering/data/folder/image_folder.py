"""Image folders, `root/split/class/image`, and CSV files in their place: opened for training."""

import warnings
from pathlib import Path
from typing import NamedTuple

from softmax_gradient_tampering.data.folder.faults import find_faults, remarks_on
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.folder.listing import Listing, is_archive
from softmax_gradient_tampering.data.folder.nearest import nearest_layout
from softmax_gradient_tampering.data.folder.splits import (
    TRAIN_NAMES,
    find_split,
    list_split,
    names_of,
    opening,
)
from softmax_gradient_tampering.errors import UserError


class OpenedFolder(NamedTuple):
    """The images of both splits, and those among them that are links to what is not there."""

    train: LabelledFiles
    val: LabelledFiles
    absent: list[str]


def open_folder(root: Path, train_split: str, val_split: str) -> OpenedFolder:
    """Open the two splits of an image folder with one class map, that of training.

    What a user should know of how they were read is warned of.

    Args:
        root: folder of the splits.
        train_split: name of the training split's folder, or of its CSV file.
        val_split: name of the validation split's.

    Raises:
        UserError: a split is missing, or cannot be trained on: `find_faults` says why.
    """
    train, val = (_list(root, split) for split in (train_split, val_split))
    faults = find_faults(root, train, val)
    if faults:
        more = f" (and {len(faults) - 1} more faults: sgt data check {root} names all)"
        raise UserError(f"{faults[0].path}: {faults[0].what}{more * (len(faults) > 1)}")
    for listing in (train, val):
        for remark in remarks_on(listing):
            warnings.warn(f"{listing.source}: {remark}", stacklevel=2)
    files = train.label(train.names), val.label(train.names)
    return OpenedFolder(*files, [*train.absent, *val.absent])


def _list(root: Path, split: str) -> Listing:
    with opening(f"--data_dir {root}"):
        if not root.is_dir():
            raise UserError(
                f"--data_dir {root}: no such folder; give one that holds train/ and val/"
            )
        source = find_split(root, split)
        if source is not None:
            return list_split(source, split)
        folders = sorted(path.name for path in root.iterdir() if path.is_dir())
        archives = sorted(path.name for path in root.iterdir() if is_archive(path.name))
    near = nearest_layout(root)
    flag = "--train-split" if split in TRAIN_NAMES else "--val-split"
    way = f"{near} would work" if near else f"name the right one with {flag}"
    if archives and not near:
        way = "unpack the archives; sgt data imagenet does so with ImageNet's"
    found = ", ".join([*folders, *archives][:8])
    raise UserError(
        f"--data_dir {root}: no folder {' or '.join(names_of(split))} in it, and no such .csv "
        f"(it holds {found or 'no folders'}); {way}"
    )
