"""A study, a run folder or a summary.csv, read into one form."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.recorded_plan import Arm, Plan, PlannedCell, read_plan
from softmax_gradient_tampering.studies.results.predictions import Agreement, agreement
from softmax_gradient_tampering.studies.results.recorded_run import (
    RecordedRun,
    as_number,
    differing_setting,
    read_curves,
    read_run,
)

AfterCell = Callable[[int, int], None]


class State(StrEnum):
    """Where a cell is.

    Invalid: its files contradict each other or the plan; it is left out of every number.
    Unfinished: it has begun, and is running or was stopped.
    """

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True)
class Cell:
    """A cell of a study and what became of it.

    Attributes:
        id: the name of its folder.
        arm, seed: of the plan.
        state: where it is.
        reason: why, where it failed or is invalid; one line.
        run: what it left behind, where it is finished.
    """

    id: str
    arm: str
    seed: int
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
    """

    path: Path
    kind: str
    name: str
    command: tuple[str, ...]
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    agreements: dict[str, dict[int, Agreement]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def finished(self, arm: Arm) -> dict[int, RecordedRun]:
        """An arm's finished runs by seed."""
        return {
            cell.seed: cell.run
            for cell in self.cells
            if cell.arm == arm.name and cell.run is not None
        }

    def first(self, kind: str) -> Arm | None:
        """The first arm of a kind."""
        return next((arm for arm in self.arms if arm.kind == kind), None)


def collect(path: Path, after_cell: AfterCell | None = None) -> Study:
    """Read a study folder, a run folder or a summary.csv.

    Args:
        path: of one of the three.
        after_cell: called after every cell with the cells done and the cells in all.

    Raises:
        UserError: it is none of the three, or what it needs cannot be read.
    """
    if path.is_file():
        return _collect_summary(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; give a study, a run or a summary.csv")
    if (path / "plan.json").exists():
        return _collect_study(path, read_plan(path / "plan.json"), after_cell)
    if (path / "summary.csv").exists():
        return _collect_run(path)
    raise UserError(
        f"{path}: neither a study (plan.json) nor a run folder (summary.csv){_inside(path)}"
    )


def _collect_summary(path: Path) -> Study:
    try:
        curves = read_curves(path)
    except ValueError as error:
        raise UserError(f"{path} is no summary of a run: {error}") from error
    name = path.resolve().parent.name or path.stem
    return _single(RecordedRun(path, curves), "summary", name)


def _collect_run(folder: Path) -> Study:
    try:
        run = read_run(folder)
    except ValueError as error:
        raise UserError(
            f"{folder}: not a whole run folder: {error}; its summary.csv can be reported alone"
        ) from error
    return _single(run, "run", folder.resolve().name)


def _single(run: RecordedRun, kind: str, name: str) -> Study:
    alpha = run.alpha
    arm_kind = "baseline" if alpha == 1 else "tampered"
    arm = Arm(f"alpha-{alpha:g}" if run.args else "run", arm_kind, alpha)
    seed = as_number(run.args.get("seed"))
    is_finished = bool(run.result) or kind == "summary"
    state = State.FINISHED if is_finished else State.UNFINISHED
    cell = Cell(name, arm.name, int(seed) if seed == seed else 0, state, "", run)
    words = run.environment.get("command")
    command = tuple(str(word) for word in words) if isinstance(words, list) else ()
    return Study(run.path, kind, name, command, (arm,), (cell,))


def _collect_study(folder: Path, plan: Plan, after_cell: AfterCell | None) -> Study:
    arms = {arm.name: arm for arm in plan.arms}
    cells = []
    for number, planned in enumerate(plan.cells, start=1):
        cells.append(_read_cell(folder / "cells" / planned.id, planned, arms[planned.arm], plan))
        if after_cell is not None:
            after_cell(number, len(plan.cells))
    study = Study(folder, "study", plan.name, plan.command, plan.arms, tuple(cells))
    notes: list[str] = []
    if plan.stages:
        before = " and ".join(map(str, plan.stages))
        notes.append(
            f"Seeds were added to this study after its first {before}. "
            "If that was done because of what those showed, the p values and intervals promise "
            "more than they hold: they take the number of seeds to be fixed beforehand"
        )
    strays = _folders(folder / "cells") - {planned.id for planned in plan.cells}
    if strays:
        notes.append(
            f"{len(strays)} folder{'s' if len(strays) > 1 else ''} in cells/ that the plan does "
            f"not name, passed over: {', '.join(sorted(strays)[:5])}"
        )
    agreements = {
        arm.name: dict(_agree(study, arm, notes)) for arm in plan.arms if arm.kind == "equivalent"
    }
    return replace(study, agreements=agreements, notes=tuple(notes))


def _read_cell(folder: Path, planned: PlannedCell, arm: Arm, plan: Plan) -> Cell:
    def cell(state: State, reason: str = "", run: RecordedRun | None = None) -> Cell:
        return Cell(planned.id, planned.arm, planned.seed, state, reason, run)

    if (folder / "result.json").exists():
        try:
            run = read_run(folder, arm.logit_scale)
            _check_is_of_plan(run, planned, arm, plan)
        except ValueError as error:
            return cell(State.INVALID, str(error))
        return cell(State.FINISHED, run=run)
    if (folder / "failure.json").exists():
        return cell(State.FAILED, _failure(folder / "failure.json"))
    has_begun = (folder / "args.yaml").exists() or (folder / "summary.csv").exists()
    return cell(State.UNFINISHED if has_begun else State.MISSING)


def _check_is_of_plan(run: RecordedRun, planned: PlannedCell, arm: Arm, plan: Plan) -> None:
    """Whether a run is the one that the plan has in its place."""
    if plan.config is not None:
        difference = differing_setting(run.args, {**plan.config, **arm.overrides})
        if difference is not None:
            raise ValueError(difference)
    if run.args.get("seed") != planned.seed:
        raise ValueError(f"args.yaml has seed {run.args.get('seed')}, the plan {planned.seed}")
    if arm.kind == "equivalent":  # its alpha is the one that it must follow
        return
    if run.alpha != (arm.alpha or 1.0):
        raise ValueError(f"args.yaml has alpha {run.alpha:g}, the plan {arm.alpha:g}")


def _failure(path: Path) -> str:
    """A failure.json as one line."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        lines = str(loaded["error"]).splitlines() or ["no reason recorded"]
        attempts = int(loaded.get("attempts", 1))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "failure.json cannot be read"
    return f"{lines[0]} ({attempts} attempt{'s' if attempts != 1 else ''})"


def _agree(study: Study, arm: Arm, notes: list[str]) -> Iterator[tuple[int, Agreement]]:
    """An equivalent arm's runs against the tampered arm of its alpha, seed by seed."""
    followed = next(
        (other for other in study.arms if other.kind == "tampered" and other.alpha == arm.alpha),
        None,
    )
    if followed is None:
        return
    tampered = study.finished(followed)
    for seed, run in study.finished(arm).items():
        other = tampered.get(seed)
        if other is None or other.predictions is None or run.predictions is None:
            continue
        paths = (other.path / "predictions.npz", run.path / "predictions.npz")
        try:
            yield seed, agreement(*paths, arm.alpha)
        except ValueError as error:
            notes.append(f"{arm.name} and {followed.name}, seed {seed}: {error}")


def _folders(path: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(path) if entry.is_dir()}
    except OSError:
        return set()


def _inside(path: Path) -> str:
    """Where a study or run is one folder deeper."""
    for name in sorted(_folders(path)):
        if any((path / name / file).exists() for file in ("plan.json", "summary.csv")):
            return f"; did you mean {path / name}?"
    return ""
