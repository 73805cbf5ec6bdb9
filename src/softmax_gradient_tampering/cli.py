"""The command line: `sgt train`, `validate`, `recipes`, `data`, `study`, `report` and the rest."""

import atexit
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from softmax_gradient_tampering.errors import UserError, as_printable

STOPPED_BY_A_SIGNAL = (130, 143)
Command = Callable[[Sequence[str]], int | None]  # arguments to exit code, None being 0

HELP = """\
usage: sgt [--version] [--help] COMMAND ...

Softmax gradient tampering: train, validate, try it out.

commands:
  train       train a classifier; the same program as train.py
  validate    evaluate a checkpoint: train --validate
  recipes     the published experiments: list, show, schedule
  checkpoint  show what is in a checkpoint
  data        check a folder of images: bad files, class counts, duplicates
  study       several alphas and seeds, with the controls that an answer needs
  report      a study, a run or a summary.csv as one HTML page
  plot        draw a run: filter-norms
  demo        train on handwritten digits with and without tampering, and compare

`sgt COMMAND --help` says more of each.
"""


def program() -> NoReturn:
    """The program `sgt`: run the command that it was called with, and end the process."""
    leave(main())


def leave(code: int) -> NoReturn:
    """End the process; after a signal without taking the interpreter apart.

    That takes most of a second, which a machine that is being taken away may not have. All files
    are written and synced by then, the processes' group is closed, and what was registered to run
    at the end runs.
    """
    if code in STOPPED_BY_A_SIGNAL:
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a user's mistake, 143 or 130 when stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 2
    if words[0] == "--version":
        from softmax_gradient_tampering import __version__

        print(f"sgt {__version__}")
        return 0
    commands: dict[str, Command] = {
        "train": train,
        "validate": validate,
        "recipes": recipes,
        "checkpoint": checkpoint,
        "data": data,
        "study": study,
        "report": report,
        "plot": plot,
        "demo": demo,
    }
    command = commands.get(words[0])
    if command is None:
        print(f"sgt: error: unknown command {words[0]!r}; see sgt --help", file=sys.stderr)
        return 2
    return run_command(f"sgt {words[0]}", command, words[1:])


def run_command(name: str, command: Command, argv: Sequence[str]) -> int:
    """Run a command, turning a user's mistake into one line and exit code 2."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        return command(argv) or 0
    except UserError as error:
        _print_error(f"{name}: error: {error}", is_local=error.is_local)
        return 2
    except RuntimeError as error:
        if not _lost_a_process(error):
            raise
        _print_error(f"{name}: error: another process of this run has ended; its message says why")
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; say nothing
        return 1
    except KeyboardInterrupt:
        _print_error(f"{name}: interrupted; a training run goes on with --resume auto")
        return 130


def train(argv: Sequence[str], program: str = "sgt train") -> int:
    from softmax_gradient_tampering.training.config.arguments import parse_arguments

    config = parse_arguments(argv, program, find_recipe)

    from softmax_gradient_tampering.training.run import run

    return run(config).exit_code


def validate(argv: Sequence[str]) -> None:
    train([*argv, "--validate"], program="sgt validate")


def recipes(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.recipes import main as run_recipes

    run_recipes(argv)


def study(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.study import main as run_study

    run_study(argv)


def checkpoint(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.checkpoint import main as run_checkpoint

    run_checkpoint(argv)


def plot(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.plot import main as run_plot

    run_plot(argv)


def find_recipe(name: str) -> Path:
    from softmax_gradient_tampering.recipes.catalogue import recipe_path

    return recipe_path(name)


def report(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.report import main as run_report

    run_report(argv)


def data(argv: Sequence[str]) -> int:
    from softmax_gradient_tampering.commands.data import main as run_data

    return run_data(argv)


def demo(argv: Sequence[str]) -> None:
    from softmax_gradient_tampering.commands.demo import main as run_demo

    run_demo(argv)


def _print_error(line: str, is_local: bool = False) -> None:
    from softmax_gradient_tampering.training.processes.launch import is_first_process

    if is_local or is_first_process():
        print(as_printable(line), file=sys.stderr, flush=True)


def _lost_a_process(error: RuntimeError) -> bool:
    """Whether a collective operation failed because its peer is gone."""
    from softmax_gradient_tampering.training.processes.launch import is_alone

    signs = ("closed by peer", "Connection reset", "NCCL", "Broken pipe", "gloo")
    return not is_alone() and any(sign in str(error) for sign in signs)


def _show_warning(message: Warning | str, *_: object) -> None:
    """One line, without the source that nobody asked for."""
    _print_error(f"warning: {message}")


if __name__ == "__main__":  # torchrun runs it as a module
    program()
