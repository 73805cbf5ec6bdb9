"""The ways into the program, `sgt` and train.py, and the way out.

Nothing is imported before Ctrl-C is heeded but what heeds it.
"""

import os
import sys

from softmax_gradient_tampering.terminal.interruption import EXIT_CODE, end_on_interrupted_import
from softmax_gradient_tampering.terminal.streams import open_missing_streams

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# After a signal, and where the machine is at fault: others wait for the end.
_ENDS_AT_ONCE = (1, 130, 143)


def sgt() -> "NoReturn":
    """Run the command of `sgt` that the process was called with, and end the process."""

    def run() -> int:
        from softmax_gradient_tampering.cli import main

        return main()

    _run(run)


def train_py() -> "NoReturn":
    """Run train.py: `sgt train` under its published name."""

    def run() -> int:
        from functools import partial

        from softmax_gradient_tampering.cli import run_command
        from softmax_gradient_tampering.commands.train import main

        return run_command("train.py", partial(main, program="train.py"), sys.argv[1:])

    _run(run)


def _run(run: "Callable[[], int]") -> "NoReturn":
    """Run a program to its exit code, and end the process with that.

    After a signal or a lost worker the interpreter is not taken apart. That takes most of a second,
    on busy cores many, which a machine that is being taken away may not have. All files are written
    and synced by then, the processes' group is closed, and what was registered to run at the end
    runs.
    """
    end_on_interrupted_import()
    open_missing_streams()
    try:
        code = run()
    except KeyboardInterrupt:  # before or after a command, which itself has a word to say
        code = EXIT_CODE
    if code in _ENDS_AT_ONCE:
        import atexit
        from contextlib import suppress

        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":  # torchrun runs it as a module
    sgt()
