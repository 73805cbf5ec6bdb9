"""The run folder is moved, removed or replaced under a run: it stops, and keeps nothing half."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.run import run
from tests.training.runs import assert_same_run, train

WORDS = ("--epochs", 4, "--output", "out")


def move() -> None:
    Path("out/run").rename("out/moved")


def replace() -> None:
    move()
    Path("out/run").mkdir()


def move_the_output_folder() -> None:
    Path("out").rename("elsewhere")
    Path("out/run").mkdir(parents=True)


def remove() -> None:
    shutil.rmtree("out/run")


@pytest.mark.parametrize(
    ("change", "moved_to"),
    [
        (move, "out/moved"),
        (replace, "out/moved"),
        (move_the_output_folder, "elsewhere/run"),
        (remove, None),
    ],
)
@pytest.mark.parametrize("number", [8, 15], ids=["second epoch", "third epoch"])
def test_nothing_is_written_elsewhere_and_what_was_moved_goes_on(
    change: Callable[[], None], moved_to: str | None, number: int
) -> None:
    batches = iter(range(1000))

    def after_batch() -> None:
        if next(batches) == number:
            change()

    config = parse_arguments([*map(str, WORDS), "--experiment", "run"])
    with pytest.raises(UserError, match=r"out/run: no longer the folder in which the run began"):
        run(config, is_silent=True, after_batch=after_batch)
    assert not Path("out/run").exists() or list(Path("out/run").iterdir()) == []
    if moved_to is None:
        return
    output, name = moved_to.split("/")
    resumed = train("--epochs", 4, "--output", output, "--experiment", name, "--resume", "auto")
    assert resumed.status == "finished"
    train("--epochs", 4, "--output", "whole", "--experiment", "whole")
    assert_same_run(Path(moved_to), Path("whole/whole"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", 1e9), r"gradient is not finite .*not written: out/run: no longer the folder"),
        (("--save-images", "--log-interval", 1), "no longer the folder"),
    ],
    ids=["nonfinite", "images"],
)
def test_neither_reports_nor_images_are_written_elsewhere(
    words: tuple[str | float, ...], message: str
) -> None:
    batches = iter(range(1000))

    def after_batch() -> None:
        if next(batches) == 0:
            replace()

    config = parse_arguments([*map(str, (*WORDS, *words)), "--experiment", "run"])
    with pytest.raises(UserError, match=message):
        run(config, is_silent=True, after_batch=after_batch)
    assert not Path("out/run").exists() or list(Path("out/run").iterdir()) == []


def test_another_program_in_the_folder_stops_the_first() -> None:
    batches = iter(range(1000))

    def after_batch() -> None:
        if next(batches) == 8:  # somebody took the lock for stale, and another program came
            Path("out/run/.lock").unlink()
            Path("out/run/.lock").write_text("another program's")

    config = parse_arguments([*map(str, WORDS), "--experiment", "run"])
    with pytest.raises(UserError, match="another program has locked it since"):
        run(config, is_silent=True, after_batch=after_batch)
    assert Path("out/run/.lock").read_text() == "another program's"
