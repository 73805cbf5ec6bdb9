"""How large a study and a run may be: `status` of many cells, the report of a long summary.csv.

Both are made up, by the generator of the tests. Each turn is a fresh interpreter, whose imports
are in the time; beside the wall time stands the CPU time, which other programs disturb less.
"""

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench_report import make_study
from softmax_gradient_tampering.training.records.run_files import COLUMNS
from timer import Row, percentiles, print_bound, print_table, report_progress, stamp, write_csv

MAX_STATUS_S, MAX_STATUS_MB = 2.0, 200.0
PROGRAM = "from softmax_gradient_tampering.program import sgt; sgt()"
# Linux's own figure: getrusage's holds the memory of the process that this one was forked from.
MEASURE = f"""
import atexit, sys
def show():
    with open("/proc/self/status") as file:
        print(next(line for line in file if line.startswith("VmHWM")).split()[1], file=sys.stderr)
atexit.register(show)
{PROGRAM}
"""


def write_summary(path: Path, num_rows: int) -> Path:
    """A summary.csv of random numbers."""
    generator = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for epoch in range(1, num_rows + 1):
            writer.writerow([epoch, *(100 * generator.random() for _ in COLUMNS[1:])])
    return path


def time_command(words: list[str], num_turns: int) -> dict[str, list[float]]:
    """Wall and CPU seconds and the highest memory (MB) of a command of `sgt`, by turn."""
    found: dict[str, list[float]] = {"wall time": [], "CPU time": [], "peak memory": []}
    for turn in range(num_turns):
        report_progress(f"{words[0]}: turn {turn + 1}/{num_turns}")
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *words], check=True, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found["wall time"].append(time.perf_counter() - started)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found["CPU time"].append(cpu)
        found["peak memory"].append(float(done.stderr.split()[-1]) / 1e3)
    return found


def measure(num_cells: int, num_rows: int, num_turns: int) -> list[Row]:
    """Rows of both commands."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        number = make_study(study, num_cells, num_epochs=40)
        summary = write_summary(Path(folder) / "summary.csv", num_rows)
        subjects = {
            f"status of {number} cells of 40 epochs": ["study", "status", str(study)],
            f"report of a summary.csv of {num_rows} epochs": ["report", str(summary)],
        }
        found = {subject: time_command(words, num_turns) for subject, words in subjects.items()}
    report_progress("")
    return [
        Row("study-size", subject, "sgt", name, "MB" if "memory" in name else "s",
            **percentiles(values))
        for subject, figures in found.items()
        for name, values in figures.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=2000, metavar="N", help="cells (2000)")
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="epochs (100000)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns (3)")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-study-size.csv"
    )
    args = parser.parse_args()

    rows = measure(args.cells, args.rows, args.turns)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    print_bound("status, CPU s", float(rows[1].p50), below=MAX_STATUS_S)
    print_bound("status, peak memory, MB", float(rows[2].p50), below=MAX_STATUS_MB)
    if args.save:
        print(write_csv(rows, "study-size"))


if __name__ == "__main__":
    main()
