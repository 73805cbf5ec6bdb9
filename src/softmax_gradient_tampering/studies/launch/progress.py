"""What a person sees while a study runs: a bar on a terminal, else a line for every cell."""

import sys
from typing import Any


class StudyProgress:
    """The progress of one process's work on a study.

    Args:
        what: is counted, in a word or two.
        is_silent: print nothing.
    """

    def __init__(self, what: str = "runs", is_silent: bool = False) -> None:
        self._what = what
        self._is_silent = is_silent
        self._bar: Any = None
        self._task: Any = None
        if not is_silent and sys.stdout.isatty():
            self._bar = _rich_bar()
            self._task = self._bar.add_task(what, total=None, info="")
            self._bar.start()

    def update(self, num_done: int, num_all: int, news: str = "") -> None:
        """Show how many are done, and what has happened last."""
        if self._bar is not None:
            self._bar.update(self._task, completed=num_done, total=num_all)
            if news:
                self._bar.update(self._task, info=news)
        elif news:
            self.say(f"[{num_done}/{num_all}] {news}")

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._is_silent:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _rich_bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    info = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}", table_column=info, markup=False),
        expand=True,
    )
