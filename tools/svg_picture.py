"""A small SVG picture: boxes, bars, lines and words, in the colours of a light or a dark screen."""

from html import escape

STYLE = """
.card { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .line { stroke: #8c959f; }
.a { fill: #0969da; } .b { fill: #bc4c00; } .c { fill: #1a7f37; } .d { fill: #8250df; }
.pale { fill: #ddf4ff; } .band { fill: #dafbe1; } .box { fill: #f6f8fa; stroke: #8c959f; }
@media (prefers-color-scheme: dark) {
.card { fill: #161b22; } .ink { fill: #e6edf3; } .soft { fill: #9da7b3; } .line { stroke: #6e7681; }
.a { fill: #58a6ff; } .b { fill: #f0883e; } .c { fill: #3fb950; } .d { fill: #bc8cff; }
.pale { fill: #0c2d6b; } .band { fill: #12361f; } .box { fill: #21262d; stroke: #6e7681; }
}
text { font-family: system-ui, sans-serif; } .mono { font-family: ui-monospace, monospace; }
"""


class Picture:
    """Shapes in units of pixels, from the upper left corner; written as they are added.

    Args:
        width, height: of the picture.
        title: read out where the picture cannot be seen.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="card" width="{width}" height="{height}" rx="8"/>',
        ]

    def words(
        self, x: float, y: float, text: str, kind: str = "ink", size: int = 14, at: str = "start"
    ) -> None:
        """One line of text; `at` is start, middle or end."""
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
            f'text-anchor="{at}">{escape(text)}</text>'
        )

    def bar(self, x: float, y: float, width: float, height: float, kind: str, hint: str) -> None:
        """A filled rectangle, with what it shows under the pointer."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{max(height, 0.5):.1f}"><title>{escape(hint)}</title></rect>'
        )

    def box(self, x: float, y: float, width: float, height: float, *lines: str) -> None:
        """A box with lines of text in its middle, the first one strong."""
        self._parts.append(
            f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        first = y + height / 2 + 5 - 9 * (len(lines) - 1)
        for index, line in enumerate(lines):
            kind, size = ("ink", 14) if index == 0 else ("soft", 12)
            self.words(x + width / 2, first + 18 * index, line, kind, size, at="middle")

    def line(self, x1: float, y1: float, x2: float, y2: float, width: float = 1.5) -> None:
        self._parts.append(
            f'<line class="line" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke-width="{width}"/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A line with a head at its end; level or upright."""
        self.line(x1, y1, x2, y2)
        dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
        for side in (-4, 4):
            self.line(x2 - 8 * dx + side * dy, y2 - 8 * dy + side * dx, x2, y2)

    def dot(self, x: float, y: float, kind: str, hint: str, radius: float = 4) -> None:
        self._parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            f"<title>{escape(hint)}</title></circle>"
        )

    def text(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
