"""A panel: lines, bands and marks in front of two axes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from softmax_gradient_tampering.studies.report.figures.scale import Scale
from softmax_gradient_tampering.studies.report.figures.style import Style

# At the width of a phone a unit is about a pixel.
SIZE = (310.0, 216.0)
_CHARACTER = 5.2  # width of one of a tick's text, on average
_TITLE, _TICK, _LABEL = 19.0, 14.0, 13.0  # heights of a line of text
_CAP = 2.5


@dataclass(frozen=True)
class Axis:
    """A side of a panel: its scale, what it is of, and the values written beside it."""

    scale: Scale
    label: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Shape:
    """A path of a panel.

    Attributes:
        path: as SVG has it.
        style: classes of the style sheet.
        dashes: of its stroke; empty for a solid one.
        title: what is said under the pointer; empty for nothing.
    """

    path: str
    style: str
    dashes: str = ""
    title: str = ""


@dataclass(frozen=True)
class Word:
    """A text of a panel, at the place where it begins, ends or has its middle."""

    x: str
    y: str
    text: str
    style: str


@dataclass(frozen=True)
class Panel:
    """What the template draws.

    Attributes:
        width, height: in units.
        box: left, top, width and height of what the axes enclose, beyond which nothing is drawn.
        grid, frame: paths.
        words: title, labels and ticks.
        shapes: from the back to the front.
        description: the panel in words, for those who do not see it.
    """

    width: str
    height: str
    box: tuple[str, str, str, str]
    grid: str
    frame: str
    words: Sequence[Word]
    shapes: Sequence[Shape]
    description: str


class Chart:
    """A panel in the making.

    Args:
        title: above it.
        x, y: its axes.
        size: width and height in units.
    """

    def __init__(self, title: str, x: Axis, y: Axis, size: tuple[float, float] = SIZE) -> None:
        self._title, self._x, self._y, self._size = title, x, y, size
        longest = max((len(text) for _, text in y.ticks), default=0)
        self._left = 8 + _CHARACTER * longest + (_LABEL if y.label else 0)
        self._right = size[0] - 10
        self._top = _TITLE if title else 6.0
        self._bottom = size[1] - _TICK - (_LABEL if x.label else 0) - 4
        self._shapes: list[Shape] = []

    def line(self, xs: Iterable[float], ys: Iterable[float], style: Style, title: str = "") -> None:
        """A line through points."""
        path = "M" + "L".join(self._at(x, y) for x, y in zip(xs, ys, strict=True))
        self._shapes.append(Shape(path, f"line {style.color_class}", style.dashes, title))

    def rule(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A thin line from one point to another that is no arm's."""
        self._shapes.append(Shape(f"M{self._at(*start)}L{self._at(*end)}", "rule"))

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: Style
    ) -> None:
        """What lies between two lines."""
        there = [self._at(x, high) for x, high in zip(xs, highs, strict=True)]
        back = [self._at(x, low) for x, low in zip(xs, lows, strict=True)]
        path = f"M{'L'.join([*there, *reversed(back)])}z"
        self._shapes.append(Shape(path, f"band {style.color_class}"))

    def marks(
        self,
        xs: Iterable[float],
        ys: Iterable[float],
        style: Style,
        titles: Sequence[str] = (),
        is_pale: bool = False,
    ) -> None:
        """A mark at every point; each says its title under the pointer, where there are titles."""
        paths = [f"M{self._at(x, y)}{style.mark}" for x, y in zip(xs, ys, strict=True)]
        classes = style.mark_class + " pale" * is_pale
        if titles:
            for path, title in zip(paths, titles, strict=True):
                self._shapes.append(Shape(path, classes, title=title))
        elif paths:
            self._shapes.append(Shape("".join(paths), classes))

    def intervals(
        self, xs: Iterable[float], ys: Iterable[float], halves: Iterable[float], style: Style
    ) -> None:
        """Vertical intervals with caps around points; none where the half-width is nan."""
        parts = []
        for x, y, half in zip(xs, ys, halves, strict=True):
            if math.isfinite(half) and half > 0:
                column = self._column(x)
                low, high = self._row(y - half), self._row(y + half)
                left, right = _number(column - _CAP), _number(column + _CAP)
                parts.append(
                    f"M{left} {_number(high)}H{right}M{left} {_number(low)}H{right}"
                    f"M{_number(column)} {_number(low)}V{_number(high)}"
                )
        if parts:
            self._shapes.append(Shape("".join(parts), f"interval {style.color_class}"))

    def panel(self, description: str) -> Panel:
        """The panel, described in words."""
        rows = [(self._row(value), text) for value, text in self._y.ticks]
        columns = [(self._column(value), text) for value, text in self._x.ticks]
        left, right, top, bottom = map(_number, (self._left, self._right, self._top, self._bottom))
        grid = "".join(f"M{left} {_number(row)}H{right}" for row, _ in rows)
        grid += "".join(f"M{_number(column)} {top}V{bottom}" for column, _ in columns)
        words = [Word(_number(self._left - 5), _number(row + 3), text, "tick end")
                 for row, text in rows]  # fmt: skip
        words += [Word(_number(column), _number(self._bottom + 12), text, "tick")
                  for column, text in columns]  # fmt: skip
        box = (left, top, _number(self._right - self._left), _number(self._bottom - self._top))
        return Panel(
            width=_number(self._size[0]),
            height=_number(self._size[1]),
            box=box,
            grid=grid,
            frame=f"M{left} {top}V{bottom}H{right}",
            words=[*words, *self._labels()],
            shapes=tuple(self._shapes),
            description=description,
        )

    def _labels(self) -> list[Word]:
        middle = _number((self._left + self._right) / 2)
        words = []
        if self._title:
            words.append(Word(middle, "11", self._title, "title"))
        if self._x.label:
            words.append(Word(middle, _number(self._size[1] - 4), self._x.label, "label"))
        if self._y.label:
            height = _number((self._top + self._bottom) / 2)
            words.append(Word("9", height, self._y.label, "label side"))
        return words

    def _at(self, x: float, y: float) -> str:
        return f"{_number(self._column(x))} {_number(self._row(y))}"

    def _column(self, x: float) -> float:
        return self._left + self._x.scale.place(x) * (self._right - self._left)

    def _row(self, y: float) -> float:
        return self._bottom - self._y.scale.place(y) * (self._bottom - self._top)


def numbers(scale: Scale, label: str, number: int = 5) -> Axis:
    """An axis with round numbers beside it."""
    return Axis(scale, label, scale.ticks(number))


def whole_numbers(scale: Scale, label: str, number: int = 5) -> Axis:
    """An axis with whole numbers beside it, such as epochs."""
    found = [(value, f"{value:.0f}") for value, _ in scale.ticks(number) if value == int(value)]
    return Axis(scale, label, found)


def names(labels: Sequence[str]) -> Axis:
    """A vertical axis with names beside it, from the top; the first is at 0, the next at 1."""
    return Axis(Scale(len(labels) - 0.4, -0.6), "", list(enumerate(labels)))


def _number(value: float) -> str:
    """A tenth of a unit is enough; a log axis' value of 0 lies far below."""
    return f"{max(-9999.0, min(9999.0, value)):.1f}".removesuffix(".0")
