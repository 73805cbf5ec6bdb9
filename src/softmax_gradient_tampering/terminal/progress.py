"""Progress bars: the one file that knows the library that draws them."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from softmax_gradient_tampering.terminal.streams import give_up

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID

T = TypeVar("T")
_PERIOD_S = 0.1  # between two updates: a bar that changes faster cannot be read


class Bar:
    """The last line of a terminal, which shows how far a program is.

    It appears when it is first shown; what the program prints meanwhile stands above it.

    Args:
        stream: the terminal.
        is_counted: show how many are done of how many.
        is_transient: of the bar nothing is left when it stops, and its news are not shown.
    """

    def __init__(
        self, stream: TextIO, is_counted: bool = False, is_transient: bool = False
    ) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._console = Console(file=cast(TextIO, _Lasting(stream)))
        self._progress = Progress(
            *(_brief_columns() if is_transient else _columns(is_counted)),
            console=self._console,
            transient=is_transient,
            expand=not is_transient,
        )
        self._task: TaskID | None = None

    def show(
        self,
        what: str | None = None,
        done: int | None = None,
        total: int | None = None,
        news: str | None = None,
    ) -> None:
        """Show how many are done, and of what, and what has happened last; None is as before."""
        if self._task is None:
            self._task = self._progress.add_task(what or "", total=None, news="")
            self._progress.start()
        self._progress.update(self._task, description=what, completed=done, total=total)
        if news is not None:
            self._progress.update(self._task, news=news)

    def advance(self) -> None:
        """One more is done."""
        if self._task is not None:
            self._progress.advance(self._task)

    def say(self, text: str) -> None:
        """Print lines above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the terminal as it is now, or without a transient bar."""
        self._progress.stop()


class _Lasting:
    """A terminal that may be gone: then what is written to it is lost, and nothing ends for it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            give_up(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            give_up(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_bar(stream: TextIO, is_counted: bool = False, is_transient: bool = False) -> Bar | None:
    """A Bar where the stream is a terminal, elsewhere None: print lines there, or nothing."""
    return Bar(stream, is_counted, is_transient) if stream.isatty() else None


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Hand items on; on a terminal a bar on standard error shows how many have been taken."""
    bar = open_bar(sys.stderr, is_transient=True)
    if bar is None:
        yield from items
        return
    try:
        bar.show(what, 0, total)
        shown = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - shown > _PERIOD_S:
                bar.show(done=number)
                shown = time.monotonic()
    finally:
        bar.stop()


def _columns(is_counted: bool) -> "list[ProgressColumn]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    news = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return [
        *([MofNCompleteColumn()] if is_counted else []),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}", table_column=news, markup=False),
    ]


def _brief_columns() -> "list[ProgressColumn]":
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    ]
