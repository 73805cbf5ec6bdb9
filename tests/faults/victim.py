"""train.py, with a signal to itself at a chosen moment: python -m tests.faults.victim MOMENT ...

Arguments: the moment's name, how many times it is passed unharmed, the signal's number (negative:
to the oldest loader worker), the rank that is hit (of several processes), then train.py's own. A
process that torchrun has started in the place of another is not hit again.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from softmax_gradient_tampering.cli import run_command
from softmax_gradient_tampering.commands.train import main
from softmax_gradient_tampering.files import whole as files
from softmax_gradient_tampering.training.checkpoint import folder as checkpoint
from softmax_gradient_tampering.training.measure import evaluation
from softmax_gradient_tampering.training.records import run_files as records
from softmax_gradient_tampering.training.setup import setup
from softmax_gradient_tampering.training.step.trainer import Trainer
from tests.faults.processes import children

# A function that is called at the moment, and what its first argument's text holds.
MOMENTS: dict[str, tuple[Any, str, str]] = {
    "set-up": (setup, "create_loss", ""),
    "load": (torch, "load", ""),
    "forward": (Trainer, "_add_gradient", ""),
    "update": (Trainer, "_update", ""),
    "evaluation": (evaluation, "predict", ""),
    "save": (torch, "save", ""),
    "copy": (checkpoint, "copy_whole", ""),
    "link": (checkpoint, "link_whole", ""),
    "rename": (checkpoint, "rename", ""),
    "write": (files, "rename", ""),
    "summary": (records, "write_text", "summary.csv"),
    "result": (records, "write_text", "result.json"),
}


def arm(moment: str, passes: int, act: Callable[[], None]) -> None:
    """Do something when the moment has passed unharmed that often."""
    module, name, part = MOMENTS[moment]
    original: Callable[..., Any] = getattr(module, name)
    calls = 0

    def hit(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if part in str(args[0]):
            calls += 1
            if calls == passes + 1:
                act()
        return original(*args, **kwargs)

    setattr(module, name, hit)


def strike(number: int) -> None:
    """Send this process a signal, or its oldest child where the number is negative."""
    os.kill(os.getpid() if number > 0 else children(os.getpid())[0], abs(number))


def victim(arguments: Sequence[str]) -> NoReturn:
    """Run train.py with a signal to itself."""
    moment, passes, number, rank, *words = arguments
    is_hit = os.environ.get("RANK", "0") == rank
    if is_hit and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        arm(moment, int(passes), partial(strike, int(number)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's child may lack
    sys.exit(run_command("train.py", partial(main, program="train.py"), words))


if __name__ == "__main__":
    victim(sys.argv[1:])
