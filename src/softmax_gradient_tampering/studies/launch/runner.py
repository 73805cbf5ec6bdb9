"""What trains the runs: worker processes, or a torchrun job for each run."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.cost import RunCost, trial_folder
from softmax_gradient_tampering.studies.launch.devices import count_gpus, device_slots
from softmax_gradient_tampering.studies.launch.pool import Ended, WorkerPool
from softmax_gradient_tampering.studies.launch.torchrun import TorchrunPool
from softmax_gradient_tampering.studies.plan.machine import Machine
from softmax_gradient_tampering.studies.plan.plan import RECALL, TUNING, Arm, Plan
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.training.config.fields import Config

POLL_S = 2.0
# A trial tells nobody.
_NOWHERE: dict[str, Any] = {"log": (), "log_wandb": False}


@dataclass(frozen=True)
class RunnerOptions:
    """How runs are started.

    Attributes:
        num_jobs: runs at a time.
        num_threads: of each run.
        processes_per_run: above 1, a run is a torchrun job.
        devices: the GPUs that each job sees; none for all that there are.
    """

    num_jobs: int
    num_threads: int = 1
    processes_per_run: int = 1
    devices: tuple[str, ...] = ()


class Runner(Protocol):
    """What trains: `WorkerPool` or `TorchrunPool`."""

    @property
    def num_idle(self) -> int: ...

    def start(self, key: str, config: Config, is_trial: bool = False) -> None: ...

    def wait(self, timeout_s: float) -> list[Ended]: ...

    def stop(self) -> None: ...


def options_for_this_machine(asked: Machine, processes_per_run: int = 1) -> RunnerOptions:
    """How runs are started on this machine.

    Args:
        asked: what the command line says of it.
        processes_per_run: of each run.

    Raises:
        UserError: a number is below 1, or flags contradict each other.
    """
    numbers = {
        "--jobs": asked.num_jobs,
        "--threads": asked.num_threads,
        "--jobs-per-gpu": asked.jobs_per_gpu,
    }
    for flag, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{flag} {number}: must be at least 1")
    devices: tuple[str, ...] = ()
    if asked.gpus is not None:
        if asked.num_jobs is not None:
            raise UserError("--jobs and --gpus: --gpus says how many; see --jobs-per-gpu")
        devices = device_slots(asked.gpus, asked.jobs_per_gpu or 1, processes_per_run)
    elif asked.jobs_per_gpu is not None:
        raise UserError("--jobs-per-gpu belongs to --gpus; add that")
    num_cores = len(os.sched_getaffinity(0))
    num_jobs = len(devices) or asked.num_jobs or (1 if count_gpus() else num_cores)
    num_threads = asked.num_threads or max(1, num_cores // num_jobs)
    return RunnerOptions(num_jobs, num_threads, processes_per_run, devices)


@contextmanager
def open_runner(options: RunnerOptions) -> Iterator[Runner]:
    """What trains the runs; ended on leaving, whatever it is at."""
    runner: Runner
    if options.processes_per_run > 1:
        runner = TorchrunPool(options.num_jobs, options.processes_per_run, options.devices)
    else:
        runner = WorkerPool(options.num_jobs, options.num_threads, options.devices)
    try:
        yield runner
    finally:
        runner.stop()


def check_plan(
    plan: Plan, options: RunnerOptions, runner: Runner, path: Path
) -> dict[str, RunCost]:
    """Set up one run of every arm, before anything is planned, and try it for a moment.

    Args:
        plan: of the study.
        options: how its runs are started.
        runner: trains them; where a run is a torchrun job, its arms are set up, and nothing is
            tried.
        path: of the study.

    Returns:
        What a run costs, by the arm's name; nothing where none was tried.

    Raises:
        UserError: an arm cannot be run as it is.
    """
    if options.processes_per_run == 1:
        with trial_folder(path) as folder:
            return check_arms(plan, runner, folder)
    return set_up_arms(plan, options)


def set_up_arms(plan: Plan, options: RunnerOptions) -> dict[str, RunCost]:
    """Set up one run of every arm in workers that are started for this alone; write nothing.

    Raises:
        UserError: an arm cannot be run as it is.
    """
    with open_runner(replace(options, processes_per_run=1, devices=())) as workers:
        return check_arms(plan, workers)


def check_arms(plan: Plan, runner: Runner, folder: Path | None = None) -> dict[str, RunCost]:
    """Set up the first run of every arm, so that mistakes show at once; see `check_plan`.

    Args:
        plan: of the study.
        runner: trains.
        folder: for what the trials leave; without one nothing is trained.
    """
    first = {cell.arm: cell for cell in reversed(plan.cells)}
    waiting = deque(cell for arm in plan.arms if (cell := first.get(arm.name)))
    costs: dict[str, RunCost] = {}
    num_running = 0
    while waiting or num_running:
        while waiting and runner.num_idle:
            cell = waiting.popleft()
            config = replace(plan.cell_config(cell), **_NOWHERE)
            if folder is None:
                runner.start(cell.arm, replace(config, dry_run=True), is_trial=True)
            else:
                trial = replace(config, output=str(folder), experiment=f"arm-{len(waiting)}")
                runner.start(cell.arm, trial, is_trial=True)
            num_running += 1
        for ended in runner.wait(POLL_S):
            num_running -= 1
            if ended.error:
                raise UserError(f"{ended.key}: {ended.error}")
            if ended.cost is not None:
                costs[ended.key] = ended.cost
                _check_metric(plan, plan.arm(ended.key), ended.cost)
    return costs


def _check_metric(plan: Plan, arm: Arm, cost: RunCost) -> None:
    """Refuse to judge by a class that the data does not have, or has not to evaluate.

    Raises:
        UserError: it has not.
    """
    name = plan.metric.removeprefix(RECALL)
    if not plan.metric.startswith(RECALL) or not cost.class_names:
        return
    where = f"--metric {plan.metric:.80}"
    if name not in cost.class_names:
        hint = nearest(name, cost.class_names)
        raise UserError(f"{where}: the data has no class of this name{hint}")
    if name in cost.untested:
        what, mend = "the test set", "choose another metric"
        if arm.kind == TUNING:
            what, mend = "the held-out part of the training set", "give a larger --holdout"
        raise UserError(f"{where}: {what} has no sample of this class; {mend}")
