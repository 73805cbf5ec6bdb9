"""The plan of a study: arms, seeds, and a cell for every one of their pairs."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from softmax_gradient_tampering.training.config.arguments import from_mapping, to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import run_hash

TUNED, TUNING = "tuned", "tuning"
# Arms that claim something: each is judged against the baseline.
JUDGED = ("tampered", "scheduled", "ordinary")
KINDS = ("baseline", *JUDGED, "equivalent", TUNED, TUNING)
# Flags that say how an arm is tampered with.
ALPHA_FLAGS = ("modify_softmax", "alpha_schedule", "alpha_end", "equivalent_to")
# Points of accuracy: smaller differences count as none unless the reader says otherwise.
DEFAULT_MARGIN = 0.5
# What a study can be judged by, besides the recall of a class, in percent of the test set.
ACCURACY = "accuracy"
METRICS = (ACCURACY, "balanced-accuracy", "macro-f1", "lowest-recall")
RECALL = "recall:"


def is_metric(name: object) -> bool:
    """Whether a study can be judged by something of this name."""
    is_recall = isinstance(name, str) and name.startswith(RECALL) and name != RECALL
    return name in METRICS or is_recall


class State(StrEnum):
    """What has become of a cell.

    Finished: its result.json is there, and its files agree with each other and with the plan.
    Running: it is not finished, and a process works on it.
    Unfinished: it has begun, and no process is seen to work on it.
    Diverged: its run was ended by numbers that are not finite, which is an outcome of its arm.
    Failed: its last run ended with another error, which is none of the arm's doing.
    Missing: nothing of it is there.
    Invalid: its files contradict each other or the plan; it is left out of every number.
    """

    FINISHED = "finished"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    DIVERGED = "diverged"
    FAILED = "failed"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True)
class Arm:
    """One setting, trained with every seed.

    Attributes:
        name: of the arm.
        kind: baseline (what the others are compared with), tampered, scheduled, ordinary (without
            tampering, at other settings than the baseline), equivalent (the ordinary training
            that must coincide with a tampered arm), tuned (the baseline at its own best
            settings) or tuning (a point of the grid, on a hold-out).
        alpha: of the tampering, or that an equivalent arm is equivalent to.
        alpha_end: of a schedule; None without one.
        alpha_schedule: constant, linear or cosine.
        overrides: flags that differ from the study's.
        selected_from: the tuning arms that the tuned arm's settings are chosen from.
        selection: how they were chosen, once they are: metric, table and chosen.
        seeds: those that the arm is trained with, where these are not all of the study's.
        follows: the tampered arm that an equivalent one must coincide with.
        is_added: whether the study was first planned without the arm.
    """

    name: str
    kind: str
    alpha: float = 1.0
    alpha_end: float | None = None
    alpha_schedule: str = "constant"
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    selected_from: tuple[str, ...] = ()
    selection: Mapping[str, Any] | None = field(default=None, hash=False)
    seeds: tuple[int, ...] | None = None
    follows: str | None = None
    is_added: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether the arm claims something, unlike the baseline and the controls."""
        return self.kind in JUDGED

    @property
    def is_tampered(self) -> bool:
        """Whether the gradient of its training is tampered with."""
        if self.kind == "equivalent":  # alpha is that of the arm that it follows
            return False
        return self.alpha != 1 or self.alpha_end is not None

    @property
    def other_flags(self) -> dict[str, Any]:
        """The flags that differ from the study's, but for those of the tampering."""
        return {name: v for name, v in self.overrides.items() if name not in ALPHA_FLAGS}

    @property
    def is_waiting(self) -> bool:
        """Whether the arm's settings are not yet chosen."""
        return bool(self.selected_from) and self.selection is None

    @property
    def logit_scale(self) -> float:
        """The factor of the logits in softmax(alpha z): that of the end of the training."""
        if not self.is_tampered:
            return 1.0
        return self.alpha if self.alpha_end is None else self.alpha_end


