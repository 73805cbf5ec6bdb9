"""A study of 110 digits runs of 40 epochs: the demo, from the command to the last run.

The wall time with two runs at a time, imports included; and what a run costs in it, beside
the steps of the bare PyTorch loop alone, which evaluates and writes nothing. In turns with that
loop, which a busy machine disturbs less: the CPU time of a run as a study's worker trains it, from
its configuration to its result.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bare import BareLoop, MemoryBatches, scaled_cross_entropy
from softmax_gradient_tampering.commands.demo import NUM_EPOCHS, NUM_SEEDS, study_words
from softmax_gradient_tampering.data.memory.loaders import MemoryTrainLoader
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import open_study
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.run import run
from softmax_gradient_tampering.training.setup.setup import set_up
from timer import Row, percentiles, print_bound, print_table, report_progress, stamp, write_csv

PROGRAM = "from softmax_gradient_tampering.cli import main; main()"


def time_study(num_seeds: int, num_jobs: int) -> tuple[float, int, list[float]]:
    """Seconds of the whole command, its runs, and the seconds of every run by its own account."""
    with tempfile.TemporaryDirectory() as folder:
        words = study_words(num_seeds, NUM_EPOCHS, folder)
        command = [sys.executable, "-c", PROGRAM, "study", "run", "--jobs", str(num_jobs), *words]
        report_progress("the study")
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        study = open_study(parse_run(words).path)
        cells = study.plan.unique_cells()
        runs = [study.read(cell).run for cell in cells]
        return seconds, len(cells), [run.result["seconds"] for run in runs if run is not None]


def time_bare_runs(num_runs: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of whole trainings by the bare loop, in one thread."""
    plan = parse_run(study_words(1, NUM_EPOCHS, "unused")).plan
    setup = set_up(plan.cell_config(plan.cells[-1]), start_processes("cpu"))
    assert isinstance(setup.data.train_loader, MemoryTrainLoader)
    batches = MemoryBatches(setup.data.train_loader, setup.config.channels_last)
    seconds = []
    for number in range(num_runs):
        report_progress(f"bare run {number + 1}/{num_runs}")
        loop = BareLoop(setup.trainer.model, setup.trainer.optimizer, scaled_cross_entropy(0.25))
        started = clock()
        for epoch in range(NUM_EPOCHS):
            for images, labels in batches.epoch(epoch):
                loop.step(images, labels)
        seconds.append(clock() - started)
    return seconds


def time_in_turns(num_turns: int) -> list[Row]:
    """CPU time of a run as a study's worker trains it, and of the bare loop, in turns."""
    plan = parse_run(study_words(1, NUM_EPOCHS, "unused")).plan
    config = plan.cell_config(plan.cells[-1])
    clock = time.process_time
    runs: list[float] = []
    bare: list[float] = []
    gc.freeze()  # as a worker does
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_turns + 1):
            bare += time_bare_runs(1, clock)
            started = clock()
            run(replace(config, output=folder, experiment=str(number)), is_silent=True)
            runs.append(clock() - started)
    gc.unfreeze()
    runs, bare = runs[1:], bare[1:]  # the first of each loads what is loaded once
    ratios = [ours / theirs for ours, theirs in zip(runs, bare, strict=True)]
    rows = [
        Row("study", "one run", "in turns", "CPU time", "s", **percentiles(runs)),
        Row("study", "one run", "bare loop, in turns", "CPU time", "s", **percentiles(bare)),
    ]
    rows[0].ratio_to, rows[0].ratio = "a run of the bare loop", percentiles(ratios)["p50"]
    return rows


def measure(num_seeds: int, num_jobs: int) -> list[Row]:
    """The study's wall time, its runs' times, and the bare loop's."""
    bare = time_bare_runs(7)
    seconds, num_runs, per_run = time_study(num_seeds, num_jobs)
    subject = f"{num_runs} digits runs of {NUM_EPOCHS} epochs"
    rows = [
        Row("study", subject, f"{num_jobs} at a time", "wall time", "s", p50=f"{seconds:.5g}"),
        Row("study", "one run", f"{num_jobs} at a time", "time", "s", **percentiles(per_run)),
        Row("study", "one run", "bare loop, alone", "time", "s", **percentiles(bare)),
    ]
    for row, value in zip(rows, (seconds * num_jobs / num_runs, float(rows[1].p50)), strict=False):
        row.ratio_to, row.ratio = "a run of the bare loop", f"{value / float(rows[2].p50):.4f}"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help="10 make 110 runs (10)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--turns", type=int, default=15, help="runs beside the bare loop (15)")
    parser.add_argument("--only-turns", action="store_true", help="leave out the study")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-study.csv"
    )
    args = parser.parse_args()

    turns = time_in_turns(args.turns)
    rows = [] if args.only_turns else measure(args.seeds, args.jobs)
    report_progress("")
    rows += turns
    stamp(rows, torch.device("cpu"), 1)
    print_table(rows)
    print(f"\nload average before the end: {os.getloadavg()[0]:.2f}")
    print_bound("one run / bare loop, CPU time in turns", float(turns[0].ratio), below=1.6)
    if args.seeds == NUM_SEEDS and not args.only_turns:
        print_bound(f"{rows[0].subject}, {rows[0].variant}, s", float(rows[0].p50), below=180.0)
    if args.save:
        print(write_csv(rows, "study"))


if __name__ == "__main__":
    main()
