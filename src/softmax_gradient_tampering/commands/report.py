"""`sgt report`: the report of a study, a run folder or a summary.csv."""

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan import DEFAULT_MARGIN
from softmax_gradient_tampering.terminal.parser import ArgumentParser


def main(argv: Sequence[str]) -> None:
    """Write the report and name its files."""
    parser = ArgumentParser(
        prog="sgt report",
        description="Write one HTML file that works offline, with the verdict, tables and figures "
        "of a study or a run, and all numbers as CSV and JSON beside it. "
        "Exit code: 0, or 2 for a mistake in the call and for what cannot be read.",
    )
    parser.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="report this folder of a study, a search or a run, or this summary.csv, ours or the "
        "published program's",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write this HTML file [PATH/report.html]"
    )
    parser.add_argument(
        "--margin",
        type=_points,
        metavar="POINTS",
        help="count differences of accuracy within this many points as none [that of the study, "
        f"else {DEFAULT_MARGIN:g}]",
    )
    parser.add_argument(
        "--log",
        nargs="+",
        default=(),
        choices=("tensorboard", "wandb"),
        metavar="NAME",
        help="send the sentence, the tables and the curves to tensorboard, the first two and the "
        "page to wandb, or to both [none]",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--text",
        action="store_true",
        help="print the first sentence and the table, and write nothing [off]",
    )
    where.add_argument(
        "--json", action="store_true", help="print the same as JSON, for programs [off]"
    )
    args = parser.parse_args(argv)
    if args.text or args.json:
        _print(args)
        return

    from softmax_gradient_tampering.studies.report.numbers.trackers import tensorboard_folder
    from softmax_gradient_tampering.studies.report.report import write_report
    from softmax_gradient_tampering.terminal.progress import open_bar

    bar = open_bar(sys.stderr, is_transient=True)
    try:
        show = None if bar is None else bar.show
        report = write_report(args.path, args.output, args.margin, show, args.log)
    finally:
        if bar is not None:
            bar.stop()
    print(f"Report: {report}")
    if "tensorboard" in args.log:
        print(f"TensorBoard: tensorboard --logdir {tensorboard_folder(report)}")


def _print(args: Namespace) -> None:
    """The report in the terminal."""
    flag = "--json" if args.json else "--text"
    if args.output is not None:
        raise UserError(f"{flag} writes no file; leave --output out")
    if args.log:
        raise UserError(f"{flag} sends nothing; leave --log out")

    from softmax_gradient_tampering.studies.report.printed import report_json, report_text

    if args.json:
        print(json.dumps(report_json(args.path, args.margin), indent=1))
    else:
        print(report_text(args.path, args.margin))


def _points(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a number of points") from error
