"""What a person sees while a run trains: a bar on a terminal, else the published lines."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.terminal.progress import open_bar


class Progress:
    """Prints the progress of one process; silent on all but the first.

    Args:
        is_silent: print nothing.
        num_epochs: epochs of the run.
        as_lines: lines even on a terminal.
    """

    def __init__(self, is_silent: bool, num_epochs: int, as_lines: bool) -> None:
        self.is_silent = is_silent
        self.num_epochs = num_epochs
        self._started = time.perf_counter()
        self._done_at_start = 0.0
        self._bar = None if is_silent or as_lines else open_bar(sys.stdout)

    def start(self, epoch: int, batch: int, num_batches: int) -> None:
        """Begin, or go on, at a batch of an epoch from 0."""
        self._started = time.perf_counter()
        self._done_at_start = epoch + batch / num_batches
        if self._bar is not None:
            done, total = epoch * num_batches + batch, self.num_epochs * num_batches
            self._bar.show(f"epoch {epoch + 1}/{self.num_epochs}", done, total)

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
        self._print("   " + "  ".join([place, *fields]))

    def epoch(self, epoch: int, num_correct: int, top1: float) -> None:
        """Show the evaluation after an epoch."""
        self.say(f"[{epoch + 1:3d}] Val Acc: {num_correct:5d}, {top1:.3f}")

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.is_silent:
            return
        text = "\n".join(map(as_printable, text.split("\n")))
        if self._bar is not None:
            self._bar.say(text)
        else:
            self._print(text)

    def _print(self, line: str) -> None:
        """Print a line; where that fails, as on a full disk, the run goes on without printing."""
        try:
            print(line, flush=True)
        except OSError:
            self.is_silent = True
            with suppress(
                OSError, ValueError
            ):  # writing the rest of the buffer would fail again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _eta(self, done: float) -> str:
        """hours.minutes left, as published, from the mean pace of this process."""
        elapsed = time.perf_counter() - self._started
        pace = elapsed / max(done - self._done_at_start, 1e-9)
        minutes = round(pace * (self.num_epochs - done) / 60)
        return f"{minutes // 60:2d}.{minutes % 60:02d}"
