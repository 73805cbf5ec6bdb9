"""train.py, with a signal to itself at a chosen moment: python -m tests.faults.victim MOMENT ...

Arguments: the moment's name, how many times it is passed unharmed, the signal's number, the rank
that is hit (of several processes), then train.py's own. A process that torchrun has restarted is
not hit again.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from softmax_gradient_tampering.cli import run_command, train
from softmax_gradient_tampering.training import evaluation, files, finiteness, loop, records

# Where a run may be hit: the module's attribute that is called there, and a part of its first
# argument's text, or "".
MOMENTS: dict[str, tuple[Any, str, str]] = {
    "step": (loop, "_update", ""),
    "backward": (loop, "gradients_are_finite", ""),
    "evaluation": (evaluation, "logit_statistics", ""),
    "checkpoint": (files.os, "fsync", ""),
    "rename": (files.os, "open", ""),
    "summary": (records, "write_text", "summary.csv"),
    "result": (records, "write_text", "result.json"),
}
assert finiteness.gradients_are_finite is loop.gradients_are_finite


def arm(moment: str, passes: int, number: int) -> None:
    """Have this process send itself a signal when the moment comes for the last time."""
    module, name, part = MOMENTS[moment]
    original: Callable[..., Any] = getattr(module, name)
    left = [passes]

    def hit(*args: Any, **kwargs: Any) -> Any:
        if part in str(args[0] if args else ""):
            left[0] -= 1
            if left[0] < 0 and left[0] == -1:
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(module, name, hit)


if __name__ == "__main__":
    moment, passes, number, rank, *words = sys.argv[1:]
    is_hit = os.environ.get("RANK", "0") == rank
    if is_hit and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        arm(moment, int(passes), int(number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    sys.exit(run_command("train.py", partial(train, program="train.py"), words))
