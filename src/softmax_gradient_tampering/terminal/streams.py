"""Standard streams that are closed when the program starts."""

import os
import sys


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
