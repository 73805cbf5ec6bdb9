"""Tables of a page in Markdown, and how a figure is written in them."""

import re
from collections import defaultdict
from collections.abc import Iterable

from timer import Row

NOT_MEASURED = "not measured"


def variant_table(cells: Iterable[tuple[str, str, str]]) -> str:
    """A table of (subject, variant, figure): a row a subject, a column a variant."""
    by_subject: dict[str, dict[str, str]] = defaultdict(dict)
    for subject, variant, figure in cells:
        by_subject[subject][variant] = figure
    variants = list(dict.fromkeys(name for figures in by_subject.values() for name in figures))
    lines = ["| | " + " | ".join(variants) + " |", "|---|" + "--:|" * len(variants)]
    for subject, figures in by_subject.items():
        found = (figures.get(variant, NOT_MEASURED) for variant in variants)
        lines.append(f"| {subject} | " + " | ".join(found) + " |")
    return "\n".join([*lines, ""])


def number(text: str) -> str:
    """A figure with two decimals if it is small, without any if it is large."""
    value = float(text)
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    by_device: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_device[row.device].append(row)
    return by_device


def slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
