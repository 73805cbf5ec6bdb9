"""Signals that ask a run to stop: recorded by the handler, obeyed between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 - to be asked to stop is no error
    """A run was asked to stop, by a signal to any of its processes.

    Attributes:
        is_agreed: whether all processes stop here, between two optimizer steps.
    """

    def __init__(self, number: int, is_agreed: bool = True) -> None:
        super().__init__(signal.Signals(number).name)
        self.is_agreed = is_agreed
        self.exit_code = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


@contextmanager
def _handled(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the context lasts; SIGHUP is left alone where nohup ignores it."""
    has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if not (has_nohup and number == signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, original in before.items():
            signal.signal(number, original)


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """End the program at once on a signal, with the same exit code as during training.

    For the time before the training, when there is nothing to keep.
    """

    def leave(*_: object) -> None:
        raise SystemExit(Interrupted(signal.SIGTERM).exit_code)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled(_SIGNALS[:-1], leave):  # Ctrl-C is Python's KeyboardInterrupt
        yield


class StopRequest:
    """The signal that asked this process to stop, or 0."""

    def __init__(self) -> None:
        self.signal = 0

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Record signals instead of ending at once, but for a second Ctrl-C."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python handles signals in the main thread alone
            return
        with _handled(_SIGNALS, self._note):
            yield

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
