"""plan.json: written from a plan, and read back with every value checked."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.studies.plan.plan import KINDS, TUNED, TUNING, Arm, Cell, Plan
from softmax_gradient_tampering.training.config.arguments import FIELDS

FILE_NAME = "plan.json"
FORMAT = 1
# A cell's id names a folder, and never one outside the study.
_ID = re.compile(r"[\w-][\w.-]*")
_LARGEST_ALPHA = 1e300
_SCHEDULES = FIELDS["alpha_schedule"].metadata["choices"]
_NAMES = {str: "text", int: "a whole number", list: "a list", dict: "names and values"}


def to_json(plan: Plan) -> str:
    """plan.json; `selection` stands only in a tuned arm that has one, `stages` where there are."""
    arms = []
    for arm in plan.arms:
        entry = asdict(arm) | {"selected_from": arm.selected_from or None}
        if arm.selection is None:
            del entry["selection"]
        arms.append(entry)
    content = {"format": FORMAT, **asdict(plan), "arms": arms}
    if not plan.stages:
        del content["stages"]
    return json.dumps(content, indent=1) + "\n"


def read_plan(path: Path) -> Plan:
    """Read plan.json.

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
            f"{path}: not a plan of format {FORMAT} (format: {found!r:.60}); "
            "report it with the version that made it"
        )
    try:
        plan = _plan(loaded)
        _check(plan)
    except (ValueError, UserError) as error:
        raise UserError(
            f"{path}: not a plan ({first_line(error)}); it was edited, or another program wrote it"
        ) from error
    return plan


def _plan(loaded: Mapping[str, Any]) -> Plan:
    return Plan(
        name=_take(loaded, "name", str),
        command=_texts(loaded, "command"),
        arms=tuple(map(_arm, _take(loaded, "arms", list))),
        seeds=_counts(loaded, "seeds"),
        tuning_seeds=_counts(loaded, "tuning_seeds"),
        config=_take(loaded, "config", dict),
        processes_per_run=_take(loaded, "processes_per_run", int),
        cells=tuple(map(_cell, _take(loaded, "cells", list))),
        stages=_counts(loaded, "stages") if "stages" in loaded else (),
    )


def _arm(entry: Any) -> Arm:
    name = _take(entry, "name", str)
    kind = _take(entry, "kind", str)
    schedule = _take(entry, "alpha_schedule", str)
    if kind not in KINDS or schedule not in _SCHEDULES:
        raise ValueError(f"arm {name!r} of kind {kind!r} and schedule {schedule!r}")
    end, selected_from = entry.get("alpha_end"), entry.get("selected_from")
    return Arm(
        name=name,
        kind=kind,
        alpha=_alpha(_take(entry, "alpha", int | float)),
        alpha_end=None if end is None else _alpha(end),
        alpha_schedule=schedule,
        overrides=_take(entry, "overrides", dict),
        selected_from=() if selected_from is None else _texts(entry, "selected_from"),
        selection=_selection(entry.get("selection")),
    )


def _selection(entry: Any) -> dict[str, Any] | None:
    """How a tuned arm's settings were chosen: its table is shown, the chosen ones are trained."""
    if entry is None:
        return None
    _take(entry, "metric", str)
    _take(entry, "chosen", dict)
    for point in _take(entry, "table", list):
        _take(point, "overrides", dict)
    return dict(entry)


def _cell(entry: Any) -> Cell:
    name = _take(entry, "id", str)
    if not _ID.fullmatch(name):
        raise ValueError(f"cell id {name!r:.60} is not a folder's name")
    return Cell(name, _take(entry, "arm", str), _count("seed", _take(entry, "seed", int)))


def _check(plan: Plan) -> None:
    """Check that the parts of a plan fit each other.

    Raises:
        ValueError, UserError: they do not.
    """
    if not plan.arms or not plan.seeds or plan.processes_per_run < 1:
        raise ValueError("it has no arms, no seeds, or no processes")
    _check_once("seeds", plan.seeds)
    _check_once("tuning_seeds", plan.tuning_seeds)
    _check_once("arms", (arm.name for arm in plan.arms))
    # Ids may repeat: arms of equal configurations share their cells.
    _check_once("cells", ((cell.arm, cell.seed) for cell in plan.cells))
    seeds: dict[str, list[int]] = {arm.name: [] for arm in plan.arms}
    for cell in plan.cells:
        if cell.arm not in seeds:
            raise ValueError(f"cells of an arm {cell.arm!r:.60} that is not among the arms")
        seeds[cell.arm].append(cell.seed)
    tuning = {arm.name for arm in plan.arms if arm.kind == TUNING}
    for arm in plan.arms:
        if sorted(seeds[arm.name]) != sorted(plan.seeds_of(arm)):
            raise ValueError(f"arm {arm.name!r:.60} has cells of other seeds than the study")
        is_tuned = bool(arm.selected_from) and tuning.issuperset(arm.selected_from)
        if is_tuned != (arm.kind == TUNED):
            raise ValueError(f"arm {arm.name!r:.60} is not tuned by what it is selected from")
        plan.config_of(arm, 0)  # every setting is one of a run
    first: dict[str, Cell] = {}
    for cell in plan.cells:
        other = first.setdefault(cell.id, cell)
        if other is cell:
            continue
        if plan.hash_of(plan.settings_of(cell)) != plan.hash_of(plan.settings_of(other)):
            raise ValueError(f"two cells of different settings have the id {cell.id!r:.60}")


def _take(entry: Any, name: str, kind: Any) -> Any:
    """A value of a mapping, of the type that it must have."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.60} does not hold names and values")
    if name not in entry:
        raise ValueError(f"no {name!r}")
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} {value!r:.60} is not {_NAMES.get(kind, 'a number')}")
    return value


def _texts(entry: Any, name: str) -> tuple[str, ...]:
    values = _take(entry, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is not a list of texts")
    return tuple(values)


def _counts(entry: Any, name: str) -> tuple[int, ...]:
    return tuple(_count(name, value) for value in _take(entry, name, list))


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} {value!r:.60} is not a whole number from 0 on")
    return value


def _alpha(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= _LARGEST_ALPHA):
        raise ValueError(f"alpha {value!r:.60} is not a finite number from 0 on")
    return float(value)


def _check_once(name: str, values: Iterable[Any]) -> None:
    value, count = Counter(values).most_common(1)[0] if (values := list(values)) else ("", 0)
    if count > 1:
        raise ValueError(f"{name} {value!r:.60} stands there twice")
