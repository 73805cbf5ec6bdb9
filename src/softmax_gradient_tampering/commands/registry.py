"""The commands of `sgt`: its help is made from this list, and `cli` finds a command in it."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, cast

Main = Callable[[Sequence[str]], int | None]  # arguments to exit code, None being 0


class Command(NamedTuple):
    """A command of `sgt`.

    Attributes:
        name: the word that calls it, and the name of its file in this folder.
        help: what it does, in a line.
        extras: of the installation that it needs; its own help needs none.
    """

    name: str
    help: str
    extras: tuple[str, ...] = ("train",)

    def load(self) -> Main:
        """The function that runs it; its file is imported here."""
        return cast(Main, import_module(f"{__package__}.{self.name}").main)


COMMANDS = (
    Command("train", "train a classifier; the same program as train.py"),
    Command("validate", "evaluate a checkpoint: train --validate"),
    Command("recipes", "the published experiments: list, show, schedule"),
    Command("checkpoint", "show what is in a checkpoint"),
    Command("data", "check a folder of images; sort ImageNet's official files"),
    Command("study", "several alphas and seeds, with the controls that an answer needs"),
    Command("reproduce", "a published row, trained with its controls and compared"),
    Command("report", "a study, a run or a summary.csv as one HTML page", ("train", "study")),
    Command("plot", "draw a run: filter-norms", ("train", "study")),
    Command(
        "demo",
        "train on handwritten digits with and without tampering, compare",
        ("train", "study"),
    ),
)


def find_command(name: str) -> Command | None:
    """The command of that name; None where there is none."""
    return next((command for command in COMMANDS if command.name == name), None)
