"""The error that a user can mend: one line, with the value, the reason and the fix."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class UserError(Exception):
    """Ends the program with exit code 2 and its message, without a traceback.

    Args:
        message: one line; what cannot be printed in it, as in the name of a file, is escaped.
        is_local: whether one process of several met it, not all; that one prints it.
    """

    exit_code = 2

    def __init__(self, message: str, is_local: bool = False) -> None:
        super().__init__(as_printable(message))
        self.is_local = is_local


class MachineError(UserError):
    """Ends the program with exit code 1 and its message: the machine, not the user, is at fault."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message, is_local=True)


def as_printable(text: str) -> str:
    """One line without control characters, which a terminal would obey.

    >>> as_printable("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """An exception as one plain line, for the reason in a message."""
    lines = _ANSI.sub("", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def as_user_error(what: str) -> Iterator[None]:
    """Turn a library's exception about its arguments into a UserError that names the flags.

    For calls into libraries that check their arguments late, with asserts or not at all; not
    for our own code, whose bugs should show.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__}: {first_line(error)}") from error
