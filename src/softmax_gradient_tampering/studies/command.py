"""`sgt study`: run, status, commands, search."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch import (
    Launch,
    LaunchOptions,
    Runner,
    check_arms,
    default_num_jobs,
    open_runner,
)
from softmax_gradient_tampering.studies.options import RunRequest, parse_run
from softmax_gradient_tampering.studies.plan import Plan
from softmax_gradient_tampering.studies.selection import select_settings
from softmax_gradient_tampering.studies.study_folder import (
    STATES,
    StudyFolder,
    create_study,
    open_study,
)
from softmax_gradient_tampering.studies.study_progress import StudyProgress
from softmax_gradient_tampering.studies.torchrun import prepare, shell_line, train_command
from softmax_gradient_tampering.training.arguments import ArgumentParser

HELP = """\
usage: sgt study ACTION ...

Does tampering help here? Several alphas and seeds, with the controls that an answer needs.

actions:
  run        plan a study and train its runs; run again, it does what is missing
  status     a table of what is done, running, failed and missing
  commands   a command for every missing run, for a cluster's array jobs
  search     look for a good alpha and learning rate (extra: search)

`sgt study ACTION --help` says more of each.
"""
_INTERRUPTED, _TERMINATED = 130, 143


def main(argv: Sequence[str]) -> None:
    """Run an action of `sgt study`."""
    actions = {"run": run, "status": status, "commands": commands, "search": search}
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in actions:
        raise UserError(f"unknown action {argv[0]!r}; there are {', '.join(actions)}")
    actions[argv[0]](argv[1:])


def run(argv: Sequence[str]) -> None:
    """Plan a study, and train its runs."""
    request = parse_run(argv)
    study = run_study(request)
    print(f"Study:   {study.path}\nReport:  sgt report {study.path}")


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


def status(argv: Sequence[str]) -> None:
    """A table of a study's arms: how many of their runs are done, running, failed, missing."""
    parser = ArgumentParser(
        prog="sgt study status", description="What has become of the runs of a study."
    )
    parser.add_argument("study", type=Path, metavar="DIR/NAME")
    print(status_table(open_study(parser.parse_args(argv).study)))


def status_table(study: StudyFolder) -> str:
    """The table of `sgt study status`, and the reasons of what failed, as text."""
    plan = study.plan
    states = {cell.id: study.state(cell) for cell in plan.unique_cells()}
    width = max(len(arm.name) for arm in plan.arms)
    lines = [f"{'arm':{width}}  runs  " + "  ".join(f"{state:>7}" for state in STATES)]
    notes = []
    for arm in plan.arms:
        cells = [cell for cell in plan.cells if cell.arm == arm.name]
        count = Counter(states[cell.id] for cell in cells)
        if arm.is_waiting:
            lines.append(f"{arm.name:{width}}  waiting for the tuning runs")
            continue
        numbers = "  ".join(f"{count[state] or '-':>7}" for state in STATES)
        lines.append(f"{arm.name:{width}}  {len(cells):4}  {numbers}")
        for cell in cells:
            why = study.contradiction(cell) or str(study.failure(cell).get("error", ""))
            if states[cell.id] in ("failed", "invalid"):
                notes.append(f"{arm.name} seed {cell.seed} ({cell.id}): {why}")
    return "\n".join([*lines, *notes])


def commands(argv: Sequence[str]) -> None:
    """Print a command for every missing run."""
    parser = ArgumentParser(
        prog="sgt study commands",
        description="A command for every run that is not done and not being done, to be run from "
        "the folder that this one is run in. Each goes on where it was stopped. They make no "
        "claims: do not let `sgt study run` work on the same study meanwhile.",
    )
    parser.add_argument("study", type=Path, metavar="DIR/NAME")
    parser.add_argument("--slurm", action="store_true", help="as one sbatch array script")
    args = parser.parse_args(argv)
    study = open_study(args.study)
    select_settings(study)
    lines = []
    for cell in study.plan.unique_cells():
        if study.state(cell) not in ("missing", "failed"):
            continue
        prepare(study.cell_path(cell), study.plan.cell_config(cell))
        command = train_command(study.cell_path(cell), study.plan.processes_per_run)
        lines.append(shell_line(command))
    if not lines:
        print(f"sgt study commands: {study.path}: every run is done or being done", file=sys.stderr)
        return
    print("\n".join(slurm_script(study.plan.name, lines) if args.slurm else lines))
    if any(arm.is_waiting for arm in study.plan.arms):
        note = "the tuned arm waits for the tuning runs; ask again when these are done"
        print(f"sgt study commands: {note}", file=sys.stderr)


def slurm_script(name: str, lines: Sequence[str]) -> list[str]:
    """The lines of an sbatch script whose array task k runs command k."""
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=1-{len(lines)}",
        "# Add what your cluster asks for: --partition, --time, --gres=gpu:1, --cpus-per-task ...",
        'case "$SLURM_ARRAY_TASK_ID" in',
        *(f"{number}) exec {line} ;;" for number, line in enumerate(lines, 1)),
        "esac",
    ]


def search(argv: Sequence[str]) -> None:
    """Look for a good alpha and learning rate."""
    from softmax_gradient_tampering.studies.search import main as run_search

    run_search(argv)
