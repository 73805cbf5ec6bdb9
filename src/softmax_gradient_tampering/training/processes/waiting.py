"""What happens while a batch of the loader's worker processes is awaited."""

import sys
import time
from collections.abc import Callable

from softmax_gradient_tampering.errors import MachineError, as_printable
from softmax_gradient_tampering.terminal.streams import print_line
from softmax_gradient_tampering.training.processes.preemption import Interrupted, StopRequest

_FIRST_REPORT_S = 60.0


class BatchWait:
    """Obeys signals while a batch is awaited, and reports long waits at growing intervals.

    Args:
        request: the signal that asks this process to stop.
        patience_s: how long to wait on after a signal: only once the batch has come can all
            processes agree to stop, or an optimizer step of several batches be completed.
        timeout_s: how long to wait at most, as --batch-timeout says; 0 is without end.
    """

    def __init__(self, request: StopRequest, patience_s: float, timeout_s: float = 0.0) -> None:
        self._request = request
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._stop_at = float("inf")
        self._report_at = _FIRST_REPORT_S

    def __call__(self, seconds: float, describe: Callable[[], str]) -> None:
        """Called about every second.

        Args:
            seconds: that this batch has been awaited.
            describe: says what is known of the wait.

        Raises:
            Interrupted: this process was asked to stop, and the patience is over.
            MachineError: the batch has not come in time.
        """
        if self._request.signal:
            now = time.monotonic()
            self._stop_at = min(self._stop_at, now + self._patience_s)
            if now >= self._stop_at:
                raise Interrupted(self._request.signal, is_agreed=False)
        if 0 < self._timeout_s <= seconds:
            raise MachineError(
                f"no batch for {seconds:.0f} s, and --batch-timeout is {self._timeout_s:g}: "
                f"{describe()}; go on with --resume auto"
            )
        if seconds < _FIRST_REPORT_S:
            self._report_at = _FIRST_REPORT_S
        elif seconds >= self._report_at:
            self._report_at = 2 * seconds
            line = f"warning: no batch for {seconds:.0f} s: {describe()}"
            print_line(as_printable(line), sys.stderr)
