"""`sgt study`: run, status, commands, search."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.run_study import run_study
from softmax_gradient_tampering.studies.launch.selection import select_settings
from softmax_gradient_tampering.studies.launch.torchrun import prepare, shell_line, train_command
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import (
    STATES,
    StudyFolder,
    open_study,
)
from softmax_gradient_tampering.terminal.parser import ArgumentParser

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
    from softmax_gradient_tampering.studies.launch.search import main as run_search

    run_search(argv)
