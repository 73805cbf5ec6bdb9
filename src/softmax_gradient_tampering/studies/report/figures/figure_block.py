"""A figure of the report: panels, their legend and caption."""

from collections.abc import Sequence
from dataclasses import dataclass

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.report.figures.arm_styles import arm_styles
from softmax_gradient_tampering.studies.report.figures.chart import Panel
from softmax_gradient_tampering.studies.report.figures.style import Style


@dataclass(frozen=True)
class FigureBlock:
    """What a figure of the page is made of.

    Attributes:
        key: its id on the page.
        title, caption: plain text.
        panels: in order.
        legend: style and label of every line, in order; empty without one.
        size: of the panels: large, two of which stand side by side on a wide page, small or tiny.
    """

    key: str
    title: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[Style, str]] = ()
    size: str = "large"


def arm_legend(results: Results, arms: Sequence[ArmResult]) -> list[tuple[Style, str]]:
    """A legend of arms; none for a single one."""
    styles = arm_styles(results)
    if len(results.arms) == 1:
        return []
    return [(styles[result.arm.name], result.arm.name) for result in arms]
