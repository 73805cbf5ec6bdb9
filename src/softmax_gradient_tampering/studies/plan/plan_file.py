"""plan.json: written from a plan, and read back with every value checked."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.untrusted import (
    ALPHA,
    COUNT,
    MAPPING,
    TEXT,
    Form,
    Kind,
    describe,
    find_fault,
    is_integer,
    is_number,
    list_of,
    optional,
)
from softmax_gradient_tampering.studies.plan.plan import (
    ACCURACY,
    KINDS,
    TUNED,
    TUNING,
    Arm,
    Cell,
    Plan,
    Settling,
    is_metric,
)
from softmax_gradient_tampering.training.config.arguments import FIELDS
from softmax_gradient_tampering.training.config.class_weights import is_recorded

FILE_NAME = "plan.json"
FORMAT = 1
_MAX_BYTES = 2**26  # 100,000 cells take a seventh of it
# A cell's id names a folder, and never one outside the study.
_ID = re.compile(r"[\w-][\w.-]{0,99}")
_SCHEDULES = FIELDS["alpha_schedule"].metadata["choices"]

_TEXTS = list_of(TEXT)
# torch takes no larger seed.
_SEED = Kind("a whole number from 0 to 2^64 - 1", lambda v: type(v) is int and 0 <= v < 2**64)
_SEEDS = list_of(_SEED)
_PLAN: Form = {
    "name": TEXT,
    "command": _TEXTS,
    "arms": list_of(MAPPING),
    "seeds": _SEEDS,
    "tuning_seeds": _SEEDS,
    "config": MAPPING,
    "processes_per_run": Kind("a whole number from 1", lambda v: is_integer(v) and v >= 1),
    "cells": list_of(MAPPING),
}
_MARGIN = Kind("a finite number above 0", lambda v: is_number(v) and 0 < v < math.inf)
# What not every plan has.
_OPTIONS: Form = {
    "stages": list_of(COUNT),
    "settling": MAPPING,
    "metric": Kind("what a study is judged by", is_metric),
    "margin": _MARGIN,
}
_SETTLING: Form = {
    "max_seeds": COUNT,
    "margin": _MARGIN,
}
_ARM: Form = {
    "name": TEXT,
    "kind": Kind(f"one of {', '.join(KINDS)}", lambda v: v in KINDS),
    "alpha": ALPHA,
    "alpha_end": optional(ALPHA),
    "alpha_schedule": Kind(f"one of {', '.join(_SCHEDULES)}", lambda v: v in _SCHEDULES),
    "overrides": MAPPING,
    "selected_from": optional(_TEXTS),
}
_SELECTION: Form = {"metric": TEXT, "chosen": MAPPING, "table": list_of(MAPPING)}
# What not every arm has.
_ARM_OPTIONS: Form = {
    "seeds": _SEEDS,
    "follows": TEXT,
    "is_added": Kind("true", lambda v: v is True),
}
_POINT: Form = {"overrides": MAPPING}
_CELL: Form = {
    "id": Kind("a folder's name", lambda v: isinstance(v, str) and bool(_ID.fullmatch(v))),
    "arm": TEXT,
    "seed": _SEED,
}


def to_json(plan: Plan) -> str:
    """plan.json; what a study or an arm does not have is left out, such as an arm's own seeds."""
    arms = []
    for arm in plan.arms:
        entry = asdict(arm) | {"selected_from": arm.selected_from or None}
        for name in ("selection", *_ARM_OPTIONS):
            if entry[name] is None or entry[name] is False:
                del entry[name]
        arms.append(entry)
    content = {"format": FORMAT, **asdict(plan), "arms": arms}
    for name in ("stages", "settling", "margin"):
        if not content[name]:
            del content[name]
    return json.dumps(content, indent=1) + "\n"


