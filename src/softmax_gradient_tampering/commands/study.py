"""`sgt study`: run, status, commands, search."""

import sys
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError, as_printable
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
    from softmax_gradient_tampering.studies.plan.request import parse_run

    request = parse_run(argv)

    from softmax_gradient_tampering.studies.launch.run_study import run_study

    study = run_study(request)
    print(f"\n{_text_of(study.path)}\n\nStudy:   {study.path}\nReport:  sgt report {study.path}")


def _text_of(path: Path) -> str:
    """The first sentence of a study's report, and its table."""
    from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
    from softmax_gradient_tampering.studies.report.text import results_text
    from softmax_gradient_tampering.studies.results.collect import collect

    return results_text(compare_arms(collect(path, with_predictions=False)))


def status(argv: Sequence[str]) -> None:
    """A table of a study's arms: how many of their runs are done, running, failed, missing."""
    parser = ArgumentParser(
        prog="sgt study status", description="What has become of the runs of a study."
    )
    parser.add_argument("study", type=Path, metavar="DIR/NAME", help="the folder of the study")
    path = parser.parse_args(argv).study

    from softmax_gradient_tampering.studies.plan.plan import State
    from softmax_gradient_tampering.studies.results.status import read_status
    from softmax_gradient_tampering.studies.results.study_folder import open_study

    columns = {
        "done": [State.FINISHED],
        "running": [State.RUNNING],
        "failed": [State.FAILED, State.DIVERGED],
        "missing": [State.MISSING, State.UNFINISHED],
        "invalid": [State.INVALID],
    }
    arms = read_status(open_study(path))
    width = max(len(each.arm.name) for each in arms)
    print(f"{'arm':{width}}  runs  " + "  ".join(f"{column:>7}" for column in columns))
    for each in arms:
        counts = [sum(each.counts[state] for state in states) for states in columns.values()]
        numbers = "  ".join(f"{count or '-':>7}" for count in counts)
        cells = f"{each.num_cells:4}  {numbers}"
        if each.arm.is_waiting:
            cells = "waiting for the tuning runs"
        print(as_printable(f"{each.arm.name:{width}}  {cells}"))
    for each in arms:
        for problem in each.problems:
            print(as_printable(problem))


def commands(argv: Sequence[str]) -> None:
    """Print a command for every missing run."""
    parser = ArgumentParser(
        prog="sgt study commands",
        description="A command for every run that is not done and not being done, to be run from "
        "the folder that this one is run in. Each goes on where it was stopped. They make no "
        "claims: do not let `sgt study run` work on the same study meanwhile.",
    )
    parser.add_argument("study", type=Path, metavar="DIR/NAME", help="the folder of the study")
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="print one sbatch array script that runs them all [off]",
    )
    args = parser.parse_args(argv)

    from softmax_gradient_tampering.studies.launch.cluster import missing_commands, slurm_script
    from softmax_gradient_tampering.studies.results.study_folder import open_study

    study = open_study(args.study)
    lines = missing_commands(study)
    if not lines:
        print(f"sgt study commands: {study.path}: every run is done or being done", file=sys.stderr)
        return
    print("\n".join(slurm_script(study.plan.name, lines) if args.slurm else lines))
    if any(arm.is_waiting for arm in study.plan.arms):
        note = "the tuned arm waits for the tuning runs; ask again when these are done"
        print(f"sgt study commands: {note}", file=sys.stderr)


def search(argv: Sequence[str]) -> None:
    """Look for a good alpha and learning rate."""
    from softmax_gradient_tampering.studies.plan.search_request import parse_search

    request = parse_search(argv)

    from softmax_gradient_tampering.studies.launch.search import run_search

    found = run_search(request)
    best = found["best"]
    print(
        f"Best of {len(found['trials'])}: alpha {best['alpha']:g}, lr {best['lr']:g}: "
        f"{best['mean_top1']:.2f} % on the hold-out\nTrials: {request.path / 'search.json'}\n"
        "The best of many is better by luck too; sgt study run compares it over seeds."
    )
