"""The command line of `sgt reproduce`: a published row as a study, with its controls."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.recipes.catalogue import (
    Row,
    find_row,
    margin_of,
    published_figures,
    recipe_path,
    split_batch,
)
from softmax_gradient_tampering.studies.plan.design import CONTROLS, StudyOptions, make_plan
from softmax_gradient_tampering.studies.plan.flags import grid_line, grid_of, seed_list
from softmax_gradient_tampering.studies.plan.machine import add_machine_flags, machine_of
from softmax_gradient_tampering.studies.plan.request import RunRequest, parse_words
from softmax_gradient_tampering.studies.plan.settings import shared_settings
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.training.config.arguments import given_flags, parse_arguments
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.config.refusals import check_config

_AROUND = (0.5, 1.0, 2.0)  # of the recipe's values, in the grid of the tuned baseline
_OUTPUT = "output/reproduce"


@dataclass(frozen=True)
class Reproduction:
    """What `sgt reproduce` is asked for.

    Attributes:
        row: the recipes that are compared.
        path: of the study.
        action: run, plan, dry_run or row.
        request: of the study; None where only the row of one that is there is asked for.
        config: of the baseline's runs; None likewise.
        missing_control: why there is no equivalent control; empty where there is one.
    """

    row: Row
    path: Path
    action: str
    request: RunRequest | None = None
    config: Config | None = None
    missing_control: str = ""


def parse_reproduction(argv: Sequence[str]) -> Reproduction:
    """The request of a command line.

    Raises:
        UserError: a mistake in it, or in the training flags.
        SystemExit: after --help.
    """
    args, training = parse_words(argv, _parser())
    row = find_row(args.row)
    path = Path(args.output) / args.row.replace("/", "-")
    if args.action == "row":
        return Reproduction(row, path, args.action)
    if args.data_dir is None:
        raise UserError("--data_dir DIR is missing, the folder of ImageNet")
    if not Path(args.data_dir).is_dir():
        raise UserError(f"--data_dir {args.data_dir}: there is no such folder")
    words = _training_words(row, args, training)
    config = parse_arguments(words, find_recipe=recipe_path)
    missing = _missing_control(config)
    controls = args.controls
    if controls is None:
        controls = [control for control in CONTROLS if not (missing and control == "equivalent")]
    elif missing and "equivalent" in controls:
        raise UserError(f"--controls equivalent: {missing}")
    options = StudyOptions(
        name=path.name,
        alphas=[1.0, *(published_figures(name).alpha for name in row.tampered)],
        seeds=args.seeds,
        tuning_seeds=args.tuning_seeds,
        controls=controls,
        grid=_grid(args.grid, config) if "tuned" in controls else None,
        processes_per_run=_num_processes(row, args),
        margin=margin_of(row),
        command=["sgt", "reproduce", *argv],
    )
    plan = make_plan(options, shared_settings(words, config))
    for arm in plan.arms:
        check_config(plan.config_of(arm, 0))
    request = RunRequest(plan, path, machine_of(vars(args)), args.keep_checkpoints)
    missing = missing if "equivalent" not in controls else ""
    return Reproduction(row, path, args.action, request, config, missing)


def _num_processes(row: Row, args: argparse.Namespace) -> int:
    number: int | None = args.processes_per_run
    if number is None:
        return published_figures(row.baseline).processes
    if number < 1:
        raise UserError(f"--processes-per-run {number}: must be at least 1")
    return number


def _training_words(row: Row, args: argparse.Namespace, training: Sequence[str]) -> list[str]:
    """The training flags of all arms: the recipe's, what the arms must share, and the user's.

    The recipe's `amp` is float16 on a GPU, in which the equivalent control does not hold. What
    an accuracy is compared with must be computed in the same precision, so all arms have
    bfloat16, on every device.
    """
    given = given_flags(training)
    for name in ("recipe", "config"):
        if name in given:
            raise UserError(f"--{name} after --: the ROW says what is trained; leave it out")
    if "data_dir" in given:
        raise UserError("--data_dir after --: give the one folder before --")
    batch_size, accumulation = split_batch(row.baseline, _num_processes(row, args))
    words = ["--recipe", row.baseline, "--data-dir", args.data_dir]
    words += ["--batch-size", str(batch_size), "--grad-accum-steps", str(accumulation)]
    if not {"amp", "native_amp", "amp_dtype"} & given.keys():
        words += ["--amp-dtype", "bfloat16"]
    # The logits of ImageNet are more than are kept of a run.
    return [*words, "--no-save-predictions", *training]


def _missing_control(config: Config) -> str:
    """Why the row has no equivalent ordinary training; empty where it has one."""
    if config.clip_grad and config.clip_mode != "agc":
        return (
            f"there is none with clipping by {config.clip_mode}: below the head the ordinary "
            "gradient is alpha times the tampered one, and at the head it is the same, so that no "
            "threshold clips both alike"
        )
    if config.amp_dtype == "float16":
        return "there is none in float16, whose loss scale skips other steps in each arm"
    return ""


def _grid(given: Sequence[tuple[str, list[str]]] | None, config: Config) -> dict[str, list[str]]:
    """The grid of the tuned baseline: half, once and twice the recipe's rate and weight decay."""
    if given is not None:
        return grid_of(given)
    values: dict[str, float] = {"lr": config.lr, "weight_decay": config.weight_decay}
    return {name: [repr(factor * value) for factor in _AROUND] for name, value in values.items()}


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="sgt reproduce",
        usage="sgt reproduce ROW --data_dir DIR [options] [-- training flags]",
        description="Train a published row with the recipe's settings: alpha 1 and the row's "
        "alpha, the equivalent ordinary training and a tuned baseline, over several seeds, as a "
        "study that the same command goes on with. All arms are trained in bfloat16, since the "
        "recipe's float16 has no equivalent control, and at the published number of samples a "
        "step. It ends with the row for docs/reproduce.md. Exit code: as sgt study run.",
        epilog="What follows -- goes to every run: --dali, for instance, or --no-amp on a GPU "
        "without bfloat16. See sgt train --help.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "row",
        metavar="ROW",
        help="name of a recipe, as sgt recipes lists it; one of alpha 1 stands for all rows that "
        "are compared with it",
    )
    parser.add_argument(
        "--data_dir", "--data-dir", metavar="DIR", help="folder of ImageNet, with train and val"
    )
    parser.add_argument(
        "--seeds",
        type=seed_list,
        default=tuple(range(10)),
        metavar="N",
        help="train every arm with this many seeds, from 0 on, or with these: 3,5,8 [10]",
    )
    parser.add_argument(
        "--output", default=_OUTPUT, metavar="DIR", help=f"keep the study in DIR/ROW [{_OUTPUT}]"
    )
    parser.add_argument(
        "--processes-per-run",
        type=int,
        metavar="N",
        help="train each run on N GPUs; batch size and accumulation follow, so that a step has "
        "the published samples [as published: 4]",
    )
    parser.add_argument(
        "--controls",
        nargs="*",
        metavar="CONTROL",
        help="controls of the row: equivalent, tuned, both or none [both, where the row has them]",
    )
    parser.add_argument(
        "--grid",
        type=grid_line,
        nargs="+",
        metavar="FLAG=VALUES",
        help="choose the tuned baseline's settings from these [half, once and twice the recipe's "
        "lr and weight_decay]",
    )
    parser.add_argument(
        "--tuning-seeds",
        type=seed_list,
        default=(0,),
        metavar="SEEDS",
        help="train every point of the grid with these seeds [1]",
    )
    parser.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep all checkpoints of a finished run, not last.pth.tar alone [off]",
    )
    add_machine_flags(parser)
    actions = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--dry-run", "print what would be trained, try whether it can be, write nothing [off]"),
        ("--plan", "plan the study, for sgt study commands, and start nothing [off]"),
        ("--row", "print the row of the study that is there, and train nothing [off]"),
    ):
        name = flag.removeprefix("--").replace("-", "_")
        actions.add_argument(flag, dest="action", action="store_const", const=name, help=text)
    parser.set_defaults(action="run")
    return parser
