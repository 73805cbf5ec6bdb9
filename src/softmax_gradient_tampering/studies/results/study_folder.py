"""The folder of a study: plan.json, and what has become of every cell."""

import json
import os
import time
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.studies.plan.plan import Cell, Plan, read_plan, to_json
from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.recorded_run import check_run, differing_setting
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED

STATES = ("done", "running", "failed", "missing", "invalid")


class StudyFolder:
    """A study on disk.

    Attributes:
        path: DIR/NAME.
        plan: what plan.json held when it was last read.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan

    @property
    def cells_path(self) -> Path:
        return self.path / "cells"

    def cell_path(self, cell: Cell) -> Path:
        return self.cells_path / cell.id

    def lock_path(self, cell: Cell) -> Path:
        return self.cells_path / f"{cell.id}.lock"

    def state(self, cell: Cell) -> str:
        """done, running, failed, missing or invalid."""
        if self.contradiction(cell) is not None:
            return "invalid"
        if (self.cell_path(cell) / "result.json").exists():
            return "done"
        if claims.is_held(self.lock_path(cell)):
            return "running"
        return "failed" if self.failure(cell) else "missing"

    def result(self, cell: Cell) -> dict[str, Any]:
        """result.json of a finished cell."""
        result: dict[str, Any] = _read_json(self.cell_path(cell) / "result.json")
        return result

    def failure(self, cell: Cell) -> dict[str, Any]:
        """failure.json of a cell that failed; empty without one."""
        path = self.cell_path(cell) / "failure.json"
        if not path.exists():
            return {}
        try:
            failure = _read_json(path)
            return {**failure, "attempts": int(failure.get("attempts", 0))}
        except (ValueError, TypeError, AttributeError):
            return {"attempts": 0, "error": "failure.json cannot be read"}

    def record_failure(self, cell: Cell, error: str, traceback: str = "") -> None:
        """Write failure.json, one attempt more than it held."""
        path = self.cell_path(cell)
        failure = {
            "attempts": self.failure(cell).get("attempts", 0) + 1,
            "error": error,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if traceback:
            failure["traceback"] = traceback
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "failure.json", json.dumps(failure, indent=1) + "\n")

    def forget_failure(self, cell: Cell) -> None:
        """Remove failure.json of a cell that is done after all."""
        (self.cell_path(cell) / "failure.json").unlink(missing_ok=True)

    def contradiction(self, cell: Cell) -> str | None:
        """What in a cell's files is not as the plan says, in a sentence, or None."""
        folder = self.cell_path(cell)
        path = folder / "args.yaml"
        if not path.exists():
            return "result.json without args.yaml" if _is_finished(folder) else None
        try:
            planned = to_mapping(self.plan.cell_config(cell), leave_out=NOT_RECORDED)
            found = differing_setting(read_args(path), planned)
            if not found and _is_finished(folder):
                check_run(folder)
        except (OSError, ValueError) as error:
            return f"{first_line(error)}"
        return found

    def reload(self) -> None:
        """Read plan.json again: another process may have chosen the tuned settings."""
        self.plan = read_plan(self.path / "plan.json")

    def rewrite(self, plan: Plan) -> None:
        """Write plan.json anew, a selection made."""
        write_text(self.path / "plan.json", to_json(plan))
        self.plan = plan


def create_study(path: Path, plan: Plan) -> StudyFolder:
    """The folder of a new study, or of the same one begun before, perhaps with fewer seeds.

    Raises:
        UserError: the folder holds another study, or something else.
    """
    existing = path / "plan.json"
    if not existing.exists():
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"{path}: holds files, and no study; choose another --name")
        try:
            (path / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error})") from error
        _write_once(existing, to_json(plan))
    study = open_study(path)
    if study.plan.is_same_study(plan):
        return study
    extended = study.plan.with_seeds_of(plan)
    if extended is None:
        raise UserError(
            f"{path} holds another study of that name: {difference(study.plan, plan)}; choose "
            "another --name"
        )
    study.rewrite(extended)
    return study


def open_study(path: Path) -> StudyFolder:
    """The study of a folder.

    Raises:
        UserError: there is none.
    """
    if not (path / "plan.json").exists():
        raise UserError(f"{path}: no study there; it would hold a plan.json")
    return StudyFolder(path, read_plan(path / "plan.json"))


def difference(there: Plan, here: Plan) -> str:
    """In what two plans differ, in a few words."""
    parts: list[tuple[Any, ...]] = [
        (name, there.config.get(name), here.config.get(name))
        for name in sorted(set(there.config) | set(here.config))
    ]
    parts += [
        ("arms", *(" ".join(arm.name for arm in plan.arms) for plan in (there, here))),
        ("seeds", list(there.seeds), list(here.seeds)),
        ("tuning seeds", list(there.tuning_seeds), list(here.tuning_seeds)),
        ("processes per run", there.processes_per_run, here.processes_per_run),
    ]
    for name, value, other in parts:
        if value != other:
            return f"{name} {value!r:.80} there, {other!r:.80} here"
    return "other settings of its arms"


def _write_once(path: Path, text: str) -> None:
    """Write a file unless another process has done so first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_text(temporary, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            temporary.replace(path)
    temporary.unlink(missing_ok=True)


def _is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read ({first_line(error)})") from error
