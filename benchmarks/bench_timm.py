"""Whole trainings by timm's own train.py and by the program: the same images, the same work.

TIMM_TRAIN_SCRIPT names timm's script, from its repository. Each training is a process of its own,
from its command to its last checkpoint: resnet18 in float32 on a CPU, random crops and flips,
Nesterov SGD, worker processes, an evaluation and checkpoints after every epoch. The two take
turns. CPU time is user and system time of the process and of all that it starts, which other
programs on the machine disturb less than the wall time.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from timer import Row, percentiles, print_bound, print_table, report_progress, stamp, write_csv

PROGRAM, TIMM = "program", "timm's train.py"
OURS = "from softmax_gradient_tampering.cli import main; main()"


class Work(NamedTuple):
    """What both train."""

    folder: Path
    size: int
    batch_size: int
    num_epochs: int
    num_workers: int

    @property
    def flags(self) -> list[str]:
        """The flags that both programs have."""
        return [
            *("--data-dir", str(self.folder), "--img-size", str(self.size)),
            *("--model", "resnet18", "--num-classes", str(len(self.classes)), "--device", "cpu"),
            *("--batch-size", str(self.batch_size), "--epochs", str(self.num_epochs)),
            *("--workers", str(self.num_workers), "--opt", "sgd", "--lr", "0.01"),
            *("--color-jitter", "0", "--train-interpolation", "bilinear", "--channels-last"),
            *("--warmup-epochs", "0", "--log-interval", "20"),
        ]

    @property
    def classes(self) -> list[Path]:
        return [path for path in (self.folder / "train").iterdir() if path.is_dir()]

    @property
    def subject(self) -> str:
        num_images = sum(len(list(path.iterdir())) for path in self.classes)
        return f"resnet18 {self.size}x{self.size}, {num_images} images, {self.num_epochs} epochs"


def commands(work: Work, script: Path) -> dict[str, list[str]]:
    """The command line of each program, but for its output."""
    return {
        PROGRAM: [sys.executable, "-c", OURS, "train", *work.flags, "--per-line"],
        TIMM: [sys.executable, str(script), *work.flags],
    }


def time_process(command: list[str], num_epochs: int) -> tuple[float, float]:
    """CPU and wall seconds of a training, which must have recorded all its epochs."""
    with tempfile.TemporaryDirectory() as output:
        before, started = _seconds_of_children(), time.perf_counter()
        words = [*command, "--output", output, "--experiment", "run"]
        done = subprocess.run(words, capture_output=True, text=True)
        wall, cpu = time.perf_counter() - started, _seconds_of_children() - before
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
        with (Path(output) / "run" / "summary.csv").open(newline="") as file:
            num_rows = len(list(csv.DictReader(file)))
        if num_rows != num_epochs:
            raise SystemExit(f"{num_rows} of {num_epochs} epochs were trained: {' '.join(words)}")
        return cpu, wall


def _seconds_of_children() -> float:
    """User and system time of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(work: Work, script: Path, num_turns: int) -> list[Row]:
    """Rows of CPU and wall seconds of either, and of the program's speed by timm's."""
    found: dict[str, list[tuple[float, float]]] = {PROGRAM: [], TIMM: []}
    turns = list(commands(work, script).items())
    for turn in range(num_turns):
        for name, command in turns:
            report_progress(f"turn {turn + 1}/{num_turns}: {name}")
            found[name].append(time_process(command, work.num_epochs))
        turns.reverse()
    report_progress("")
    rows = []
    for number, metric in enumerate(("CPU time", "wall time")):
        seconds = {name: [times[number] for times in values] for name, values in found.items()}
        for name, values in seconds.items():
            rows.append(Row("timm", work.subject, name, metric, "s", **percentiles(values)))
        ratios = [b / a for a, b in zip(seconds[PROGRAM], seconds[TIMM], strict=True)]
        row = Row("timm", work.subject, PROGRAM, f"speed by {metric}", "1", **percentiles(ratios))
        row.ratio_to, row.ratio = TIMM, row.p50
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="images in DIR/train and DIR/val")
    parser.add_argument("--size", type=int, default=128, help="side of the images (128)")
    parser.add_argument("--batch-size", type=int, default=32, help="images of a step (32)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of a training (2)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--turns", type=int, default=5, help="trainings of each (5)")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-timm.csv"
    )
    args = parser.parse_args()
    script = os.environ.get("TIMM_TRAIN_SCRIPT")
    if not script:
        raise SystemExit("TIMM_TRAIN_SCRIPT does not say where timm's train.py is")

    work = Work(args.folder, args.size, args.batch_size, args.epochs, args.workers)
    rows = measure(work, Path(script), args.turns)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    (ratio,) = (row.ratio for row in rows if row.metric == "speed by CPU time")
    print_bound(f"{rows[0].subject}: {PROGRAM} / {TIMM}", float(ratio), at_least=1.0)
    if args.save:
        print(write_csv(rows, "timm"))


if __name__ == "__main__":
    main()
