"""What a person sees while a run trains: a bar on a terminal, else the published lines."""

import math
import sys
import time
from collections.abc import Sequence

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.terminal.progress import open_bar
from softmax_gradient_tampering.terminal.streams import print_line


class Progress:
    """Prints the progress of one process; silent on all but the first.

    Args:
        is_silent: print nothing.
        num_epochs: epochs of the run.
        as_lines: lines even on a terminal.
        log_interval: batches of an evaluation from one line to the next.
    """

    def __init__(
        self, is_silent: bool, num_epochs: int, as_lines: bool, log_interval: int = 20
    ) -> None:
        self.is_silent = is_silent
        self.num_epochs = num_epochs
        self._log_interval = log_interval
        self._what = ""  # is trained, as "epoch 3/90"
        self._started = self._epoch_started = time.perf_counter()
        self._done_at_start: float | None = None
        self._bar = None if is_silent or as_lines else open_bar(sys.stdout)

    def start(self, epoch: int, batch: int, num_batches: int) -> None:
        """Begin, or go on, at a batch of an epoch from 0."""
        self._epoch_started = time.perf_counter()
        if self._done_at_start is None:
            self._started, self._done_at_start = self._epoch_started, epoch + batch / num_batches
        self._what = f"epoch {epoch + 1}/{self.num_epochs}"
        if self._bar is not None:
            done, total = epoch * num_batches + batch, self.num_epochs * num_batches
            self._bar.show(self._what, done, total)

    def advance(self) -> None:
        """A batch is done."""
        if self._bar is not None:
            self._bar.advance()

    def batch(self, epoch: int, number: int, num_batches: int, fields: Sequence[str]) -> None:
        """Show the logged fields of a batch, the published ones in the published order."""
        if self.is_silent:
            return
        if self._bar is not None:
            self._bar.show(news=" ".join(" ".join(fields).split()))
            return
        fields = [*fields[:3], f"ETA: {self._eta(epoch + (number + 1) / num_batches)}", *fields[3:]]
        place = f"[{epoch + 1:3d}: {number:4d}/{num_batches - 1:4d}]"
        print_line("   " + "  ".join([place, *fields]))

    def evaluated(self, number: int, num_batches: int) -> None:
        """Show that a batch of an evaluation, from 0, is done."""
        place = f"{number + 1}/{num_batches}"
        if self._bar is not None and self._what:  # the bar itself counts what is trained
            self._bar.show(f"{self._what}, validating {place}")
        elif self._bar is not None:
            self._bar.show("validating", number + 1, num_batches)
        elif number and number % self._log_interval == 0:
            self.say(f"   Validating: {number:4d}/{num_batches - 1:4d}")

    def epoch(self, epoch: int, fields: Sequence[str], seconds: float) -> None:
        """Show the evaluation after an epoch, how long both took, and the run so far."""
        took = time.perf_counter() - self._epoch_started
        times = [f"Epoch: {as_clock(took)}", f"Elapsed: {as_clock(seconds)}"]
        self.say("  ".join([f"[{epoch + 1:3d}] {fields[0]}", *fields[1:], *times]))

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.is_silent:
            return
        text = "\n".join(map(as_printable, text.split("\n")))
        if self._bar is not None:
            self._bar.say(text)
        else:
            print_line(text)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _eta(self, done: float) -> str:
        """The time left, from the mean pace of this process, its evaluations among it."""
        elapsed = time.perf_counter() - self._started
        pace = elapsed / max(done - (self._done_at_start or 0.0), 1e-9)
        return as_clock(pace * (self.num_epochs - done))


def as_clock(seconds: float) -> str:
    """A time as hours:minutes:seconds, rounded up, so that only no time at all is 0:00:00.

    >>> as_clock(3725.2)
    '1:02:06'
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
