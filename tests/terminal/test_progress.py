"""Bars on a terminal, which here is a pseudo-terminal whose other end is read; none elsewhere."""

import io
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from softmax_gradient_tampering.terminal.progress import open_bar, track


class Terminal:
    """A terminal of 80 columns, and what it has been sent."""

    def __init__(self) -> None:
        self._screen, end = os.openpty()
        os.set_blocking(self._screen, False)
        self.stream: TextIO = os.fdopen(end, "w")

    def text(self) -> str:
        """What was written since the last call, without colours and movements of the cursor."""
        self.stream.flush()
        written = b""
        while True:
            try:
                written += os.read(self._screen, 65536)
            except BlockingIOError:
                return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())

    def leave(self) -> None:
        """Close the other end, as a window is closed."""
        os.close(self._screen)
        self._screen = -1

    def close(self) -> None:
        self.stream.close()
        if self._screen >= 0:
            os.close(self._screen)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_a_terminal_that_is_gone_ends_nothing(terminal: Terminal) -> None:
    bar = open_bar(terminal.stream)
    assert bar is not None
    bar.show("epoch 1", 1, 10)
    terminal.leave()
    bar.advance()
    bar.say("a line")
    bar.show("epoch 2", 2, 10, "news")
    bar.stop()


def test_no_bar_where_there_is_no_terminal() -> None:
    assert open_bar(io.StringIO()) is None


def test_a_bar_shows_what_is_done_and_the_news(terminal: Terminal) -> None:
    bar = open_bar(terminal.stream, is_counted=True)
    assert bar is not None
    assert terminal.text() == ""  # until it is first shown
    bar.show("runs", 1, 4, "[red] seed 0")  # no markup: a name may hold brackets
    bar.say("[bold]a line")
    bar.advance()
    bar.stop()
    text = terminal.text()
    assert "[bold]a line" in text
    last = text.splitlines()[-1]
    assert re.match(r"2/4 runs ━+", last)
    assert last.rstrip().endswith("[red] seed 0")


def test_what_is_not_given_stays_as_it_was(terminal: Terminal) -> None:
    bar = open_bar(terminal.stream, is_counted=True)
    assert bar is not None
    bar.show("runs", 3, 4, "news")
    bar.show(done=4)
    bar.stop()
    assert re.match(r"4/4 runs ━+.* news *$", terminal.text().splitlines()[-1])


def test_tracked_items_are_handed_on_and_leave_nothing_on_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    items = track("abc", 3, "Reading")
    assert next(items) == "a"
    assert "Reading" in terminal.text()
    assert list(items) == ["b", "c"]
    assert terminal.text().splitlines()[-1] == ""


def test_items_are_handed_on_in_silence_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", 3, "Reading")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
