"""How a line and its marks look: by colour, marker and dash, each of which tells them apart."""

from dataclasses import dataclass

INK, NUM_COLORS = 0, 6
# Paths from the middle of a mark, in the units of a panel.
_MARKS = {
    "circle": "m-2.3 0a2.3 2.3 0 1 0 4.6 0a2.3 2.3 0 1 0-4.6 0z",
    "square": "m-2.1-2.1h4.2v4.2h-4.2z",
    "up": "m0-2.8l2.6 4.7h-5.2z",
    "diamond": "m0-3l3 3l-3 3l-3-3z",
    "down": "m0 2.8l2.6-4.7h-5.2z",
    "plus": "m-1-2.8h2v1.8h1.8v2h-1.8v1.8h-2v-1.8h-1.8v-2h1.8z",
    "cross": "m-2.6-1.2l1.4-1.4l1.2 1.2l1.2-1.2l1.4 1.4l-1.2 1.2l1.2 1.2l-1.4 1.4l-1.2-1.2"
    "l-1.2 1.2l-1.4-1.4l1.2-1.2z",
    "left": "m-2.8 0l4.7-2.6v5.2z",
    "hexagon": "m0-2.8l2.4 1.4v2.8l-2.4 1.4l-2.4-1.4v-2.8z",
}
MARKERS = ("square", "up", "diamond", "down", "plus", "cross", "left", "hexagon")


@dataclass(frozen=True)
class Style:
    """The look of an arm.

    Attributes:
        color: INK, or a number up to NUM_COLORS.
        marker: circle or one of MARKERS.
        dash: lengths of strokes and gaps; empty for a solid line.
        is_hollow: whether the marker is filled with the page's ground.
    """

    color: int
    marker: str
    dash: tuple[float, ...] = ()
    is_hollow: bool = False

    @property
    def color_class(self) -> str:
        """The class of the style sheet that has the colour."""
        return f"c{self.color}"

    @property
    def mark_class(self) -> str:
        """The classes of its marks."""
        return f"mark {self.color_class}{' hollow' * self.is_hollow}"

    @property
    def mark(self) -> str:
        """The path of a mark, from its middle."""
        return _MARKS[self.marker]

    @property
    def dashes(self) -> str:
        """The dash as SVG has it; empty for a solid line."""
        return " ".join(f"{length:g}" for length in self.dash)
