"""`sgt report`: the report of a study, a run folder or a summary.csv."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.studies.plan.plan import DEFAULT_MARGIN
from softmax_gradient_tampering.terminal.parser import ArgumentParser


def main(argv: Sequence[str]) -> None:
    """Write the report and name its files."""
    parser = ArgumentParser(
        prog="sgt report",
        description="Write one HTML file that works offline, with the verdict, tables and figures "
        "of a study or a run, and all numbers as CSV and JSON beside it.",
    )
    parser.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="a study folder, a run folder, or a summary.csv, ours or the published program's",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the HTML file (PATH/report.html)"
    )
    parser.add_argument(
        "--margin",
        type=_points,
        default=DEFAULT_MARGIN,
        metavar="POINTS",
        help="differences of accuracy within this many points count as none (%(default)s)",
    )
    args = parser.parse_args(argv)

    from rich.console import Console
    from rich.progress import Progress

    from softmax_gradient_tampering.studies.report.report import write_report

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        report = write_report(args.path, args.output, args.margin, show)
    print(f"Report: {report}", file=sys.stdout)


def _points(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a number of points") from error
