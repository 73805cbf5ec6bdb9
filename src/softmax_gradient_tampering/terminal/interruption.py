"""Ctrl-C while a program is being loaded."""

import os
import signal
from types import FrameType

EXIT_CODE = 130


def end_on_interrupted_import() -> None:
    """From here on, Ctrl-C in the middle of an import ends the program at once.

    Elsewhere it is a KeyboardInterrupt, as ever. In an import that can be lost, or come out as
    another exception of a module that is half made. Where Ctrl-C is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            try:
                os.write(2, b"interrupted\n")
            finally:
                os._exit(EXIT_CODE)
        frame = frame.f_back
    raise KeyboardInterrupt
