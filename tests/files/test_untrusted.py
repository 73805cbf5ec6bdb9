"""Forms of untrusted values: what is right passes, and what is not is named."""

from typing import Any

import pytest

from softmax_gradient_tampering.files.untrusted import (
    ALPHA,
    COUNT,
    INTEGER,
    MAPPING,
    NAME,
    NUMBER,
    TEXT,
    Kind,
    find_fault,
    list_of,
    optional,
)

ANYTHING: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    2**53,
    2**53 + 1,
    10**400,
]
ANYTHING += ["", "text", "\x1b[2J", "x" * 101, [], [1], (1, 2), {}, {"a": 1}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (COUNT, [0, 2**53]),
        (INTEGER, [0, -1, 2**53]),
        (NUMBER, [0, -1, 1.5, float("nan"), float("inf"), 2**53]),
        (ALPHA, [0, 1.5, 2**53]),
        (TEXT, ["", "text", "\x1b[2J", "x" * 101]),
        (NAME, ["", "text"]),
        (MAPPING, [{}, {"a": 1}]),
        (list_of(COUNT), [[], [1], (1, 2)]),
        (list_of(COUNT, 2), [(1, 2)]),
        (optional(MAPPING), [None, {}, {"a": 1}]),
    ],
    ids=lambda value: value.description if isinstance(value, Kind) else "",
)
def test_what_is_of_a_kind(kind: Kind, expected: list[Any]) -> None:
    assert repr([value for value in ANYTHING if kind.is_right(value)]) == repr(expected)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"a": 1}, None),
        ({"a": 1, "b": 2}, None),
        ({}, "x.a is missing"),
        ({"a": -1}, "x.a must be a whole number from 0 to 2^53, not -1"),
        ({"a": [1]}, "x.a must be a whole number from 0 to 2^53, not this list"),
        ({"a": "t" * 99}, "x.a must be a whole number from 0 to 2^53, not '" + "t" * 59),
        ([1], "x must be a mapping, not this list"),
    ],
)
def test_the_first_fault_is_named(values: Any, fault: str | None) -> None:
    assert find_fault(values, {"a": COUNT}, "x.") == fault
