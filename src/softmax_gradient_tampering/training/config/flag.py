"""What a field of the configuration says of itself as a flag."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

Floats = tuple[float, ...]
Range = tuple[float, float]

RESAMPLING = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def flag(
    default: Any,
    help: str,
    *short: str,
    unit: str = "",
    unset: str = "",
    choices: Any = (),
    read: Callable[[Any], Any] | None = None,
) -> Any:
    """A field that is a flag.

    Args:
        default: its value where it is not given.
        help: what it does, with all choices; the page of help adds the default.
        short: its further names.
        unit: what its value counts or names, a word for each value; switches have none.
        unset: what holds without it, where the default itself does not say that.
        choices: the values that are allowed; empty for all of the field's type.
        read: from a value as it is given to the one that is recorded, such as what a file holds;
            a recorded one stays as it is.
    """
    metadata: dict[str, Any] = {
        "help": help,
        "short": short,
        "unit": unit,
        "unset": unset,
        "choices": choices,
    }
    metadata["read"] = read
    return field(default=default, metadata=metadata)
