"""Values of files that anybody may have changed: checked before anything is made of them.

A form names the values of a mapping and says of each what it must be. Nothing of a value is
printed but plain scalars, cut.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LARGEST = 2**53  # what a float64 counts to: above any run's numbers, below what int64 holds
_MAX_BITS = 1000  # of a whole number, so that it can be printed
_MAX_NAME = 100


class Kind(NamedTuple):
    """What a value must be.

    Attributes:
        description: completes the sentence "it must be ...".
        is_right: whether a value is that; it may be given any value.
    """

    description: str
    is_right: Callable[[Any], bool]


Form = Mapping[str, Kind]


def find_fault(values: Any, form: Form, where: str = "", needs_all: bool = True) -> str | None:
    """The first value of a mapping that is not what its form says, in words; None if all are.

    Args:
        values: what was read; of any type.
        form: what must be in it. Names beyond the form's are left alone.
        where: the mapping stands in the file, for the message: "" or, say, "position.".
        needs_all: whether all of the form's names must be there.

    >>> find_fault({"epoch": -1}, {"epoch": COUNT}, "position.")
    'position.epoch must be a whole number from 0 to 2^53, not -1'
    """
    if not isinstance(values, Mapping):
        return f"{where.rstrip('.') or 'it'} must be a mapping, not {describe(values)}"
    for name, kind in form.items():
        if name in values and not kind.is_right(values[name]):
            return f"{where}{name} must be {kind.description}, not {describe(values[name])}"
        if needs_all and name not in values:
            return f"{where}{name} is missing"
    return None


def describe(value: Any) -> str:
    """A value in a message: a plain scalar itself, cut; of anything else its type."""
    if is_scalar(value):
        return f"{value!r:.60}"
    return f"this {type(value).__name__}"


def is_scalar(value: Any) -> bool:
    """Whether a value is None, a bool, a number or a text, and can be printed."""
    if isinstance(value, int):
        return value.bit_length() <= _MAX_BITS
    return value is None or isinstance(value, float | str)


def is_number(value: Any) -> bool:
    """Whether a value is a number: a float of any kind, or an int that a float64 can count to."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= LARGEST
    return isinstance(value, float)


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number and no bool."""
    return isinstance(value, int) and is_number(value)


def list_of(kind: Kind, size: int | None = None, description: str = "") -> Kind:
    """A list, or tuple, of values of one kind."""
    how_many = "" if size is None else f"{size} times "
    return Kind(
        description or f"a list of {how_many}{kind.description}",
        lambda value: (
            isinstance(value, list | tuple)
            and size in (None, len(value))
            and all(map(kind.is_right, value))
        ),
    )


def optional(kind: Kind) -> Kind:
    """A kind, or None."""
    return Kind(f"{kind.description} or none", lambda value: value is None or kind.is_right(value))


INTEGER = Kind("a whole number", is_integer)
COUNT = Kind("a whole number from 0 to 2^53", lambda value: is_integer(value) and value >= 0)
NUMBER = Kind("a number", is_number)
# Comparisons with nan are false.
ALPHA = Kind("a finite number from 0", lambda value: is_number(value) and 0 <= value < float("inf"))
TEXT = Kind("text", lambda value: isinstance(value, str))
NAME = Kind(
    f"text of at most {_MAX_NAME} characters that can be printed",
    lambda value: isinstance(value, str) and value.isprintable() and len(value) <= _MAX_NAME,
)
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping))
