"""Standard streams that are closed when the program starts, or that nobody takes from."""

import os
import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import TextIO


def open_missing_streams() -> None:
    """Open the null device in the place of each standard stream that is closed.

    Otherwise the next file to be opened, a checkpoint perhaps, would have the number of a standard
    stream, and what a library prints would end up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def print_line(text: str, stream: "TextIO | None" = None) -> None:
    """Print to standard output or another stream; where nobody takes it, what follows is lost too.

    A full disk, a closed pipe or a terminal that is gone ends no program that has work to do.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        give_up(stream)


def give_up(stream: "TextIO") -> None:
    """Let a stream end in the null device: the rest of its buffer would fail again at the end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # it is closed, or no file
        pass
