"""The flags of `sgt study run` and `plan`, and those that `search` shares with them."""

import argparse
import shlex
from collections.abc import Sequence

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.machine import add_machine_flags
from softmax_gradient_tampering.studies.plan.plan import (
    ACCURACY,
    METRICS,
    RECALL,
    is_metric,
)
from softmax_gradient_tampering.terminal.parser import ArgumentParser, nearest
from softmax_gradient_tampering.training.config.arguments import check_once

_MAX_SEEDS = 100_000


def seed_list(text: str) -> tuple[int, ...]:
    """10 as 0 to 9; 3,5,8 as they are; 7, as seed 7 alone."""
    try:
        if "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part.strip())
            if seeds:
                return seeds
        elif 0 <= int(text) <= _MAX_SEEDS:
            return tuple(range(int(text)))
    except ValueError:
        pass
    raise UserError(
        f"--seeds {text:.40}: expected a number of seeds, such as 10, up to {_MAX_SEEDS:,}, or a "
        "list, such as 3,5,8"
    )


def grid_line(text: str) -> tuple[str, list[str]]:
    """lr=0.05,0.1 as ("lr", ["0.05", "0.1"])."""
    name, equals, values = text.partition("=")
    if not equals or not name:
        raise UserError(f"--grid {text}: expected FLAG=VALUE,VALUE, such as lr=0.05,0.1")
    return name, [value for value in values.split(",") if value]


def grid_of(lines: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """The texts of a grid's values, by flag.

    Raises:
        UserError: a flag is given twice.
    """
    check_once((flag for flag, _ in lines), "--grid")
    return dict(lines)


def arm_line(text: str) -> tuple[str, dict[str, str]]:
    """The name of an arm, and its flags with their texts.

    >>> arm_line("smooth: smoothing=0.1 scale=0.5,1")
    ('smooth', {'smoothing': '0.1', 'scale': '0.5,1'})
    """
    name, colon, rest = text.partition(":")
    where = f"--arm {text:.60}"
    if not colon:
        raise UserError(f"{where}: expected NAME: FLAG=VALUE, such as 'smooth: smoothing=0.1'")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UserError(f"{where}: a quotation mark has no other one") from error
    flags: dict[str, str] = {}
    for word in words:
        flag, equals, value = word.partition("=")
        if not (flag and equals):
            raise UserError(f"{where}: expected FLAG=VALUE, got {word:.40}; a switch is FLAG=true")
        check_once((*flags, flag), where)
        flags[flag] = value
    return name.strip(), flags


def metric_name(text: str) -> str:
    """What a study is judged by."""
    if not is_metric(text):
        raise UserError(
            f"--metric {text:.60}: there are {', '.join(METRICS)} and {RECALL}CLASS"
            f"{nearest(text, METRICS)}"
        )
    return text


def add_metric(parser: argparse.ArgumentParser, judged: str, on: str) -> None:
    """`--metric`, by which `judged` are judged on a part of the data."""
    parser.add_argument(
        "--metric",
        type=metric_name,
        help=f"judge the {judged} by this, all in percent of the {on}: {', '.join(METRICS)} (that "
        f"of the class with the lowest), or {RECALL}CLASS, the recall of a class [{ACCURACY}]",
    )


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `run` and `search` have in common."""
    parser.add_argument("--name", help="name of the study; its folder is DIR/NAME [required]")
    parser.add_argument(
        "--output", metavar="DIR", help="keep the folders of studies in this one [output/study]"
    )
    parser.add_argument(
        "--holdout",
        type=float,
        metavar="SHARE",
        help="choose settings on this share of the training set, held out by the seed [0.2]",
    )
    add_machine_flags(parser)


_DESCRIPTIONS = {
    "run": "Train every arm, alphas and others and the controls, with every seed, and keep what "
    "was measured. The same seed means the same initial weights, batches and augmentation in every "
    "arm. Run again, it does what is missing, and what is added of arms and seeds; several "
    "processes share the work. It ends with the first sentence of the report. Exit code: 0 if all "
    "is well, runs that diverged among it; 2 for a mistake and for runs that failed; 130 after "
    "Ctrl-C, 143 after SIGTERM.",
    "plan": "Plan what `sgt study run` with the same words would train, and start nothing. One "
    "run of every arm is set up, so that a mistake shows. Exit code: 0, or 2 for a mistake.",
}


def run_parser(action: str) -> argparse.ArgumentParser:
    """The parser of `sgt study run` or `plan`; what is not given is not in what it returns."""
    parser = ArgumentParser(
        prog=f"sgt study {action}",
        usage=f"sgt study {action} --name NAME [options] -- [training flags]",
        description=_DESCRIPTIONS[action],
        epilog="What follows -- goes to every run: see sgt train --help. "
        "Example: sgt study run --name first --alphas 1 0.5 0.25 --seeds 10 --controls equivalent "
        "-- --epochs 40 --batch-size 64 --lr 0.05",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="read these options from a study.yaml; flags override it"
    )
    add_shared_flags(parser)
    parser.add_argument(
        "--alphas",
        type=float,
        nargs="+",
        metavar="ALPHA",
        help="train an arm at each of these alphas, with the other flags of the baseline "
        "[1 0.25; with --arm, 1]",
    )
    parser.add_argument(
        "--arm",
        dest="arms",
        action="append",
        type=arm_line,
        metavar="'NAME: FLAG=VALUE ...'",
        help="train an arm with these training flags, such as 'mixed: mixup=0.2 opt=adamw'; "
        "several numbers of a flag have commas between them; give --arm again for each arm [none]",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="compare the arms with this one [alpha-1, ordinary training]",
    )
    parser.add_argument(
        "--seeds",
        type=seed_list,
        help="train every arm with this many seeds, from 0 on, or with these: 3,5,8 [10; with "
        "--until-settled, 5 to begin with]",
    )
    parser.add_argument(
        "--until-settled",
        action="store_true",
        help="add seeds until every arm is settled: it differs from the baseline, or its interval "
        "lies within the margin [off]",
    )
    parser.add_argument(
        "--max-seeds", type=int, metavar="N", help="add seeds up to N of an arm [40]"
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="count differences within this many points as none [0.5]",
    )
    add_metric(parser, "arms", "test set")
    parser.add_argument(
        "--controls",
        nargs="+",
        metavar="CONTROL",
        help="add control arms; equivalent: ordinary training re-set to coincide with each "
        "tampered arm; tuned: the baseline at its best settings of --grid [none]",
    )
    parser.add_argument(
        "--grid",
        type=grid_line,
        nargs="+",
        metavar="FLAG=VALUES",
        help="choose the tuned arm's settings from these: lr=0.05,0.1 weight_decay=0,1e-4 [none]",
    )
    parser.add_argument(
        "--tuning-seeds",
        type=seed_list,
        metavar="SEEDS",
        help="train every point of the grid with these seeds [those of --seeds]",
    )
    parser.add_argument(
        "--alpha-schedules",
        nargs="+",
        metavar="WAY:START:END",
        help="add an arm whose alpha changes over the epochs for each of these, "
        "such as linear:1:0.25 or cosine:1:0.25 [none]",
    )
    parser.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep all checkpoints of a finished run, not last.pth.tar alone [off]",
    )
    parser.add_argument(
        "--processes-per-run",
        type=int,
        metavar="N",
        help="above 1, train every run as a torchrun job of N processes [1]",
    )
    return parser
