"""Where a data set's training and validation images are, by the usual names of the two."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from softmax_gradient_tampering.data.folder.file_list import list_csv
from softmax_gradient_tampering.data.folder.listing import (
    Listing,
    folders_in,
    list_folder,
)
from softmax_gradient_tampering.errors import UserError, first_line

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("validation", "val", "valid", "eval", "evaluation")
SPLIT_NAMES = (*TRAIN_NAMES, *VAL_NAMES, "test", "testing")


class Source(NamedTuple):
    """The folder of a split, its CSV file, or both."""

    folder: Path | None
    csv: Path | None


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Turn what the system says of a folder, such as a name too long, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or first_line(error)}") from error


def names_of(split: str) -> tuple[str, ...]:
    """A split's name, and its other usual names."""
    for names in (TRAIN_NAMES, VAL_NAMES):
        if split in names:
            return (split, *(name for name in names if name != split))
    return (split,)


def find_split(root: Path, split: str) -> Source | None:
    """Find `root/split` or `root/split.csv`, under this or another usual name of the split.

    Args:
        root: where the splits are.
        split: name of the folder, or of the CSV file with its ending.

    Raises:
        OSError: root cannot be looked into.
    """
    if split.lower().endswith(".csv") and (root / split).is_file():
        folder = (root / split).with_suffix("")
        return Source(folder if folder.is_dir() else None, root / split)
    for name in names_of(split):
        folder, csv = root / name, root / f"{name}.csv"
        if folder.is_dir() or csv.is_file():
            return Source(folder if folder.is_dir() else None, csv if csv.is_file() else None)
    return None


def list_split(source: Source, split: str) -> Listing:
    """List the images of a split; where there are both, its class folders count.

    Raises:
        OSError: it cannot be listed.
    """
    folder, csv = source
    if csv is None or (folder and csv.name != split and folders_in(folder)):
        assert folder is not None
        listing = list_folder(folder)
        if csv is not None:
            flag = "--train-split" if split in TRAIN_NAMES else "--val-split"
            listing.remarks.append(
                f"{csv.name} is not read, for there are class folders; {flag} {csv.name} reads it"
            )
        return listing
    return list_csv(csv, folder)
