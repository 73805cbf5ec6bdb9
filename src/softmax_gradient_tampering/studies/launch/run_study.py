"""A study's runs, from a plan to finished runs or a line that says why not."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.launch import (
    Launch,
    LaunchOptions,
    Runner,
    check_arms,
    default_num_jobs,
    open_runner,
)
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.plan.plan import Plan
from softmax_gradient_tampering.studies.plan.request import RunRequest
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, create_study

_INTERRUPTED, _TERMINATED = 130, 143


def run_study(request: RunRequest, is_silent: bool = False) -> StudyFolder:
    """Train the runs of a study that are not yet done.

    Raises:
        UserError: the study cannot be run, or a run of it failed.
    """
    num_processes = request.plan.processes_per_run
    options = launch_options(request.num_jobs, request.num_threads, num_processes)
    progress = StudyProgress(is_silent=is_silent)
    with end_on_interruption(request.path), open_runner(options) as runner:
        try:
            if not (request.path / "plan.json").exists():
                check_plan(request.plan, options, runner)
            study = create_study(request.path, request.plan)
            launch = Launch(study, runner, progress)
            launch.run()
        finally:
            progress.stop()
    raise_for_failures(launch)
    return study


def launch_options(
    num_jobs: int | None, num_threads: int | None, processes_per_run: int
) -> LaunchOptions:
    """How runs are started on this machine; None for what it takes.

    Raises:
        UserError: a number is below 1.
    """
    for flag, number in (("--jobs", num_jobs), ("--threads", num_threads)):
        if number is not None and number < 1:
            raise UserError(f"{flag} {number}: must be at least 1")
    num_jobs = num_jobs or default_num_jobs()
    num_threads = num_threads or max(1, len(os.sched_getaffinity(0)) // num_jobs)
    return LaunchOptions(num_jobs, num_threads, processes_per_run)


def check_plan(plan: Plan, options: LaunchOptions, runner: Runner) -> None:
    """Set up one run of every arm, before anything is written.

    Raises:
        UserError: an arm cannot be run.
    """
    arms = [arm for arm in plan.arms if not arm.is_waiting]
    if options.processes_per_run == 1:
        check_arms(plan, arms, runner)
        return
    with open_runner(replace(options, processes_per_run=1)) as workers:
        check_arms(plan, arms, workers)


@contextmanager
def end_on_interruption(path: Path) -> Iterator[None]:
    """End on Ctrl-C and on SIGTERM with runs stopped, claims released, and a word on it."""

    def leave(*_: object) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except KeyboardInterrupt:
        print(f"Interrupted; the same command goes on with {path}", flush=True)
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit:
        print(f"Stopped by SIGTERM; the same command goes on with {path}", flush=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def raise_for_failures(launch: Launch) -> None:
    """Say in one line that not all runs are done.

    Raises:
        UserError: a run failed for good, has edited files, or a selection could not be made.
    """
    cells = {cell.id: f"{cell.arm} seed {cell.seed}" for cell in launch.study.plan.cells}
    problems = [f"{cells[i]} failed: {why}" for i, why in launch.given_up.items()]
    problems += [
        f"{cells[i]} is not the plan's: {why}; remove {launch.study.cells_path / i} to run it again"
        for i, why in launch.invalid.items()
    ]
    if launch.selection_error:
        problems.append(launch.selection_error)
    if problems:
        more = f"; {len(problems) - 1} more like it above" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}; {len(launch.done)} runs are done and kept")
