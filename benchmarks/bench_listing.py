"""How long it takes to list a folder of many images, and how much memory a run has by then.

The folder has hard links to one image of each class, named as ImageNet's. Every figure is of a
fresh interpreter: listing and labelling both splits, beside torchvision's ImageFolder on the
same folders, in turns; and a run of resnet18 up to its first batch, whose highest memory is
compared with that after the imports. The folder's entries come from the disk cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from timer import (
    Row,
    percentiles,
    print_bound,
    print_table,
    report_progress,
    stamp,
    write_csv,
)

OURS, TORCHVISION, MEMORY = "program", "torchvision ImageFolder", "run of resnet18"
MAX_SECONDS, MAX_MB = 1.0, 100.0
NUM_CLASSES, NUM_VAL = 100, 200
TIMED = """
import json, sys, time
{imports}
root = sys.argv[1]
start, start_cpu = time.perf_counter(), time.process_time()
{work}
print(json.dumps([time.perf_counter() - start, time.process_time() - start_cpu]))
"""
LISTINGS = {
    OURS: TIMED.format(
        imports="from softmax_gradient_tampering.data.factory import open_dataset",
        work="open_dataset(root)",
    ),
    TORCHVISION: TIMED.format(
        imports="from torchvision.datasets import ImageFolder",
        work="ImageFolder(f'{root}/train'), ImageFolder(f'{root}/val')",
    ),
}
TO_THE_FIRST_BATCH = """
import json, os, resource, sys
from softmax_gradient_tampering.data.folder.loaders import SampleTrainLoader
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.run import run

def highest():
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

def stop(*_):
    print(json.dumps([highest() - imported]), flush=True)
    os._exit(0)

SampleTrainLoader.epoch = stop
imported = highest()
run(Config(data_dir=sys.argv[1], model="resnet18", img_size=64, batch_size=64, workers=2,
           output=sys.argv[2]), is_silent=True)
"""


def make_folder(root: Path, num_files: int) -> None:
    """Make root/train with num_files images, and root/val with a few, of NUM_CLASSES classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for split, number in (("train", num_files), ("val", NUM_VAL)):
        for label in range(NUM_CLASSES):
            name = f"n{1440764 + 31 * label:08d}"
            folder = root / split / name
            folder.mkdir(parents=True)
            first = folder / f"{name}_0.JPEG"
            Image.fromarray(pixels).save(first)
            for index in range(1, number // NUM_CLASSES):
                os.link(first, folder / f"{name}_{7919 * index % 100_003}.JPEG")


def figures_of(code: str, *words: str) -> list[float]:
    """What a program prints, in a fresh interpreter."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(num_files: int, num_turns: int) -> list[Row]:
    """Rows of the seconds of every listing, their ratio, and the megabytes of a run."""
    seconds, cpu_seconds = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    megabytes = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        report_progress(f"making {num_files} files")
        make_folder(root, num_files)
        names = list(LISTINGS)
        for turn in range(num_turns + 1):
            report_progress(f"turn {turn}/{num_turns}")
            for name in names:
                wall, cpu = figures_of(LISTINGS[name], str(root))
                if turn:  # the first one fills the disk cache
                    seconds[name].append(wall)
                    cpu_seconds[name].append(cpu)
            names.reverse()
        for turn in range(num_turns):
            megabytes += figures_of(TO_THE_FIRST_BATCH, str(root), f"{folder}/{turn}")
    report_progress("")
    subject = f"{num_files} files in {NUM_CLASSES} folders"
    rows = []
    for metric, of_names in (("wall time", seconds), ("CPU time", cpu_seconds)):
        rows += [
            Row("listing", subject, n, metric, "s", **percentiles(v)) for n, v in of_names.items()
        ]
        both = zip(of_names[OURS], of_names[TORCHVISION], strict=True)
        row = Row("listing", subject, OURS, f"relative {metric}", "1")
        figures = percentiles([ours / theirs for ours, theirs in both])
        row.p20, row.p50, row.p80 = figures["p20"], figures["p50"], figures["p80"]
        row.ratio_to, row.ratio = TORCHVISION, row.p50
        rows.append(row)
    above = Row(
        "listing", subject, MEMORY, "peak memory above imports", "MB", **percentiles(megabytes)
    )
    return [*rows, above]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000, metavar="N", help="files (100000)")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="turns (5)")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-listing.csv"
    )
    args = parser.parse_args()

    rows = measure(args.files, args.turns)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    found = {(row.variant, row.metric): float(row.p50) for row in rows}
    print_bound("listing, CPU s", found[OURS, "CPU time"], below=MAX_SECONDS)
    print_bound(
        "memory before the first batch above the imports, MB",
        found[MEMORY, "peak memory above imports"],
        below=MAX_MB,
    )
    if args.save:
        print(write_csv(rows, "listing"))


if __name__ == "__main__":
    main()
