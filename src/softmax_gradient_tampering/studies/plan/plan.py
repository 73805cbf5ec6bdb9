"""The plan of a study: arms, seeds, and a cell for every one of their pairs."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.studies.plan import recorded_plan
from softmax_gradient_tampering.training.config.arguments import from_mapping, to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import run_hash

TUNED, TUNING = "tuned", "tuning"


@dataclass(frozen=True)
class Arm:
    """One setting, trained with every seed.

    Attributes:
        name: of the arm.
        kind: baseline (ordinary training), tampered, equivalent (the ordinary training that
            must coincide with the tampered one of its alpha), tuned (the baseline at its own
            best settings), tuning (a point of the grid, on a hold-out) or scheduled.
        alpha: of the tampering, or that an equivalent arm is equivalent to.
        alpha_end: of a schedule.
        alpha_schedule: constant, linear or cosine.
        overrides: flags that differ from the study's.
        selected_from: the tuning arms that the tuned arm's settings are chosen from.
        selection: how they were chosen, once they are.
    """

    name: str
    kind: str
    alpha: float = 1.0
    alpha_end: float | None = None
    alpha_schedule: str = "constant"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    selected_from: Sequence[str] | None = None
    selection: Mapping[str, Any] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the arm's settings are not yet chosen."""
        return self.selected_from is not None and self.selection is None


@dataclass(frozen=True)
class Cell:
    """A run of a study: an arm and a seed. Equal configurations have equal ids."""

    id: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """What a study consists of, as plan.json holds it.

    Attributes:
        name: of the study.
        command: the words that made it.
        arms: what is compared, and what the controls are made from.
        seeds: of every arm but the tuning ones.
        tuning_seeds: of the tuning arms.
        config: the settings of every run, as plain values; the arms override them.
        processes_per_run: processes of a run; one run is one torchrun job above 1.
        cells: in the order in which they are run.
        stages: how many seeds there were before each time that some were added.
    """

    name: str
    command: Sequence[str]
    arms: Sequence[Arm]
    seeds: Sequence[int]
    tuning_seeds: Sequence[int]
    config: Mapping[str, Any]
    processes_per_run: int
    cells: Sequence[Cell]
    stages: Sequence[int] = ()

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def unique_cells(self) -> list[Cell]:
        """The cells without those whose configuration another one has too."""
        unique: dict[str, Cell] = {}
        for cell in self.cells:
            unique.setdefault(cell.id, cell)
        return list(unique.values())

    def cell_config(self, cell: Cell) -> Config:
        """The configuration of a cell's run, but for its folder."""
        return arm_config(self.config, self.arm(cell.arm), cell.seed)

    def is_same_study(self, other: "Plan") -> bool:
        """Whether two plans ask for the same runs; selections and the command aside."""
        return _asked(self) == _asked(other)

    def with_seeds_of(self, other: "Plan") -> "Plan | None":
        """This plan with the further seeds of another one; None where that one is not the same.

        The tuning stays as it is: settings that are chosen are not chosen again.
        """
        added = [seed for seed in other.seeds if seed not in self.seeds]
        tunes_all = list(other.tuning_seeds) == list(other.seeds)
        tuning_seeds = self.tuning_seeds if tunes_all else other.tuning_seeds
        same = replace(other, seeds=self.seeds, tuning_seeds=tuning_seeds)
        if not added or len(added) + len(self.seeds) > len(other.seeds):
            return None
        if not self.is_same_study(same):
            return None
        seeds, stages = [*self.seeds, *added], [*self.stages, len(self.seeds)]
        return with_cells(replace(self, seeds=seeds, stages=stages, command=other.command))

    def with_selection(self, name: str, selection: Mapping[str, Any]) -> "Plan":
        """The plan with the settings of a tuned arm chosen, and its cells added."""
        overrides = {**self.arm(name).overrides, **selection["chosen"]}
        arms = [
            replace(arm, overrides=overrides, selection=selection) if arm.name == name else arm
            for arm in self.arms
        ]
        plan = replace(self, arms=arms)
        return replace(plan, cells=[*self.cells, *_cells(plan, [plan.arm(name)], self.seeds)])


def arm_config(config: Mapping[str, Any], arm: Arm, seed: int) -> Config:
    """The study's settings with an arm's in the place of their own, at a seed."""
    return from_mapping({**config, **arm.overrides, "seed": seed}, f"arm {arm.name}")


def cell_id(config: Config, processes_per_run: int) -> str:
    """The hash of all that decides what a run computes."""
    args = to_mapping(config, leave_out=NOT_RECORDED)
    return run_hash(args | {"processes_per_run": processes_per_run})


def with_cells(plan: Plan) -> Plan:
    """The plan with the cells of all arms whose settings are known, the tuning ones first.

    The tuning comes first because another arm waits for it; then all arms of a seed, so that
    a study that is looked at early has pairs.
    """
    tuning = [arm for arm in plan.arms if arm.kind == TUNING]
    others = [arm for arm in plan.arms if arm.kind != TUNING and not arm.is_waiting]
    cells = [*_cells(plan, tuning, plan.tuning_seeds), *_cells(plan, others, plan.seeds)]
    return replace(plan, cells=cells)


def _cells(plan: Plan, arms: Sequence[Arm], seeds: Sequence[int]) -> Iterator[Cell]:
    for seed, arm in itertools.product(seeds, arms):
        config = arm_config(plan.config, arm, seed)
        yield Cell(cell_id(config, plan.processes_per_run), arm.name, seed)


def to_json(plan: Plan) -> str:
    """plan.json; `selection` stands only in a tuned arm that has one, `stages` where there are."""
    arms = []
    for arm in plan.arms:
        entry = asdict(arm)
        if entry["selection"] is None:
            del entry["selection"]
        arms.append(entry)
    content = {"format": recorded_plan.FORMAT, **asdict(plan), "arms": arms}
    if not plan.stages:
        del content["stages"]
    return json.dumps(content, indent=1) + "\n"


def read_plan(path: Path) -> Plan:
    """Read plan.json.

    Raises:
        UserError: it cannot be read, or is not what this version writes.
    """
    recorded_plan.read_plan(path)  # every value checked: an id names a folder
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["format"]
        arms = [Arm(**entry) for entry in content.pop("arms")]
        cells = [Cell(**entry) for entry in content.pop("cells")]
        return Plan(arms=arms, cells=cells, **content)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: not a study's plan ({first_line(error)})") from error


def _asked(plan: Plan) -> Any:
    arms = [asdict(arm) for arm in plan.arms]
    for arm in arms:
        if arm["selected_from"] is not None:  # what a selection adds was not asked for
            arm["overrides"] = arm["selection"] = None
    config = from_mapping(plan.config, plan.name)
    everything = {
        "arms": arms,
        "seeds": list(plan.seeds),
        "tuning_seeds": list(plan.tuning_seeds),
        "run": cell_id(config, plan.processes_per_run),
    }
    return json.loads(json.dumps(everything))
