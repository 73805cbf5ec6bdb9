"""What a person sees while a study runs: a bar on a terminal, else a line for every cell."""

import sys
import time

from softmax_gradient_tampering.studies.launch.cost import describe_time
from softmax_gradient_tampering.terminal.progress import open_bar
from softmax_gradient_tampering.terminal.streams import print_line

_FEW = 4  # runs, of whose times nothing can be said yet


class StudyProgress:
    """The progress of one process's work on a study.

    Args:
        what: is counted, in a word or two.
        is_silent: print nothing.
    """

    def __init__(self, what: str = "runs", is_silent: bool = False) -> None:
        self._what = what
        self._is_silent = is_silent
        self._first: tuple[float, int] | None = None
        self._bar = None if is_silent else open_bar(sys.stdout, is_counted=True)

    def update(self, num_done: int, num_all: int, news: str = "") -> None:
        """Show how many are done, and what has happened last."""
        if self._bar is not None:
            self._bar.show(self._what, num_done, num_all, news or None)
        elif news:
            self.say(f"[{num_done}/{num_all}] {news}{self._time_left(num_done, num_all)}")

    def _time_left(self, num_done: int, num_all: int) -> str:
        """How long the rest takes, if it goes on as since the first update."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, num_done - 1)
        began, before = self._first
        num_since, num_left = num_done - before, num_all - num_done
        if num_since < _FEW or not num_left:
            return ""
        return f"; {describe_time((now - began) / (num_since - 1) * num_left)} left"

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._is_silent:
            return
        if self._bar is not None:
            self._bar.say(text)
        else:
            print_line(text)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
