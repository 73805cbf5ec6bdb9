"""CSV files of `path,label`: a split whose images may lie in any folders."""

import csv
import io
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from softmax_gradient_tampering.data.folder.listing import Finding, Listing, is_image, natural_key
from softmax_gradient_tampering.files.text import read_text

MAX_BYTES = 2**30  # some ten million rows
_NUM_NAMED = 3


class _Row(NamedTuple):
    line: int
    path: str
    label: str


def list_csv(source: Path, split_folder: Path | None = None) -> Listing:
    """List a split that a CSV file names, its label being the class.

    The first line names the columns, `path` and `label` among them; without it there are these
    two alone. The paths are relative to the CSV's folder, or to the folder of the same split
    where the first image lies there.

    Args:
        source: the file.
        split_folder: the folder of the same split, where there is one.

    Raises:
        OSError: the file cannot be read.
    """
    listing = Listing(source, source.parent)
    try:
        rows = list(_read_rows(source))
    except (ValueError, csv.Error) as error:  # of the encoding, too
        listing.faults.append(Finding(str(source), str(error)))
        return listing
    is_there = _finder()
    if split_folder and rows and not is_there(listing.path(rows[0].path)):
        first = str(Path(split_folder, rows[0].path))
        listing.folder = split_folder if is_there(first) else source.parent
    _sort_into_classes(listing, rows)
    missing = [row for row in rows if not is_there(listing.path(row.path))]
    if missing:
        named = ", ".join(f"{row.path} (line {row.line})" for row in missing[:_NUM_NAMED])
        what = (
            f"{len(missing):,} of {len(rows):,} files that it names are missing or not plain "
            f"files in {listing.folder}: {named}{', ...' * (len(missing) > _NUM_NAMED)}"
        )
        listing.faults.append(Finding(str(source), what))
    return listing


def _sort_into_classes(listing: Listing, rows: list[_Row]) -> None:
    first: dict[str, _Row] = {}
    num_again = 0
    for row in rows:
        known = first.setdefault(row.path, row)
        if known.label != row.label:
            what = (
                f"line {row.line}: {row.path} is of class {row.label}, and of class {known.label} "
                f"in line {known.line}; remove the wrong one"
            )
            listing.faults.append(Finding(str(listing.source), what))
        num_again += known is not row
        listing.classes.setdefault(row.label, []).append(row.path)
    for files in listing.classes.values():
        files.sort(key=lambda file: (natural_key(file), file))
    if num_again:
        listing.remarks.append(f"{num_again:,} lines name a file again; it counts every time")


def _read_rows(source: Path) -> Iterator[_Row]:
    """The rows of a CSV file; ValueError where it is not such a one."""
    text = read_text(source, MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = next(reader, [])
    names = [name.strip().lower() for name in first]
    if "path" in names and "label" in names:
        columns = names.index("path"), names.index("label")
    elif len(first) == 2 and is_image(first[0].strip()):
        columns = 0, 1
        yield _row(1, first, columns)
    else:
        raise ValueError(
            f"its first line is {','.join(first)!r:.80}; it must name the columns, path and label "
            "among them, with commas between"
        )
    for values in reader:
        if len(values) != len(first) and values:
            raise ValueError(
                f"line {reader.line_num}: {len(values)} values, and {len(first)} in the first"
            )
        if values:
            yield _row(reader.line_num, values, columns)


def _row(line: int, values: list[str], columns: tuple[int, int]) -> _Row:
    path, label = (values[column].strip() for column in columns)
    if not path or not label:
        raise ValueError(f"line {line}: without a {'label' if path else 'path'}")
    return _Row(line, path, label)


def _finder() -> Callable[[str], bool]:
    """Tells whether a path is a file's; each folder is looked into once."""

    @cache
    def files_in(folder: str) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                return frozenset(entry.name for entry in entries if entry.is_file())
        except (OSError, ValueError):  # ValueError: a name with a null byte
            return frozenset()

    def is_there(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in files_in(folder or "/")

    return is_there
