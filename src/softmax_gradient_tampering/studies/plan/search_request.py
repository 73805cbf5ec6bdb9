"""The command line of `sgt study search`."""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.recipes.catalogue import recipe_path
from softmax_gradient_tampering.studies.plan.design import check_seeds
from softmax_gradient_tampering.studies.plan.flags import add_metric, add_shared_flags, seed_list
from softmax_gradient_tampering.studies.plan.machine import Machine, machine_of
from softmax_gradient_tampering.studies.plan.plan import ACCURACY
from softmax_gradient_tampering.studies.plan.request import check_name, parse_words
from softmax_gradient_tampering.studies.plan.settings import shared_settings
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.training.config.arguments import parse_arguments

_OF_A_STUDY = ("--arm", "--baseline", "--alphas", "--controls", "--alpha-schedules")


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What `sgt study search` is asked for.

    Attributes:
        path: DIR/NAME.
        num_trials: to have in the end.
        alpha_range, lr_range: what is proposed, from the smaller to the larger.
        seeds: of every trial.
        holdout: share of the training set that a trial is judged on.
        metric: what a trial is judged by.
        storage: URL of a database of the trials; None for memory.
        settings: of all runs, as plain values.
        machine: what of it the runs may use.
    """

    path: Path
    num_trials: int
    alpha_range: tuple[float, float]
    lr_range: tuple[float, float]
    seeds: Sequence[int]
    holdout: float
    metric: str
    storage: str | None
    settings: Mapping[str, Any]
    machine: Machine


def parse_search(argv: Sequence[str]) -> SearchRequest:
    """The request of a command line.

    Raises:
        UserError: a mistake in it, or in the training flags.
        SystemExit: after --help.
    """
    _refuse_arms(argv)
    args, training = parse_words(argv, _parser())
    if args.name is None:
        raise UserError("--name NAME is missing, the folder of the search in --output")
    check_name(args.name)
    if args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    check_seeds("--seeds", args.seeds)
    if not 0 < args.holdout < 1:
        raise UserError(f"--holdout {args.holdout:g}: must be above 0 and below 1")
    for name in ("alpha_range", "lr_range"):
        low, high = getattr(args, name)
        if not 0 < low < high < math.inf:
            flag = f"--{name.replace('_', '-')} {low:g} {high:g}"
            raise UserError(f"{flag}: must be above 0, the smaller one first")
    settings = shared_settings(training, parse_arguments(training, find_recipe=recipe_path))
    settings["save_predictions"] = False
    return SearchRequest(
        path=Path(args.output) / args.name,
        num_trials=args.trials,
        alpha_range=tuple(args.alpha_range),
        lr_range=tuple(args.lr_range),
        seeds=args.seeds,
        holdout=args.holdout,
        metric=args.metric,
        storage=args.storage,
        settings=settings,
        machine=machine_of(vars(args)),
    )


def _refuse_arms(argv: Sequence[str]) -> None:
    """Refuse the flags of a study's arms, which a search does not have."""
    for word in itertools.takewhile("--".__ne__, argv):
        flag = word.partition("=")[0]
        if flag in _OF_A_STUDY:
            raise UserError(
                f"{flag}: a search has no arms, it proposes alphas and rates; give the other flags "
                "of its trials after --, and compare what it finds by sgt study run"
            )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="sgt study search",
        usage="sgt study search --name NAME [options] -- [training flags]",
        description="Look for the alpha and the learning rate that are best on a part of the "
        "training set held out. The first trial is ordinary training. It finds settings; "
        "whether they help is for sgt study run to say.",
        allow_abbrev=False,
    )
    add_shared_flags(parser)
    parser.add_argument(
        "--trials", type=int, default=30, metavar="N", help="stop when N trials are done [30]"
    )
    parser.add_argument(
        "--alpha-range",
        type=float,
        nargs=2,
        default=(0.05, 1.0),
        metavar=("LOW", "HIGH"),
        help="propose alphas between these two [0.05 1]",
    )
    parser.add_argument(
        "--lr-range",
        type=float,
        nargs=2,
        default=(0.01, 0.5),
        metavar=("LOW", "HIGH"),
        help="propose learning rates between these two [0.01 0.5]",
    )
    parser.add_argument(
        "--seeds",
        type=seed_list,
        default=(0, 1, 2),
        help="train every trial with this many seeds, from 0 on, or with these: 3,5,8 [3]",
    )
    add_metric(parser, "trials", "held-out part")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="keep the trials in a database that several machines share, such as "
        "postgresql://... [memory]",
    )
    parser.set_defaults(output="output/study", holdout=0.2, name=None, metric=ACCURACY)
    return parser
