"""Panels drawn by matplotlib as small SVG texts whose colours are the page's."""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from softmax_gradient_tampering.studies.report.rendering import clean

# Inches: at the width of a phone a point is about a pixel.
WIDTH, HEIGHT = 4.3, 3.0
# A logarithmic axis of less has too few round numbers on it.
MIN_LOG_SPAN = 3.0

# What matplotlib draws with, and the CSS variable that takes its place on the page. The
# series are told apart with any colour vision (after Okabe and Ito, darkened until they
# have three times the luminance of the ground or a third of it), and by marker and dash.
INK, GRID, PAPER = "#1a1b1c", "#d9dadb", "#fefdfc"
SERIES = ("#0072b2", "#d55e00", "#008f68", "#b3479a", "#8a6d00", "#5b5fc7")
VARIABLES = {
    INK: "--ink",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)},
}

_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text stays text, in the page's fonts
    "svg.hashsalt": "softmax_gradient_tampering",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "path.simplify_threshold": 0.25,
}


_HIDDEN = 'aria-hidden="true"'


@dataclass(frozen=True)
class Style:
    """How an arm is drawn: by colour, marker and dash, each of which tells it apart.

    Attributes:
        color: one of INK and SERIES.
        marker: matplotlib's name.
        dash: lengths of strokes and gaps in points; empty for a solid line.
        is_hollow: whether the marker is filled with the page's ground.
    """

    color: str
    marker: str
    dash: tuple[float, ...] = ()
    is_hollow: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of matplotlib's line."""
        dash = (0, self.dash) if self.dash else "solid"
        face = PAPER if self.is_hollow else self.color
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": dash,
            "markerfacecolor": face,
            "markeredgecolor": self.color,
            "markeredgewidth": 1.0,
        }


def draw(
    plot: Callable[[Axes], None],
    name: str,
    description: str,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Markup:
    """Draw a panel.

    Args:
        plot: draws on the axes.
        name: its ids begin with it; no two panels of a page have one name.
        description: the panel in words, for those who do not see it; empty for an ornament.
        width, height: in inches.

    Returns:
        An <svg> element to stand in a page that defines the variables of VARIABLES.
    """
    return _for_a_page(_draw(plot, width, height), name, description)


def _draw(
    plot: Callable[[Axes], None],
    width: float,
    height: float,
    is_bare: bool = False,
) -> str:
    """The text of matplotlib's SVG file; a bare one has no ticks or labels to leave room for."""
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The page's fonts may have the letters of a name that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout=None if is_bare else "constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_axes((0.05, 0.0, 0.9, 1.0)) if is_bare else figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def swatch(style: Style, name: str) -> Markup:
    """An arm's line and marker, for a legend."""
    return _for_a_page(_draw_swatch(style), name, "")


@cache
def _draw_swatch(style: Style) -> str:
    def plot(axes: Axes) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], clip_on=False, **style.line)
        axes.set(xlim=(0, 2), ylim=(-1, 1))
        axes.set_axis_off()

    return _draw(plot, 0.5, 0.17, is_bare=True)


def set_log_scale(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers; a linear one where it spans less than threefold."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    if decades < math.log10(MIN_LOG_SPAN):
        axes.set_yscale("linear")
        return
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _for_a_page(svg: str, name: str, description: str) -> Markup:
    """Matplotlib's file as an element: no header, page colours, only ids that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    used = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    ids = {old: f"{name}-{number}" for number, old in enumerate(used)}
    svg = re.sub(r"<[^>]*>", lambda tag: _short_tag(tag[0], ids), svg)
    svg = re.sub(r'<path [^>]*style="fill: none"/>', "", svg)  # the transparent ground
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r"<defs></defs>|<g></g>", "", svg)
    label = f'role="img" aria-label="{escape(clean(description))}"' if description else ""
    viewbox = re.search(r'viewBox="[^"]*"', svg)
    assert viewbox is not None
    opening = f"<svg {viewbox[0]} {label or _HIDDEN}>"
    return Markup(re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip())


def _short_tag(tag: str, ids: Mapping[str, str]) -> str:
    """A tag with page colours, short numbers, and no fonts or ids that the page does not need."""
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    tag = re.sub(r"url\(#([^)]*)\)", lambda m: f"url(#{ids[m[1]]})", tag)
    tag = re.sub(r'(?:xlink:)?href="#([^"]*)"', lambda m: f'href="#{ids[m[1]]}"', tag)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = re.sub(r"#[0-9a-f]{6}", lambda m: _variable(m[0]), tag)
    # A tenth of a point is enough, but not of an opacity.
    tag = re.sub(r"(?<!opacity: )(\d+\.\d)\d+", r"\1", tag)
    tag = re.sub(r"\.0(?=[^\d])", "", tag)
    return re.sub(r"\s*\n\s*", " ", tag).replace(' "', '"').replace(": ", ":").replace("; ", ";")


def _variable(color: str) -> str:
    return f"var({VARIABLES[color]})" if color in VARIABLES else color
