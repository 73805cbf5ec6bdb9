"""The command line: finds the command, and turns errors into a line and an exit code."""

import io
import re
import sys
import warnings
from collections.abc import Sequence

from softmax_gradient_tampering import __version__
from softmax_gradient_tampering.commands.extras import describe_missing
from softmax_gradient_tampering.commands.registry import COMMANDS, Main, find_command
from softmax_gradient_tampering.errors import UserError, as_printable
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.terminal.streams import print_line
from softmax_gradient_tampering.training.processes.launch import is_alone, is_first_process

HELP = """\
usage: sgt [--version] [--help] COMMAND ...

Softmax gradient tampering: train, validate, try it out.

commands:
{commands}

`sgt COMMAND --help` says more of each.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a user's mistake, 143 or 130 when stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if words else 2
    name, *words = words
    if name == "--version":
        print(f"sgt {__version__}")
        return 0
    command = find_command(name)
    if command is None:
        hint = nearest(name, [command.name for command in COMMANDS]) or "; see sgt --help"
        print(f"sgt: error: unknown command {name!r:.80}{hint}", file=sys.stderr)
        return 2
    return run_command(f"sgt {name}", lambda argv: command.load()(argv), words, command.extras)


def help_text() -> str:
    """What `sgt --help` prints."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:{width}}  {command.help}" for command in COMMANDS]
    return HELP.format(commands="\n".join(lines))


def run_command(
    name: str, command: Main, argv: Sequence[str], extras: Sequence[str] = ("train",)
) -> int:
    """Run a command, turning what ends it into one line and an exit code.

    Args:
        name: what the user has called, for messages.
        command: runs it.
        argv: its arguments.
        extras: of the installation that it needs.
    """
    warnings.showwarning = _show_warning
    # Torch's, where there is no numpy: a command that needs numpy says so by itself.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        return command(argv) or 0
    except UserError as error:
        _print_error(f"{name}: error: {error}", is_local=error.is_local)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = describe_missing(error, extras)
        if missing is None:
            raise
        _print_error(f"{name}: error: {missing}")
        return 2
    except RuntimeError as error:
        if not _lost_a_process(error):
            raise
        where = _peer_of(error)
        _print_error(
            f"{name}: error: another process of this run{where} has ended; its message says why",
            is_local=bool(where),
        )
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; say nothing
        return 1
    except KeyboardInterrupt:
        _print_error(f"{name}: interrupted; a training run goes on with --resume auto")
        return 130


def _print_error(line: str, is_local: bool = False) -> None:
    if is_local or is_first_process():
        print_line(as_printable(line), sys.stderr)


def _lost_a_process(error: RuntimeError) -> bool:
    """Whether a collective operation failed because its peer is gone."""
    signs = ("closed by peer", "Connection reset", "NCCL", "Broken pipe", "gloo")
    return not is_alone() and any(sign in str(error) for sign in signs)


def _peer_of(error: RuntimeError) -> str:
    """Where the lost process was, where torch says it: gloo names the address of its peer."""
    found = re.search(r"\[([0-9a-fA-F.:]+)\]:[0-9]+", str(error))
    return f", at {found[1]}," if found else ""


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """One line, without the source that nobody asked for."""
    _print_error(f"warning: {message}")
