"""`sgt study`: run, status, commands, search."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.terminal.parser import ArgumentParser

EXIT_CODES = (
    "Exit code: 0 if all is well, runs that diverged among it; 2 for a mistake in the call and "
    "for runs that failed; 130 after Ctrl-C, 143 after SIGTERM."
)
HELP = """\
usage: sgt study ACTION ...

Does tampering help here, or another training? Several arms and seeds, with the controls that an
answer needs.

actions:
  plan       plan a study, and start nothing
  run        plan a study and train its runs; run again, it does what is missing
  status     what it says so far; what is done, running, failed and missing
  commands   a command for every missing run, for a cluster's array jobs
  search     look for a good alpha and learning rate (extra: search)

`sgt study ACTION --help` says more of each.

{exit_codes}
"""


def main(argv: Sequence[str]) -> None:
    """Run an action of `sgt study`."""
    actions = {
        "plan": plan,
        "run": run,
        "status": status,
        "commands": commands,
        "search": search,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(exit_codes=EXIT_CODES), end="")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in actions:
        raise UserError(f"unknown action {argv[0]!r}; there are {', '.join(actions)}")
    actions[argv[0]](argv[1:])


def plan(argv: Sequence[str]) -> None:
    """Plan a study; its runs are for `run` or `commands` to start."""
    from softmax_gradient_tampering.studies.plan.request import parse_run

    request = parse_run(argv, "plan")

    from softmax_gradient_tampering.studies.launch.run_study import plan_study
    from softmax_gradient_tampering.studies.report.text import plan_text

    study = plan_study(request)
    num_done = study.count_finished()
    print(
        f"{plan_text(study.plan)}\n\n"
        f"Study:   {study.path}, {len(study.plan.unique_cells())} runs planned, "
        f"{f'{num_done} of them done before' if num_done else 'none started'}\n"
        f"Next:    sgt study run with the same words, or sgt study commands {study.path}"
    )


def run(argv: Sequence[str]) -> None:
    """Plan a study, and train its runs."""
    from softmax_gradient_tampering.studies.plan.request import parse_run

    request = parse_run(argv)

    from softmax_gradient_tampering.studies.launch.run_study import run_study

    study = run_study(request)

    from softmax_gradient_tampering.studies.report.printed import report_text

    print(f"\n{report_text(study.path)}\n\nStudy:   {study.path}\nReport:  sgt report {study.path}")


def status(argv: Sequence[str]) -> None:
    """The first sentence and table of a study, and what has become of its runs."""
    parser = ArgumentParser(
        prog="sgt study status",
        description="What a study says so far, and what has become of its runs. " + EXIT_CODES,
    )
    parser.add_argument("study", type=Path, metavar="DIR/NAME", help="the folder of the study")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs [off]")
    args = parser.parse_args(argv)

    from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
    from softmax_gradient_tampering.studies.report.text import (
        problems_text,
        results_json,
        results_text,
        states_text,
    )
    from softmax_gradient_tampering.studies.results.collect import collect_tables

    results = compare_arms(collect_tables(args.study), only_metric=True)
    if args.json:
        print(json.dumps(results_json(results), indent=1))
        return
    print(f"{results_text(results)}\n\n{states_text(results.study)}")
    if problems := problems_text(results.study):
        print(problems)


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
    missing = missing_commands(study)
    if not missing:
        print(f"sgt study commands: {study.path}: every run is done or being done", file=sys.stderr)
        return
    lines = [command.line for command in missing]
    print("\n".join(slurm_script(study.plan.name, missing) if args.slurm else lines))
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
        f"{best['mean']:.2f} % ({request.metric}) on the hold-out\n"
        f"Trials: {request.path / 'search.json'}\n"
        f"The best of many is better by luck too; sgt study run compares it over seeds, with "
        f"--arm 'found: modify-softmax={best['alpha']:g} lr={best['lr']:g}'. sgt report "
        f"{request.path} has all trials."
    )
