"""What of the machine a study may use: the flags of jobs, threads and GPUs."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """What of the machine a study may use; None for what it takes by default.

    Attributes:
        num_jobs: runs at a time.
        num_threads: of each run.
        gpus: all, or numbers with commas between them.
        jobs_per_gpu: runs at a time on each of these.
    """

    num_jobs: int | None = None
    num_threads: int | None = None
    gpus: str | None = None
    jobs_per_gpu: int | None = None


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what of the machine the runs may use."""
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="train N runs at a time [one a core; on a GPU one]"
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="give each run N threads [the cores divided by the jobs]",
    )
    parser.add_argument(
        "--gpus",
        metavar="all|0,1,...",
        help="train a run on each of these GPUs at a time, which sees no other one [off]",
    )
    parser.add_argument(
        "--jobs-per-gpu", type=int, metavar="N", help="train N runs at a time on each of --gpus [1]"
    )


def machine_of(given: Mapping[str, Any]) -> Machine:
    """What the flags of `add_machine_flags` say of the machine."""
    names = ("jobs", "threads", "gpus", "jobs_per_gpu")
    return Machine(*(given.get(name) for name in names))
