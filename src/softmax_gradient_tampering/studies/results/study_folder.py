"""The folder of a study: plan.json, and what has become of every cell."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.lock import FolderLock
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.studies.plan.growth import difference, merge
from softmax_gradient_tampering.studies.plan.plan import Cell, Plan, State
from softmax_gradient_tampering.studies.plan.plan_file import FILE_NAME, read_plan, to_json
from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.cell_record import (
    FAILURE_NAME,
    CellRecord,
    read_cell,
    read_failure,
)

_LAST, _RESULT = "last.pth.tar", "result.json"
_POLL_S = 1.0
_BEGUN = re.compile(r"\.{1,2}(plan|search)\.json\.")


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

    def read(self, cell: Cell) -> CellRecord:
        """What has become of a cell; each of its files is read once."""
        record = read_cell(self.cell_path(cell), cell, self.plan.settings_of(cell))
        may_run = record.state in (State.FAILED, State.UNFINISHED, State.MISSING)
        if may_run and claims.is_held(self.lock_path(cell)):
            return CellRecord(cell, State.RUNNING)
        return record

    def count_finished(self) -> int:
        """How many runs are finished."""
        return sum(self.read(c).state is State.FINISHED for c in self.plan.unique_cells())

    def attempts(self, cell: Cell) -> int:
        """How often a run has failed."""
        failure = read_failure(self.cell_path(cell))
        return 0 if failure is None else failure.attempts

    def record_failure(self, cell: Cell, error: str, traceback: str = "") -> None:
        """Write failure.json, one attempt more than it held."""
        path = self.cell_path(cell)
        failure = {
            "attempts": self.attempts(cell) + 1,
            "error": error,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if traceback:
            failure["traceback"] = traceback
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error})") from error
        write_text(path / FAILURE_NAME, json.dumps(failure, indent=1) + "\n")

    def forget_failure(self, cell: Cell) -> None:
        """Remove failure.json of a cell that is finished after all, which counts in any case."""
        with suppress(OSError):
            (self.cell_path(cell) / FAILURE_NAME).unlink()

    def prune_checkpoints(self, cell: Cell) -> None:
        """Remove all checkpoints of a finished cell but the last one.

        They stay where the run is not finished, or somebody is at work in its folder.
        """
        path = self.cell_path(cell)
        spares = [each for each in path.glob("*.pth.tar") if each.name != _LAST]
        if not (spares and (path / _LAST).exists()):
            return
        with suppress(UserError):
            lock = FolderLock(path)
            try:
                for checkpoint in spares if (path / _RESULT).exists() else ():
                    with suppress(OSError):  # it takes room, and nothing else
                        checkpoint.unlink()
            finally:
                lock.release()

    @contextmanager
    def plan_lock(self) -> Iterator[None]:
        """Hold the plan against other processes, and read what they have made of it."""
        lock = self.path / "plan.lock"
        while not claims.claim(lock):
            time.sleep(_POLL_S)
        try:
            self.reload()
            yield
        finally:
            claims.release(lock)

    def reload(self) -> None:
        """Read plan.json again: another process may have chosen the tuned settings."""
        self.plan = read_plan(self.path / FILE_NAME)

    def rewrite(self, plan: Plan) -> None:
        """Write plan.json anew, with settings chosen or seeds added."""
        write_text(self.path / FILE_NAME, to_json(plan))
        self.plan = plan


def create_study(path: Path, plan: Plan) -> StudyFolder:
    """The folder of a new study, or of one begun before, perhaps with fewer arms or seeds.

    Raises:
        UserError: the folder holds another study, or something else.
    """
    existing = path / FILE_NAME
    if not existing.exists():
        if not is_free(path):
            raise UserError(f"{path}: holds files, and no study; choose another --name or --output")
        try:
            (path / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error})") from error
        _write_once(existing, to_json(plan))
    study = open_study(path)
    if _merged(study, plan) != study.plan:
        with study.plan_lock():
            study.rewrite(_merged(study, plan))
    return study


def missing_arms(path: Path, plan: Plan) -> list[str]:
    """The names of a plan's arms that the study of a folder does not have: all of a new study.

    Raises:
        UserError: the folder holds another study.
    """
    has = set[str]()
    if (path / FILE_NAME).exists():
        study = open_study(path)
        _merged(study, plan)
        has = {arm.name for arm in study.plan.arms}
    return [arm.name for arm in plan.arms if arm.name not in has]


def _merged(study: StudyFolder, plan: Plan) -> Plan:
    """The plan of a study with what another one asks of it."""
    merged = merge(study.plan, plan)
    if merged is None:
        raise UserError(
            f"{study.path} holds another study of that name: {difference(study.plan, plan)}; "
            "choose another --name or --output"
        )
    return merged


def is_free(path: Path) -> bool:
    """Whether a folder holds nothing, or what a program was killed over before it had a plan."""
    return not path.is_dir() or all(
        _BEGUN.match(entry.name) or (entry.name == "cells" and not any(entry.iterdir()))
        for entry in path.iterdir()
    )


def open_study(path: Path) -> StudyFolder:
    """The study of a folder.

    Raises:
        UserError: there is none.
    """
    if not (path / FILE_NAME).exists():
        raise UserError(f"{path}: no study there; it would hold a plan.json")
    return StudyFolder(path, read_plan(path / FILE_NAME))


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
