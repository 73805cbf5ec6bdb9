"""What `sgt train --help` prints: the flags under the headings that they belong to."""

import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

from softmax_gradient_tampering.training.config.fields import GROUPS

_USAGE = """\
usage: {program} [--data-dir DIR] [--modify-softmax ALPHA] [FLAG ...]
       {program} --recipe NAME --data-dir DIR [FLAG ...]
       {program} --experiment NAME --resume auto [FLAG ...]"""
_DESCRIPTION = (
    "Train an image classifier, with softmax gradient tampering or without. In brackets stands "
    "what holds without a flag. Hyphens and underscores in names are one, and an unambiguous "
    "beginning of a name does."
)
# Flags that are no settings: they say where settings come from.
SOURCES = {
    "recipe": ("NAME", "a published experiment, by its name in sgt recipes", "none"),
    "config": ("FILE", "YAML of settings, such as the args.yaml of any run", "none"),
}
_INDENT = 28  # of the texts; a flag that is longer has a line of its own


def help_page(program: str, width: int) -> str:
    """The page of help, as text.

    Args:
        program: the words that call it.
        width: of the lines, in characters.
    """
    lines = [*_USAGE.format(program=program).split("\n"), ""]
    lines += textwrap.wrap(_DESCRIPTION, width)
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        for name, text in entries(title, group):
            lines += _wrap(name, text, width)
    return "\n".join(lines) + "\n"


def entries(title: str, group: type) -> Iterator[tuple[str, str]]:
    """The flags of a group as they are written, and what is said of each."""
    sources = {"to begin with": ["recipe"], "run": ["config"]}.get(title, [])
    for name in sources:
        unit, text, unset = SOURCES[name]
        yield f"--{name} {unit}", f"{text} [{unset}]"
    if title == "run":
        yield "-h, --help", "print this page"
    for field in fields(group):
        yield _name(field), f"{field.metadata['help']} [{_default(field)}]"


def _name(field: Field[Any]) -> str:
    name = field.name.replace("_", "-")
    is_switch = isinstance(field.default, bool) and not name.startswith("no-")
    long = f"--[no-]{name}" if is_switch else f"--{name}"
    return " ".join([", ".join([*field.metadata["short"], long]), field.metadata["unit"]]).strip()


def _default(field: Field[Any]) -> str:
    if field.metadata["unset"]:
        return str(field.metadata["unset"])
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return " ".join(f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in values)


def _wrap(name: str, text: str, width: int) -> list[str]:
    """An entry of the page: the flag on the left, the text in a column on the right."""
    lines = textwrap.wrap(text, width - _INDENT, break_on_hyphens=False)
    left = f"  {name}"
    first = [] if len(left) <= _INDENT - 2 else [left]
    column = [" " * _INDENT + line for line in lines]
    if not first:
        column[0] = left.ljust(_INDENT) + lines[0]
    return [*first, *column]
