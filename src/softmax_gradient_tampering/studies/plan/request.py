"""The command line and the study.yaml of `sgt study run`."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.recipes.catalogue import recipe_path
from softmax_gradient_tampering.studies.plan.design import (
    StudyOptions,
    make_plan,
    shared_settings,
)
from softmax_gradient_tampering.studies.plan.machine import (
    Machine,
    add_machine_flags,
    machine_of,
)
from softmax_gradient_tampering.studies.plan.plan import DEFAULT_MARGIN, Plan, Settling
from softmax_gradient_tampering.studies.plan.study_file import TRAIN_KEY, read_study_file
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.training.config.arguments import parse_arguments

_MAX_SEEDS = 100_000
# A sequence has no interval before five pairs: a study that is to be settled begins with those.
_FIRST_SEEDS, _LEAST_SEEDS = 5, 3
_NAME = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class RunRequest:
    """What `sgt study run` is asked for.

    Attributes:
        plan: of the study.
        path: DIR/NAME.
        machine: what of it the runs may use.
        keeps_checkpoints: keep all checkpoints of finished runs, not the last one alone.
    """

    plan: Plan
    path: Path
    machine: Machine
    keeps_checkpoints: bool = False


def parse_run(argv: Sequence[str], action: str = "run") -> RunRequest:
    """The request of a command line.

    Args:
        argv: its words.
        action: of `sgt study`, for its --help: run or plan.

    Raises:
        UserError: a mistake in it, in the study.yaml, or in the training flags.
        SystemExit: after --help.
    """
    own, training = split_words(argv)
    given = vars(_parser(action).parse_args(own))
    if "config" in given:
        path = Path(given.pop("config"))
        from_file, words = read_study_file(path, _parser(action))
        try:
            parse_arguments(words, find_recipe=recipe_path)
        except UserError as error:
            raise UserError(f"{path}: {TRAIN_KEY}: {error}") from error
        training = [*words, *training]
        given = {**from_file, **given}
    name = given.pop("name", None)
    if name is None:
        raise UserError("--name NAME is missing, the folder of the study in --output")
    check_name(name)
    settings = shared_settings(training, parse_arguments(training, find_recipe=recipe_path))
    settling = _settling(given)
    num_seeds = 10 if settling is None else min(_FIRST_SEEDS, settling.max_seeds)
    options = StudyOptions(
        name=name,
        alphas=given.get("alphas", (1.0, 0.25)),
        seeds=given.get("seeds", tuple(range(num_seeds))),
        tuning_seeds=given.get("tuning_seeds"),
        controls=given.get("controls", ()),
        grid=dict(given.get("grid", ())) or None,
        alpha_schedules=given.get("alpha_schedules", ()),
        holdout=given.get("holdout", 0.2),
        processes_per_run=given.get("processes_per_run", 1),
        settling=settling,
        command=["sgt", "study", "run", *argv],
    )
    path = Path(given.get("output", "output/study")) / name
    plan = make_plan(options, settings)
    return RunRequest(plan, path, machine_of(given), given.get("keep_checkpoints", False))


def _settling(given: Mapping[str, Any]) -> Settling | None:
    """What --until-settled and its two flags ask for.

    Raises:
        UserError: one of the two stands alone, or asks for nothing that can be settled.
    """
    if not given.get("until_settled"):
        for name in ("max_seeds", "margin"):
            if name in given:
                raise UserError(f"--{name.replace('_', '-')} belongs to --until-settled; add that")
        return None
    settling = Settling(given.get("max_seeds", 40), given.get("margin", DEFAULT_MARGIN))
    if settling.max_seeds < _LEAST_SEEDS:
        raise UserError(f"--max-seeds {settling.max_seeds}: must be at least {_LEAST_SEEDS}")
    if not 0 < settling.margin < math.inf:
        raise UserError(f"--margin {settling.margin:g}: must be above 0, in points of accuracy")
    return settling


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The study's own words, and the training flags after --."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def check_name(name: str) -> None:
    """Refuse a name that is not a plain folder's.

    Raises:
        UserError: it is not.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > 100:
        raise UserError(
            f"--name {name!r:.60}: must be a plain folder name of letters, digits, '.', '_', '-'"
        )


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
    "run": "Train every seed at every alpha, and the controls, and keep what was measured. The "
    "same seed means the same initial weights, batches and augmentation in every arm. Run again, "
    "it does what is missing; several processes share the work. It ends with the first sentence "
    "of the report. Exit code: 0 if all is well, runs that diverged among it; 2 for a mistake and "
    "for runs that failed; 130 after Ctrl-C, 143 after SIGTERM.",
    "plan": "Plan what `sgt study run` with the same words would train, and start nothing. One "
    "run of every arm is set up, so that a mistake shows. Exit code: 0, or 2 for a mistake.",
}


def _parser(action: str) -> argparse.ArgumentParser:
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
        help="train an arm at each of these alphas; 1, ordinary training, is one of them [1 0.25]",
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
        help="add seeds until every tampered arm is settled: it differs from ordinary training, "
        "or its interval lies within the margin [off]",
    )
    parser.add_argument(
        "--max-seeds", type=int, metavar="N", help="add seeds up to N of an arm [40]"
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="count differences of accuracy within this many points as none [0.5]",
    )
    parser.add_argument(
        "--controls",
        nargs="+",
        metavar="CONTROL",
        help="add control arms; equivalent: ordinary training re-set to coincide with each alpha; "
        "tuned: ordinary training at its best settings of --grid [none]",
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
