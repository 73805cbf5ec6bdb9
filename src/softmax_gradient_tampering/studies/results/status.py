"""How far a study is: how many of each arm's cells are in which state, and what went wrong."""

from collections import Counter
from dataclasses import dataclass

from softmax_gradient_tampering.studies.plan.plan import Arm, State
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder


@dataclass(frozen=True)
class ArmStatus:
    """The cells of an arm.

    Attributes:
        arm: of the plan.
        num_cells: that the plan has for it; 0 while its settings are not chosen.
        counts: cells in every state, those of none left out.
        problems: a line for every cell that failed or is invalid.
    """

    arm: Arm
    num_cells: int
    counts: Counter[State]
    problems: tuple[str, ...]


def read_status(study: StudyFolder) -> list[ArmStatus]:
    """The state of every arm; each file of a cell is read once."""
    states, reasons = {}, {}
    for cell in study.plan.unique_cells():  # a record has a run's numbers: it is not kept
        record = study.read(cell)
        states[cell.id], reasons[cell.id] = record.state, record.reason
    found = []
    for arm in study.plan.arms:
        cells = study.plan.cells_of(arm.name)
        problems = tuple(
            f"{arm.name} seed {cell.seed} ({cell.id}): {reasons[cell.id]}"
            for cell in cells
            if reasons[cell.id]
        )
        counts = Counter(states[cell.id] for cell in cells)
        found.append(ArmStatus(arm, len(cells), counts, problems))
    return found
