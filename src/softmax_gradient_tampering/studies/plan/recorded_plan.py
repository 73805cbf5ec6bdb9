"""A study's plan.json as a report reads it: every value checked, nothing trusted."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line

FORMAT = 1
KINDS = ("baseline", "tampered", "equivalent", "tuned", "tuning", "scheduled")
# A cell's id names a folder, and never one outside the study.
_ID = re.compile(r"[\w-][\w.-]*")


@dataclass(frozen=True)
class Arm:
    """One setting of a study, trained with every seed.

    Attributes:
        name: as the plan has it.
        kind: baseline (alpha 1), tampered, equivalent (ordinary training at the settings that
            must give the tampered arm's predictions), tuned (the baseline at its own learning
            rate and weight decay), tuning (what tuned was selected from) or scheduled.
        alpha: of the tampering; of an equivalent arm, that of the arm it must follow.
        alpha_end: of a schedule; None without one.
        alpha_schedule: constant, linear or cosine.
        overrides: flags that differ from the study's command.
        selected_from: of a tuned arm, the names of its tuning arms.
        selection: of a tuned arm, the recorded table of the selection.
    """

    name: str
    kind: str
    alpha: float = 1.0
    alpha_end: float | None = None
    alpha_schedule: str = "constant"
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    selected_from: tuple[str, ...] = ()
    selection: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def logit_scale(self) -> float:
        """The factor of the logits in softmax(alpha z): that of the end of the training."""
        if self.kind == "tampered":
            return self.alpha
        if self.kind == "scheduled":
            return self.alpha if self.alpha_end is None else self.alpha_end
        return 1.0  # trained with the ordinary gradient


@dataclass(frozen=True)
class PlannedCell:
    """One run of a study: an arm with a seed, in the folder cells/<id>."""

    id: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """What a study set out to run.

    Attributes:
        name, command, arms, seeds, cells: as plan.json has them.
        config: the settings that all runs share; None where they are not recorded.
        stages: how many seeds there were before each time that some were added.
    """

    name: str
    command: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    cells: tuple[PlannedCell, ...]
    config: Mapping[str, Any] | None = field(default=None, hash=False)
    stages: tuple[int, ...] = ()


def read_plan(path: Path) -> Plan:
    """Read a study's plan.json.

    Raises:
        UserError: it cannot be read, is of another format, or is not a plan.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
        found = loaded.get("format") if isinstance(loaded, dict) else None
        raise UserError(
            f"{path}: not a plan of format {FORMAT} (format: {found!r}); "
            "report it with the version that made it"
        )
    try:
        return _plan(loaded)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(
            f"{path}: not a plan ({reason}); it was edited, or another program wrote it"
        ) from error


def _plan(loaded: Mapping[str, Any]) -> Plan:
    arms = tuple(_arm(entry) for entry in _list(loaded["arms"]))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ValueError("two arms of one name")
    cells = tuple(_cell(entry) for entry in _list(loaded["cells"]))
    # Ids may repeat: arms of equal configurations share their cells.
    if len({(cell.arm, cell.seed) for cell in cells}) < len(cells):
        raise ValueError("two cells of one arm and seed")
    strangers = {cell.arm for cell in cells} - set(names)
    if strangers:
        raise ValueError(f"cells of an arm {min(strangers)!r} that is not among the arms")
    seeds = tuple(_integer(seed) for seed in _list(loaded["seeds"]))
    tuning_seeds = tuple(_integer(seed) for seed in _list(loaded.get("tuning_seeds", [*seeds])))
    if not arms or not seeds:
        raise ValueError("no arms, or no seeds")
    for arm in arms:
        found = sorted(cell.seed for cell in cells if cell.arm == arm.name)
        is_waiting = arm.selected_from and arm.selection is None
        expected = () if is_waiting else tuning_seeds if arm.kind == "tuning" else seeds
        if found != sorted(expected):
            raise ValueError(f"arm {arm.name!r} has cells of other seeds than the study")
    config = loaded.get("config")
    return Plan(
        name=str(loaded["name"]),
        command=tuple(str(word) for word in _list(loaded.get("command", []))),
        arms=arms,
        seeds=seeds,
        cells=cells,
        config=None if config is None else dict(config),
        stages=tuple(_integer(number) for number in _list(loaded.get("stages", []))),
    )


def _arm(entry: Mapping[str, Any]) -> Arm:
    kind = str(entry["kind"])
    if kind not in KINDS:
        raise ValueError(f"arm of kind {kind!r}")
    end = entry.get("alpha_end")
    selection = entry.get("selection")
    return Arm(
        name=str(entry["name"]),
        kind=kind,
        alpha=_alpha(entry["alpha"]),
        alpha_end=None if end is None else _alpha(end),
        alpha_schedule=str(entry.get("alpha_schedule", "constant")),
        overrides=dict(entry.get("overrides") or {}),
        selected_from=tuple(str(name) for name in _list(entry.get("selected_from") or [])),
        selection=dict(selection) if selection else None,
    )


def _cell(entry: Mapping[str, Any]) -> PlannedCell:
    name = str(entry["id"])
    if not _ID.fullmatch(name):
        raise ValueError(f"cell id {name!r} is not a folder's name")
    return PlannedCell(name, str(entry["arm"]), _integer(entry["seed"]))


def _alpha(value: Any) -> float:
    alpha = float(value)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha {value!r}")
    return alpha


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"seed {value!r} is not an integer")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.60} is not a list")
    return value
