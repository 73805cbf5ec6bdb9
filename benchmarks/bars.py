"""Bars as an SVG file, in plain text: the same figures give the same bytes."""

from collections.abc import Mapping
from html import escape

# Okabe and Ito's colours, told apart with any colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BAR, GAP, LEFT, WIDTH, RIGHT, TOP = 14, 16, 190, 420, 70, 56


def draw_bars(title: str, groups: Mapping[str, Mapping[str, float]], most: float) -> str:
    """Horizontal bars in groups, from 0, with a line at 1.

    Args:
        title: over the picture.
        groups: by name, the bars' lengths by name; above 0.
        most: the longest bar that is drawn whole; a longer one is cut and ends in a point.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    colors = dict(zip(names, COLORS * len(names), strict=False))
    longest = min(most, max(value for bars in groups.values() for value in bars.values()))
    scale = WIDTH / max(longest, 1.0)
    shapes, y = [], TOP
    for group, bars in groups.items():
        middle = y + BAR * len(bars) / 2 + 4
        shapes.append(
            f'<text x="{LEFT - 8}" y="{middle:g}" text-anchor="end">{escape(group)}</text>'
        )
        for name, value in bars.items():
            shapes.append(_bar(y, min(value, longest) * scale, value > longest, colors[name]))
            end = LEFT + min(value, longest) * scale + (14 if value > longest else 5)
            shapes.append(f'<text x="{end:.1f}" y="{y + BAR - 3}">{value:.2f}</text>')
            y += BAR
        y += GAP
    one = LEFT + scale
    line = f'<path d="M{one:.1f} {TOP - 4}V{y - GAP + 4}" stroke="#888" stroke-dasharray="3 3"/>'
    legend_rows = [names[start : start + 3] for start in range(0, len(names), 3)]
    legend = []
    for row in legend_rows:
        for column, name in enumerate(row):
            x = 16 + column * 220
            legend.append(f'<rect x="{x}" y="{y}" width="11" height="11" fill="{colors[name]}"/>')
            legend.append(f'<text x="{x + 16}" y="{y + 10}">{escape(name)}</text>')
        y += 20
    width, height = LEFT + WIDTH + RIGHT, y + 4
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    heading = f'<text x="16" y="26" font-size="15">{escape(title)}</text>'
    return "\n".join([head, ground, heading, *shapes, line, *legend, "</svg>", ""])


def _bar(y: int, length: float, is_cut: bool, color: str) -> str:
    end = LEFT + length
    point = f"l8 {(BAR - 2) / 2:g}l-8 {(BAR - 2) / 2:g}" if is_cut else f"v{BAR - 2}"
    return f'<path d="M{LEFT} {y}H{end:.1f}{point}H{LEFT}Z" fill="{color}"/>'
