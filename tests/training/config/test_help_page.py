"""`sgt train --help`: every flag once, under its heading, with its unit and its default."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.arguments import FIELDS
from softmax_gradient_tampering.training.config.fields import GROUPS, Config
from softmax_gradient_tampering.training.config.groups.old import OldFlags
from softmax_gradient_tampering.training.config.help_page import help_page
from softmax_gradient_tampering.training.config.refusals import check_config

HEADINGS = (
    *("to begin with", "method", "data", "model", "optimizer", "schedule", "augmentation"),
    *("averaged weights", "precision and device", "run"),
    "older names, and flags that change nothing or are refused",
)


def sections(width: int = 100) -> dict[str, str]:
    """The text under each heading, its lines joined."""
    parts = re.split(r"^(\S.*):\n(?=  -)", help_page("sgt train", width), flags=re.MULTILINE)
    return {
        title: re.sub(r"\n {4,}", " ", text)
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def entry(name: str) -> str:
    """What the page says of a flag, in one line."""
    flag = name.replace("_", "-")
    lines = "\n".join(sections().values()).splitlines()
    found = [line for line in lines if re.match(rf"  (-\S+, )*--(\[no-\])?{flag}(?![\w-])", line)]
    assert len(found) == 1, f"{flag} stands {len(found)} times in the help"
    return found[0]


@pytest.mark.parametrize("width", [80, 100])
def test_the_page_keeps_to_its_width_and_begins_with_three_lines_of_usage(width: int) -> None:
    for program in ("sgt train", "sgt validate", "train.py"):
        lines = help_page(program, width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].startswith(f"usage: {program} ")
        assert all(line.startswith(f"       {program} ") for line in lines[1:3])
        assert lines[3] == ""


def test_the_headings_are_in_order_and_ten_flags_come_first() -> None:
    assert tuple(sections()) == HEADINGS
    assert len(sections()["to begin with"].strip().splitlines()) == 10


def test_every_field_of_the_configuration_is_of_one_group() -> None:
    names = [field.name for group in GROUPS.values() for field in fields(group)]
    assert sorted(names) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_says_what_it_does_its_unit_its_choices_and_its_default(name: str) -> None:
    metadata, default = FIELDS[name].metadata, FIELDS[name].default
    text = entry(name)
    assert all(re.search(rf"{short}\b", text) for short in metadata["short"])
    assert len(metadata["help"].split()) >= 3
    assert isinstance(default, bool) == (metadata["unit"] == "")
    assert f" {metadata['unit']} " in f"{text} "
    assert all(re.search(rf"\b{choice}\b", text) for choice in metadata["choices"] if choice)
    shown = re.findall(r"\[([^\]]*)\]", text)[-1]
    if default in (None, "", ()):
        assert shown == metadata["unset"] != ""
    else:
        assert metadata["unset"] == ""
        assert shown == _as_text(default)


def _as_text(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


REFUSED: dict[str, Any] = {
    "custom_loss": True,
    "torchscript": True,
    "apex_amp": True,
    "tta": 2,
    "epoch_repeats": 1.0,
}


def test_what_is_refused_stands_at_the_end_and_is_refused() -> None:
    said = [field.name for field in fields(OldFlags) if "refused" in field.metadata["help"]]
    assert sorted(said) == sorted(REFUSED)
    for name, value in REFUSED.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is refused"):
            check_config(replace(Config(), **{name: value}))