def read_plan(path: Path) -> Plan:
    """Read plan.json.

    Raises:
        UserError: it cannot be read, is of another format, or is not a plan.
    """
    try:
        loaded = json.loads(read_record(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
        found = loaded.get("format") if isinstance(loaded, dict) else None
        raise UserError(
            f"{path}: not a plan of format {FORMAT} (format: {describe(found)}); "
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
    _check_form(loaded, _PLAN)
    _check_form(loaded, _OPTIONS, needs_all=False)
    settling = loaded.get("settling")
    if settling is not None:
        _check_form(settling, _SETTLING, "settling.")
    return Plan(
        name=loaded["name"],
        command=tuple(loaded["command"]),
        arms=_with_followed([_arm(arm, f"arms.{n}.") for n, arm in enumerate(loaded["arms"])]),
        seeds=tuple(loaded["seeds"]),
        tuning_seeds=tuple(loaded["tuning_seeds"]),
        config=loaded["config"],
        processes_per_run=loaded["processes_per_run"],
        cells=tuple(_cell(entry, f"cells.{n}.") for n, entry in enumerate(loaded["cells"])),
        stages=tuple(loaded.get("stages", ())),
        settling=settling and Settling(settling["max_seeds"], float(settling["margin"])),
        metric=loaded.get("metric", ACCURACY),
        margin=loaded.get("margin"),
    )


def _arm(entry: Mapping[str, Any], where: str) -> Arm:
    _check_form(entry, _ARM, where)
    _check_form(entry, _ARM_OPTIONS, where, needs_all=False)
    end, selection = entry["alpha_end"], entry.get("selection")
    if selection is not None:
        _check_form(selection, _SELECTION, f"{where}selection.")
        for number, point in enumerate(selection["table"]):
            _check_form(point, _POINT, f"{where}selection.table.{number}.")
    return Arm(
        name=entry["name"],
        kind=entry["kind"],
        alpha=float(entry["alpha"]),
        alpha_end=None if end is None else float(end),
        alpha_schedule=entry["alpha_schedule"],
        overrides=entry["overrides"],
        selected_from=tuple(entry["selected_from"] or ()),
        selection=selection,
        seeds=None if "seeds" not in entry else tuple(entry["seeds"]),
        follows=entry.get("follows"),
        is_added="is_added" in entry,
    )


def _with_followed(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms, an equivalent one with the arm that it follows.

    A plan of the time when arms differed in alpha alone does not name it.
    """
    tampered = {arm.alpha: arm.name for arm in reversed(arms) if arm.kind == "tampered"}
    return tuple(
        replace(arm, follows=tampered.get(arm.alpha))
        if arm.kind == "equivalent" and arm.follows is None
        else arm
        for arm in arms
    )


def _cell(entry: Mapping[str, Any], where: str) -> Cell:
    _check_form(entry, _CELL, where)
    return Cell(entry["id"], entry["arm"], entry["seed"])


def _check_form(values: Any, form: Form, where: str = "", needs_all: bool = True) -> None:
    fault = find_fault(values, form, where, needs_all)
    if fault is not None:
        raise ValueError(fault)


def _check(plan: Plan) -> None:
    """Check that the parts of a plan fit each other.

    Raises:
        ValueError, UserError: they do not.
    """
    if not plan.arms or not plan.seeds:
        raise ValueError("no arms, or no seeds")
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
    tampered = {arm.name for arm in plan.arms if arm.kind == "tampered"}
    if sum(arm.kind == "baseline" for arm in plan.arms) > 1:
        raise ValueError("more than one baseline")
    for arm in plan.arms:
        _check_once(f"seeds of arm {arm.name!r:.60},", arm.seeds or ())
        if not set(plan.seeds).issuperset(arm.seeds or ()):
            raise ValueError(f"arm {arm.name!r:.60} has seeds that the study has not")
        if sorted(seeds[arm.name]) != sorted(plan.seeds_of(arm)):
            raise ValueError(f"arm {arm.name!r:.60} has cells of other seeds than the study")
        is_tuned = bool(arm.selected_from) and tuning.issuperset(arm.selected_from)
        if is_tuned != (arm.kind == TUNED):
            raise ValueError(f"arm {arm.name!r:.60} is not tuned by what it is selected from")
        if arm.follows is not None and not (arm.kind == "equivalent" and arm.follows in tampered):
            raise ValueError(f"arm {arm.name!r:.60} follows what is no tampered arm")
        if not is_recorded({**plan.config, **arm.overrides}.get("class_weights", "")):
            raise ValueError(f"arm {arm.name!r:.60} names a file in class_weights")
        plan.config_of(arm, 0)  # every setting is one of a run
    first: dict[str, Cell] = {}
    for cell in plan.cells:
        other = first.setdefault(cell.id, cell)
        if other is cell:
            continue
        if plan.hash_of(plan.settings_of(cell)) != plan.hash_of(plan.settings_of(other)):
            raise ValueError(f"two cells of different settings have the id {cell.id!r:.60}")


def _check_once(name: str, values: Iterable[Any]) -> None:
    value, count = Counter(values).most_common(1)[0] if (values := list(values)) else ("", 0)
    if count > 1:
        raise ValueError(f"{name} {value!r:.60} stands there twice")
