"""`sgt data check`: look through a folder of images before it is trained on."""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softmax_gradient_tampering.errors import UserError, as_printable
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.terminal.progress import track

if TYPE_CHECKING:
    from softmax_gradient_tampering.data.inspection.report import Report

DESCRIPTION = """\
Decode every image of DIR, with its train/ and val/, or one tree of classes. Prints the images
of every class, what is unusual, every file that cannot be read and why, all for which training
refuses the folder, and images that are in train and in val, by their content. Nothing is written.

Exit code: 0 if all is well, 1 if there are bad files, reasons to refuse or duplicates, 2 for a
mistake in the call.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = ArgumentParser(
        prog="sgt data",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("check",), help="check the images of a folder")
    parser.add_argument("folder", metavar="DIR", help="holds train/ and val/, or class folders")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "-j",
        "--workers",
        type=int,
        default=cores,
        metavar="N",
        help=f"threads ({cores}, the cores)",
    )
    parser.add_argument(
        "--train-split", default="train", metavar="NAME", help="name of the training split (train)"
    )
    parser.add_argument(
        "--val-split",
        default="validation",
        metavar="NAME",
        help="name of the validation split (validation, or another usual name of it)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: must be at least 1")

    from softmax_gradient_tampering.data.inspection.report import check_files, find_files

    report = find_files(Path(args.folder).expanduser(), args.train_split, args.val_split)
    check_files(report, args.workers, partial(track, what="Checking images"))
    print(json.dumps(_to_json(report), indent=2) if args.json else "\n".join(_lines(report)))
    return 0 if report.is_clean else 1


def _to_json(report: "Report") -> dict[str, Any]:
    return {
        "root": str(report.root),
        "splits": {
            split.name: {
                "folder": str(split.listing.source),
                "files": split.listing.num_files,
                "classes": dict(sorted(split.classes.items())),
                "passed_over": dict(split.listing.passed_over.most_common()),
            }
            for split in report.splits
        },
        "bad": [finding._asdict() for finding in report.bad],
        "notes": [finding._asdict() for finding in report.notes],
        "duplicates": [duplicate._asdict() for duplicate in report.duplicates],
    }


def _lines(report: "Report") -> list[str]:
    """The report for reading; what matters most comes last."""
    lines = []
    classes = sorted({name for split in report.splits for name in split.classes})
    total = f"{len(classes)} classes"
    width = max(len(as_printable(name)) for name in [*classes, total])
    lines.append("  ".join(["class".ljust(width), *(f"{s.name:>9}" for s in report.splits)]))
    for name in classes:
        counts = (f"{split.classes[name]:9,}" for split in report.splits)
        lines.append("  ".join([as_printable(name).ljust(width), *counts]))
    totals = (f"{split.classes.total():9,}" for split in report.splits)
    lines.append("  ".join([total.ljust(width), *totals]))
    for split in report.splits:
        for ending, number in split.listing.passed_over.most_common():
            lines.append(f"passed over in {split.name}: {number:,} {as_printable(ending)}")
    for finding in report.notes:
        lines.append(f"note: {as_printable(finding.file)}: {finding.what}")
    for duplicate in report.duplicates:
        files = f"{as_printable(duplicate.val)} is the same as {as_printable(duplicate.train)}"
        lines.append(f"duplicate: {files}")
    for finding in report.bad:
        lines.append(f"bad: {as_printable(finding.file)}: {as_printable(finding.what)}")
    lines.append(
        f"{report.num_files:,} files checked: {len(report.bad):,} bad, "
        f"{len(report.notes):,} notes, {len(report.duplicates):,} duplicates between train and val"
    )
    return lines