@dataclass(frozen=True)
class Cell:
    """A run of a study: an arm and a seed. Equal configurations have equal ids."""

    id: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Settling:
    """That seeds are added to a study until its arms are settled.

    Attributes:
        max_seeds: of an arm.
        margin: points of the metric; an arm whose interval lies within it is settled.
    """

    max_seeds: int
    margin: float = DEFAULT_MARGIN


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
        settling: that seeds are added until the arms are settled; None where that was not asked.
        metric: what the arms are judged by: one of METRICS, or recall:CLASS.
        margin: points of it, where the plan says how many count as none, and nothing is settled.
    """

    name: str
    command: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    config: Mapping[str, Any] = field(hash=False)
    processes_per_run: int = 1
    cells: tuple[Cell, ...] = ()
    stages: tuple[int, ...] = ()
    settling: Settling | None = None
    metric: str = ACCURACY
    margin: float | None = None

    @property
    def is_sequential(self) -> bool:
        """Whether the number of seeds depends on what the first ones showed."""
        return bool(self.stages) or self.settling is not None

    @property
    def baseline(self) -> Arm | None:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.kind == "baseline"), None)

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def only(self, names: Collection[str]) -> "Plan":
        """The plan of some of the arms."""
        arms = tuple(arm for arm in self.arms if arm.name in names)
        return replace(self, arms=arms, cells=tuple(c for c in self.cells if c.arm in names))

    def cells_of(self, *names: str) -> list[Cell]:
        """The cells of some arms, in the plan's order."""
        return [cell for cell in self.cells if cell.arm in names]

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """The seeds that an arm is trained with; none while its settings are not chosen."""
        if arm.is_waiting:
            return ()
        if arm.kind == TUNING:
            return self.tuning_seeds
        return self.seeds if arm.seeds is None else arm.seeds

    def unique_cells(self) -> list[Cell]:
        """The cells without those whose configuration another one has too."""
        unique: dict[str, Cell] = {}
        for cell in self.cells:
            unique.setdefault(cell.id, cell)
        return list(unique.values())

    def config_of(self, arm: Arm, seed: int) -> Config:
        """The configuration of an arm's run at a seed, but for its folder.

        Raises:
            UserError: a setting is none of a run's, or has a wrong value.
        """
        return from_mapping({**self.config, **arm.overrides, "seed": seed}, f"arm {arm.name}")

    def cell_config(self, cell: Cell) -> Config:
        """The configuration of a cell's run, but for its folder."""
        return self.config_of(self.arm(cell.arm), cell.seed)

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """What the args.yaml of a cell's run must say, as plain values."""
        return {**self._arm_settings[cell.arm], "seed": cell.seed}

    def hash_of(self, settings: Mapping[str, Any]) -> str:
        """The hash of all that decides what a run of these settings computes."""
        return run_hash({**settings, "processes_per_run": self.processes_per_run})

    def with_cells(self) -> "Plan":
        """The plan with the cells of all arms whose settings are known, the tuning ones first.

        The tuning comes first because another arm waits for it; then all arms of a seed, so
        that a study that is looked at early has pairs.
        """
        tuning = [arm for arm in self.arms if arm.kind == TUNING]
        others = [arm for arm in self.arms if arm.kind != TUNING and not arm.is_waiting]
        cells = (*self._make_cells(tuning), *self._make_cells(others))
        return replace(self, cells=cells)

    def with_selection(self, name: str, selection: Mapping[str, Any]) -> "Plan":
        """The plan with the settings of a tuned arm chosen, and its cells added."""
        overrides = {**self.arm(name).overrides, **selection["chosen"]}
        tuned = replace(self.arm(name), overrides=overrides, selection=selection)
        plan = replace(self, arms=tuple(tuned if arm.name == name else arm for arm in self.arms))
        return replace(plan, cells=(*plan.cells, *plan._make_cells([tuned])))

    @cached_property
    def _arm_settings(self) -> dict[str, dict[str, Any]]:
        """The settings of every arm, but for the seed."""
        return {
            arm.name: to_mapping(self.config_of(arm, 0), leave_out=NOT_RECORDED)
            for arm in self.arms
        }

    @cached_property
    def _known_ids(self) -> dict[str, str]:
        """The ids of the plan's cells by the hashes of their settings.

        The two differ where a flag is newer than the plan.
        """
        return {self.hash_of(self.settings_of(cell)): cell.id for cell in reversed(self.cells)}

    def _make_cells(self, arms: Sequence[Arm]) -> Iterator[Cell]:
        """The cells of arms, seed by seed."""
        of_arms = [(arm, set(self.seeds_of(arm))) for arm in arms]
        seeds = dict.fromkeys(itertools.chain.from_iterable(map(self.seeds_of, arms)))
        for seed, (arm, own) in itertools.product(seeds, of_arms):
            if seed in own:
                cell = Cell("", arm.name, seed)
                found = self.hash_of(self.settings_of(cell))
                yield replace(cell, id=self._known_ids.get(found, found))
