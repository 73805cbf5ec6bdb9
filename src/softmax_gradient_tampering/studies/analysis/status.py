"""How far a study is: how many of each arm's cells are in which state, and what went wrong."""

from collections import Counter
from dataclasses import dataclass

from softmax_gradient_tampering.studies.plan.plan import Arm, State
from softmax_gradient_tampering.studies.results.study import Study


@dataclass(frozen=True)
class ArmStatus:
    """The cells of an arm.

    Attributes:
        arm: of the plan.
        num_cells: that the plan has for it; 0 while its settings are not chosen.
        counts: cells in every state, those of none left out.
        problems: a line for every cell that diverged, failed or is invalid.
    """

    arm: Arm
    num_cells: int
    counts: Counter[State]
    problems: tuple[str, ...]


def arm_statuses(study: Study) -> list[ArmStatus]:
    """The state of every arm."""
    found = []
    for arm in study.arms:
        cells = [each for each in study.cells if each.cell.arm == arm.name]
        problems = tuple(
            f"{arm.name} seed {each.cell.seed} ({each.cell.id}): {each.reason}"
            for each in cells
            if each.reason
        )
        counts = Counter(each.state for each in cells)
        found.append(ArmStatus(arm, len(cells), counts, problems))
    return found
