"""Templates to text: every value is escaped, and a name that a template lacks is an error."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)


def clean(text: object) -> str:
    """A text without control characters and marks that turn its direction.

    >>> clean("a \\x00 b")
    'a \ufffd b'
    """
    return _ILLEGAL.sub("\ufffd", str(text))


def render(template: str, **values: Any) -> str:
    """A template of this package as text, with values that are escaped where they stand.

    Args:
        template: the name of a file in templates/.
        values: what the template calls by their names.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _finalize(value: object) -> object:
    """What a template prints: text that is cleaned; what a macro gave is markup already."""
    if value is None:
        raise TypeError("a template prints a value that is None")
    return value if isinstance(value, Markup | StrictUndefined) else clean(value)
