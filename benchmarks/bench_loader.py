"""Loading photos for training at 224x224: DALI against timm's loader, on a CPU.

Images/s from the files of DIR/train/<class>/ to normalised float batches, no model. All
crop at random, resize and flip, without color jitter; timm's loader and the program's have
two worker processes, DALI two threads. The batches are channels_last, the program's default,
but timm's, which are as its loader gives them. The files come from the disk cache. The seconds
are those of the CPU, user and system time of the loader and its workers, with other programs
beside them; with --wall those of the clock, for a quiet machine.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader

from softmax_gradient_tampering.data.dali.loaders import DaliDataset
from softmax_gradient_tampering.data.factory import SampleDataset, open_dataset
from softmax_gradient_tampering.data.inspection.images import inspect_images
from softmax_gradient_tampering.data.loader import Loader
from softmax_gradient_tampering.data.options import DataOptions
from timer import (
    Row,
    interleave,
    percentiles,
    print_bound,
    print_table,
    report_progress,
    seconds_of_tree,
    stamp,
    write_csv,
)

SIZE, BATCH_SIZE, NUM_WORKERS = 224, 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# timm's resizing is antialiased; the published DALI loader's was not, and ours is as asked.
DALI, SMOOTH_DALI, WORKERS, TIMM = "dali", "dali, antialias", "workers", "timm, workers"
BOUNDS = {DALI: 1.6, WORKERS: 1.0}


def open_photos(folder: Path, num_images: int) -> tuple[SampleDataset, dict[str, Any], int]:
    """The photos, inspected, their list repeated to at least num_images."""
    dataset = open_dataset(str(folder))
    if not isinstance(dataset, SampleDataset) or dataset.files is None:
        raise SystemExit(f"{folder}: not a folder of images")
    train, val = dataset.files
    paths = [*train.paths, *val.paths]
    inspections = dict(zip(paths, inspect_images(paths, NUM_WORKERS), strict=True))
    repeats = math.ceil(num_images / len(train))
    dataset.keep_files(train.take(list(range(len(train))) * repeats), val)
    return dataset, inspections, repeats


def timm_batches(folder: Path, repeats: int) -> Iterator[Any]:
    """timm's own loader, as its training script makes it."""
    dataset = create_dataset("", root=str(folder), split="train")
    dataset.reader.samples = dataset.reader.samples * repeats
    return create_loader(
        dataset,
        (3, SIZE, SIZE),
        BATCH_SIZE,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        device=torch.device("cpu"),
    )


def epochs(loader: Loader) -> Iterator[int]:
    """Load an epoch a time."""
    epoch = 0
    while True:
        yield sum(len(batch.labels) for batch in loader.epoch(epoch))
        epoch += 1


def timm_epochs(loader: Any) -> Iterator[int]:
    while True:
        yield sum(len(labels) for _, labels in loader)


def measure(folder: Path, num_turns: int, num_images: int, clock: Callable[[], float]) -> list[Row]:
    """Rows of images/s by loader, and the ratios to timm's."""
    dataset, inspections, repeats = open_photos(folder, num_images)
    options = DataOptions(
        device=torch.device("cpu"),
        seed=0,
        batch_size=BATCH_SIZE,
        eval_batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        input_size=(3, SIZE, SIZE),
        mean=MEAN,
        std=STD,
        interpolation="bilinear",
        train_interpolation="bilinear",
        color_jitter=0.0,
        crop_pct=0.875,
        channels_last=True,
    )
    loaders = {
        DALI: DaliDataset(dataset, inspections).train_loader(options),
        SMOOTH_DALI: DaliDataset(dataset, inspections, antialias=True).train_loader(options),
        WORKERS: dataset.train_loader(options),
    }
    runs = {name: epochs(loader) for name, loader in loaders.items()}
    runs[TIMM] = timm_epochs(timm_batches(folder, repeats))
    num_loaded = {name: next(run) for name, run in runs.items()}
    if len(set(num_loaded.values())) > 1:
        raise SystemExit(f"the loaders give unlike numbers of images: {num_loaded}")
    steps = {name: run.__next__ for name, run in runs.items()}
    seconds = interleave(steps, num_turns, torch.device("cpu"), "photos", clock=clock)
    return rate_rows(seconds, num_loaded[TIMM])


def rate_rows(seconds: dict[str, list[float]], num_images: int) -> list[Row]:
    """Images/s of every loader, and its median ratio to timm's within a turn."""
    subject = f"photos {SIZE}x{SIZE}"
    rows = []
    for name, values in seconds.items():
        rates = percentiles([num_images / value for value in values])
        rows.append(Row("loader", subject, name, "throughput", "images/s", **rates))
    for name in (DALI, SMOOTH_DALI, WORKERS):
        ratios = [b / a for a, b in zip(seconds[name], seconds[TIMM], strict=True)]
        row = Row("loader", subject, name, "relative throughput", "1", **percentiles(ratios))
        row.ratio_to, row.ratio = TIMM, row.p50
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="photos in DIR/train and DIR/val")
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="turns (default: 9)")
    parser.add_argument(
        "--images", type=int, default=500, metavar="N", help="images of a turn (default: 500)"
    )
    parser.add_argument("--wall", action="store_true", help="seconds of the clock, not the CPU's")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-loader.csv"
    )
    args = parser.parse_args()

    report_progress("setting up")
    clock = time.perf_counter if args.wall else seconds_of_tree
    rows = measure(args.folder, args.turns, args.images, clock)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    for row in rows:
        if row.ratio and row.variant in BOUNDS:
            what = f"{row.variant} / {TIMM}"
            print_bound(what, float(row.ratio), at_least=BOUNDS[row.variant])
    if args.save:
        print(write_csv(rows, "loader"))


if __name__ == "__main__":
    main()
