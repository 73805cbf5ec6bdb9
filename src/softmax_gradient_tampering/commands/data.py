"""`sgt data`: look through a folder of images, or make ImageNet's of its official files."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from softmax_gradient_tampering.errors import UserError, as_printable
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.terminal.progress import open_bar, track

if TYPE_CHECKING:
    from softmax_gradient_tampering.data.inspection.report import Report

DESCRIPTION = """\
Folders of images: looked through before they are trained on, and ImageNet's made.
"""

CHECK = """\
Decode every image of DIR, with its train/ and val/, or one tree of classes. Prints the images
of every class, what is unusual, every file that cannot be read and why, all for which training
refuses the folder, and images that are in train and in val, by their content. Nothing is written.

Exit code: 0 if all is well, 1 if there are bad files, reasons to refuse or duplicates, 2 for a
mistake in the call.
"""

IMAGENET = """\
Sort ImageNet's official files (ILSVRC2012) into DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE:

  sgt data imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar \\
      --devkit ILSVRC2012_devkit_t12.tar.gz --output DIR

Each may be a folder that the archive was unpacked to; its images get hard links, or copies on
another disk. One split alone can be made. The numbers of images and classes are checked. After
an interruption the same command goes on. Nothing is written outside DIR.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = ArgumentParser(prog="sgt data", description=DESCRIPTION)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text, line, add_flags, run in (
        ("check", CHECK, "look through a folder of images", _add_check_flags, _check),
        ("imagenet", IMAGENET, "sort ImageNet's official files", _add_imagenet_flags, _imagenet),
    ):
        action = actions.add_parser(
            name,
            help=line,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_flags(action)
        action.set_defaults(run=run)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


def _add_check_flags(parser: argparse.ArgumentParser) -> None:
    add = partial(parser.add_argument, metavar="NAME")
    add("folder", metavar="DIR", help="look through this folder, of train/ and val/ or of classes")
    cores = len(os.sched_getaffinity(0))
    text = "decode with this many threads [one a core]"
    add("-j", "--workers", type=int, default=cores, metavar="N", help=text)
    add("--train-split", default="train", help="name of the training split [train]")
    text = "name of the validation split [validation, or another usual name]"
    add("--val-split", default="validation", help=text)
    parser.add_argument(
        "--json", action="store_true", help="print JSON in the place of a table [off]"
    )


def _check(args: argparse.Namespace) -> int:
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: must be at least 1")

    from softmax_gradient_tampering.data.inspection.report import check_files, find_files

    report = find_files(Path(args.folder).expanduser(), args.train_split, args.val_split)
    check_files(report, args.workers, partial(track, what="Checking images"))
    print(json.dumps(_to_json(report), indent=2) if args.json else "\n".join(_lines(report)))
    return 0 if report.is_clean else 1


def _add_imagenet_flags(parser: argparse.ArgumentParser) -> None:
    add = partial(parser.add_argument, type=_path, metavar="PATH")
    add(
        "--train",
        help="sort ILSVRC2012_img_train.tar, or a folder of its archives or classes [none]",
    )
    add("--val", help="sort ILSVRC2012_img_val.tar, or a folder of its images [none]")
    add("--devkit", help="ILSVRC2012_devkit_t12.tar.gz, or its folder; --val needs it [none]")
    add(
        "--output",
        metavar="DIR",
        required=True,
        help="make train/ and val/ in this folder [required]",
    )
    for name, default in (("classes", 1000), ("train-images", 1_281_167), ("val-images", 50_000)):
        text = f"{name.replace('-', ' ')} to be found, for a part of ImageNet [{default}]"
        add(f"--{name}", type=int, default=default, metavar="N", help=text)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _imagenet(args: argparse.Namespace) -> int:
    from softmax_gradient_tampering.data.imagenet.official import (
        Counts,
        OfficialFiles,
        sort_imagenet,
    )

    files = OfficialFiles(args.train, args.val, args.devkit)
    counts = Counts(args.classes, args.train_images, args.val_images)
    with _Progress() as progress:
        try:
            lines = sort_imagenet(files, args.output, counts, progress)
        except KeyboardInterrupt:
            print("sgt data imagenet: interrupted; the same command goes on", file=sys.stderr)
            return 130
    print("\n".join([*lines, f"sgt data check {args.output} looks for images that are damaged"]))
    return 0


class _Progress:
    """A bar on a terminal, elsewhere a line every half minute; on standard error."""

    def __init__(self) -> None:
        self._bar = open_bar(sys.stderr, is_transient=True)
        self._period_s = 0.1 if self._bar else 30.0
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, split: str, number: int, total: int) -> None:
        if time.monotonic() - self._shown < self._period_s:
            return
        self._shown = time.monotonic()
        if self._bar:
            self._bar.show(f"Sorting {split}", number, total)
        else:
            print(f"{split}: {number:,} of {total:,} images", file=sys.stderr, flush=True)


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
