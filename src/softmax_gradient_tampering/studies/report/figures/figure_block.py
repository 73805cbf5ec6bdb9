"""A figure of the report: panels, their legend and caption."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.report.figures.arm_styles import arm_styles
from softmax_gradient_tampering.studies.report.figures.svg import Style, swatch


@dataclass(frozen=True)
class FigureBlock:
    """What a figure of the page is made of.

    Attributes:
        key: its id on the page.
        title, caption: plain text.
        panels: <svg> elements.
        legend: style and label of every line, in order; empty without one.
        is_small: whether three panels stand side by side on a wide page, not two.
    """

    key: str
    title: str
    caption: str
    panels: Sequence[Markup]
    legend: Sequence[tuple[Style, str]] = ()
    is_small: bool = False

    @property
    def swatches(self) -> list[tuple[Markup, str]]:
        """The legend with its styles drawn."""
        return [
            (swatch(style, f"{self.key}-key{number}"), label)
            for number, (style, label) in enumerate(self.legend)
        ]


def arm_legend(results: Results, arms: Sequence[ArmResult]) -> list[tuple[Style, str]]:
    """A legend of arms; none for a single one."""
    styles = arm_styles(results)
    if len(results.arms) == 1:
        return []
    return [(styles[result.arm.name], result.arm.name) for result in arms]
