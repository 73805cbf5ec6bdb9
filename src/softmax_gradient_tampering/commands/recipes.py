"""`sgt recipes`: list the published experiments, show one, print its schedule."""

import argparse
from collections.abc import Sequence

from softmax_gradient_tampering.recipes.catalogue import (
    published_figures,
    recipe_names,
    recipe_path,
)
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.training.config.arguments import load_config

EPILOG = """\
Train one with

  sgt train --recipe resnet18/cosine-scheduler-alpha-0.25 --data_dir IMAGENET_DIR

under torchrun with 4 processes, as published; any flag overrides the recipe's. sgt reproduce
trains one with the baseline that it was compared with, and with controls.
"""


def main(argv: Sequence[str]) -> None:
    """List the recipes, or show or schedule the one named."""
    parser = ArgumentParser(
        prog="sgt recipes",
        description="The published experiments, a recipe each. Without arguments, list them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "show", "schedule"),
        default="list",
        help="list: all of them, with their published figures; show: the YAML file of one; "
        "schedule: its learning rate in every epoch, as CSV [list]",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="name of a recipe, as list prints it"
    )
    args = parser.parse_args(argv)
    if args.action == "list":
        _print_list()
        return
    if args.name is None:
        parser.error(f"{args.action} needs the NAME of a recipe")
    path = recipe_path(args.name)
    if args.action == "show":
        print(path.read_text(), end="")
        return
    from softmax_gradient_tampering.training.step.schedule import epoch_rates

    print("epoch,lr")
    for epoch, rate in enumerate(epoch_rates(load_config(path))):
        print(f"{epoch},{rate!r}")


def _print_list() -> None:
    rows = {name: published_figures(name) for name in recipe_names()}
    width = max(map(len, rows))
    print(f"{'recipe':{width}}  alpha  train acc.  test acc.  source")
    for name, row in rows.items():
        train = f"{row.train_accuracy:.2f}" if row.train_accuracy is not None else "-"
        star = "*" if row.note else ""
        accuracies = f"{train:>10}  {row.test_accuracy:9.3f}"
        print(f"{name:{width}}  {row.alpha:5g}  {accuracies}  {row.source}{star}")
    print("\nPublished figures, in percent, of one run each. * has a note: sgt recipes show NAME")
