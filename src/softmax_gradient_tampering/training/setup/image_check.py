"""The image files of a run, checked before it begins: bad ones stop it or are left out.

The check is needed where a bad file cannot be dealt with later: DALI ends at the first one, and
leaving one out in the middle of a run would change the batches after it.
"""

import csv
import hashlib
import io
import os
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from softmax_gradient_tampering.data.factory import SampleDataset
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.inspection.images import Inspection, inspect_images
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.whole import write_whole
from softmax_gradient_tampering.terminal.progress import track
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import Processes

Inspections = dict[str, Inspection]

_NUM_NAMED = 3
_SIGN_OF_LIFE_S = 60.0  # so that the other processes do not give process 0 up
_COLUMNS = ("path", "num_bytes", "mtime_ns", "height", "width", "kind", "problem")


def check_image_files(
    config: Config, processes: Processes, dataset: SampleDataset, formats: Collection[str] = ()
) -> Inspections:
    """Check every file of a data set, and leave out the bad ones, or stop.

    Process 0 looks at the files, for all processes to see the same list. What it finds of their
    content is kept in the output folder, and a file of the same size and time is not looked at
    again. A file that could not be opened is looked at again: the cause may have been passing.

    Args:
        config: on_bad_image says what is done about a bad file.
        processes: of the run.
        dataset: an image folder; loses its bad files.
        formats: those that can be decoded, as PIL calls them; empty for all that PIL reads.

    Returns:
        What was found of each remaining file, by path.

    Raises:
        UserError: there are bad files and on_bad_image is stop, or no good ones.
    """
    if dataset.files is None:
        raise UserError(
            f"{dataset.name}: --on-bad-image skip needs images in folders, --data_dir alone"
        )
    paths = [path for split in dataset.files for path in split.paths]
    found = dict(zip(paths, _inspect(config, processes, paths), strict=True))
    problems = {path: _problem(found[path], formats) for path in paths}
    bad = [path for path in paths if problems[path]]
    if bad and config.on_bad_image == "stop":
        raise _bad_files(config, [f"{path}: {problems[path]}" for path in bad])
    for path in bad if processes.is_first else ():
        warnings.warn(f"left out: {path}: {problems[path]}", stacklevel=2)
    train, val = (_good(split, problems) for split in dataset.files)
    if not train or not val:
        raise UserError(f"{dataset.name}: no image can be read in {'val' if train else 'train'}")
    dataset.keep_files(train, val)
    return {path: found[path] for path in paths if not problems[path]}


def _bad_files(config: Config, found: Sequence[str]) -> UserError:
    named = "; ".join(found[:_NUM_NAMED]) + ("; ..." if len(found) > _NUM_NAMED else "")
    return UserError(
        f"{len(found)} bad image files ({named}); repair or remove them (sgt data check "
        f"{config.data_dir} lists all), or leave them out with --on-bad-image skip"
    )


def _problem(inspection: Inspection, formats: Collection[str]) -> str:
    if inspection.problem or not formats or inspection.kind in formats:
        return inspection.problem
    return f"{inspection.kind}, which DALI does not decode"


def _good(split: LabelledFiles, problems: dict[str, str]) -> LabelledFiles:
    return split.take([index for index, path in enumerate(split.paths) if not problems[path]])


def _inspect(config: Config, processes: Processes, paths: Sequence[str]) -> list[Inspection]:
    """Process 0's inspections, in every process."""
    found: list[Inspection] = []
    is_done = False
    if not processes.is_first:
        while not is_done:
            is_done, found = processes.from_first((False, found))
        return found
    cache = _cache_path(config)
    known = _read_cache(cache)
    num_threads = len(os.sched_getaffinity(0))
    last_sign = time.monotonic()
    for inspection in track(
        inspect_images(paths, num_threads, known), len(paths), "Checking images"
    ):
        found.append(inspection)
        if time.monotonic() - last_sign > _SIGN_OF_LIFE_S:
            processes.from_first((False, []))
            last_sign = time.monotonic()
    lasting = {path: entry for path, entry in zip(paths, found, strict=True) if entry.lasts}
    writes = not (config.validate or config.dry_run)
    if writes and known | lasting != known:
        _write_cache(cache, known | lasting)
    processes.from_first((True, found))
    return found


def _cache_path(config: Config) -> Path:
    """Beside the run folders, for all runs of one data folder."""
    root = str(Path(config.data_dir or "").expanduser().resolve())
    name = hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()[:16]
    return Path(config.output or "output/train") / ".image-checks" / f"{name}.csv"


def _read_cache(path: Path) -> Inspections:
    """Earlier inspections; none where the file is missing or damaged."""
    try:
        text = read_record(path, errors="surrogateescape")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return {
            row["path"]: Inspection(
                int(row["num_bytes"]),
                int(row["mtime_ns"]),
                int(row["height"]),
                int(row["width"]),
                row["kind"],
                row["problem"],
            )
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return {}


def _write_cache(path: Path, inspections: Inspections) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    # Sorted: two runs that check the same files write the same bytes.
    for file, found in sorted(inspections.items()):
        writer.writerow((file, *found[:6]))
    content = buffer.getvalue().encode(errors="surrogateescape")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(content))
    except (OSError, UserError) as error:
        warnings.warn(f"{path}: not kept, the next run checks anew ({error})", stacklevel=2)
