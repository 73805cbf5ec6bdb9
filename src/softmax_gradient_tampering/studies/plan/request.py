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
from softmax_gradient_tampering.studies.plan.design import StudyOptions, make_plan
from softmax_gradient_tampering.studies.plan.flags import grid_of, run_parser
from softmax_gradient_tampering.studies.plan.machine import Machine, machine_of
from softmax_gradient_tampering.studies.plan.plan import ACCURACY, DEFAULT_MARGIN, Plan, Settling
from softmax_gradient_tampering.studies.plan.settings import shared_settings
from softmax_gradient_tampering.studies.plan.study_file import TRAIN_KEY, read_study_file
from softmax_gradient_tampering.training.config.arguments import FIELDS, parse_arguments

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
    given, training = _given(argv, action)
    name = given.pop("name", None)
    if name is None:
        raise UserError("--name NAME is missing, the folder of the study in --output")
    check_name(name)
    settings = shared_settings(training, parse_arguments(training, find_recipe=recipe_path))
    settling = _settling(given)
    num_seeds = 10 if settling is None else min(_FIRST_SEEDS, settling.max_seeds)
    options = StudyOptions(
        name=name,
        alphas=given.get("alphas"),
        arms=given.get("arms", {}),
        baseline=given.get("baseline"),
        seeds=given.get("seeds", tuple(range(num_seeds))),
        tuning_seeds=given.get("tuning_seeds"),
        controls=given.get("controls", ()),
        grid=grid_of(given.get("grid", ())) or None,
        alpha_schedules=given.get("alpha_schedules", ()),
        holdout=given.get("holdout", 0.2),
        processes_per_run=given.get("processes_per_run", 1),
        settling=settling,
        metric=given.get("metric", ACCURACY),
        command=["sgt", "study", "run", *argv],
    )
    path = Path(given.get("output", "output/study")) / name
    plan = make_plan(options, settings)
    return RunRequest(plan, path, machine_of(given), given.get("keep_checkpoints", False))


def _given(argv: Sequence[str], action: str) -> tuple[dict[str, Any], list[str]]:
    """What a command line and its study.yaml say: the study's own flags, and the training words."""
    args, training = parse_words(argv, run_parser(action))
    given = vars(args)
    arms = _by_name(given.pop("arms", ()))
    if "config" in given:
        path = Path(given.pop("config"))
        from_file, words = read_study_file(path, run_parser(action))
        try:
            parse_arguments(words, find_recipe=recipe_path)
        except UserError as error:
            raise UserError(f"{path}: {TRAIN_KEY}: {error}") from error
        training = [*words, *training]
        arms = {**_by_name(from_file.pop("arms", ())), **arms}
        given = {**from_file, **given}
    return {**given, "arms": arms}, training


def _by_name(arms: Sequence[tuple[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """The flags of arms by name.

    Raises:
        UserError: two arms have one name.
    """
    names = [name for name, _ in arms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--arm {twice}: two arms have this name; give one of them another")
    return dict(arms)


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
        points = f"points of {given.get('metric', ACCURACY)}"
        raise UserError(f"--margin {settling.margin:g}: must be above 0, in {points}")
    return settling


def parse_words(
    argv: Sequence[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, list[str]]:
    """What the words before -- say to a parser, and the training flags after it.

    Raises:
        UserError: a word is wrong, or a training flag stands before --.
    """
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    for word in parser.parse_known_args(words[:at])[1]:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag[2:].replace("-", "_") in FIELDS:
            raise UserError(f"{flag} is a training flag; give it after --")
    return parser.parse_args(words[:at]), words[at + 1 :]


def check_name(name: str) -> None:
    """Refuse a name that is not a plain folder's.

    Raises:
        UserError: it is not.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > 100:
        raise UserError(
            f"--name {name!r:.60}: must be a plain folder name of letters, digits, '.', '_', '-'"
        )
