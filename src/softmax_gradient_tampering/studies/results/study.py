"""What a report is about: a study, its arms and what its cells came to."""

from dataclasses import dataclass, field
from pathlib import Path

from softmax_gradient_tampering.studies.plan.plan import ACCURACY, Arm, Cell, State
from softmax_gradient_tampering.studies.results.predictions import Agreement
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun


@dataclass(frozen=True)
class StudyCell:
    """A cell of a study as a report shows it.

    Attributes:
        cell: of the plan.
        state: of the cell.
        reason: why it failed or is invalid; one line.
        run: what it left behind, where it is finished.
    """

    cell: Cell
    state: State
    reason: str = ""
    run: RecordedRun | None = None


@dataclass(frozen=True)
class Study:
    """What a report is about.

    Attributes:
        path: the study folder, the run folder or the summary.csv.
        kind: study, run or summary.
        name: of the study or the run.
        command: the words of the command that reproduces it; empty if it is not known.
        arms: in the plan's order; one for a run or a summary.csv.
        cells: of all arms and seeds, in the plan's order.
        agreements: of every equivalent arm's name, by seed.
        notes: what a reader should know of the folder, a sentence each.
        is_sequential: whether the number of seeds depends on what the first ones showed.
        margin: points that the plan counts as none; None where it does not say.
        metric: what the arms are judged by, as the plan has it.
    """

    path: Path
    kind: str
    name: str
    command: tuple[str, ...]
    arms: tuple[Arm, ...]
    cells: tuple[StudyCell, ...]
    agreements: dict[str, dict[int, Agreement]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_sequential: bool = False
    margin: float | None = None
    metric: str = ACCURACY

    def finished(self, arm: Arm) -> dict[int, RecordedRun]:
        """An arm's finished runs by seed."""
        return {
            each.cell.seed: each.run
            for each in self.cells
            if each.cell.arm == arm.name and each.run is not None
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data set, in the order of the labels; none where no run has recorded them."""
        counts = (each.run.classes for each in self.cells if each.run is not None)
        return next((found.names for found in counts if found is not None), ())

    def class_name(self, label: int) -> str:
        """The name of a class; its number, from 0, where no name is recorded."""
        names = self.class_names
        return names[label] if label < len(names) else str(label)

    def first(self, kind: str) -> Arm | None:
        """The first arm of a kind."""
        return next((arm for arm in self.arms if arm.kind == kind), None)
