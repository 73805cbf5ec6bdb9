"""Running a study: claim a cell, train it, record how it went, until none is left.

Any number of processes, on any machines that see the folder, can do this at the same time.
"""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.pool import Ended, WorkerPool
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.selection import select_settings
from softmax_gradient_tampering.studies.launch.torchrun import TorchrunPool
from softmax_gradient_tampering.studies.plan.plan import TUNING, Arm, Cell, Plan
from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder
from softmax_gradient_tampering.training.config.fields import Config

MAX_ATTEMPTS = 2  # a failed cell is retried once
_POLL_S = 2.0


@dataclass(frozen=True)
class LaunchOptions:
    """How runs are started.

    Attributes:
        num_jobs: runs at a time.
        num_threads: of each run.
        processes_per_run: above 1, a run is a torchrun job.
    """

    num_jobs: int
    num_threads: int = 1
    processes_per_run: int = 1


class Runner(Protocol):
    """What trains: `WorkerPool` or `TorchrunPool`."""

    @property
    def num_idle(self) -> int: ...

    def start(self, key: str, config: Config) -> None: ...

    def wait(self, timeout_s: float) -> list[Ended]: ...

    def stop(self) -> None: ...


@contextmanager
def open_runner(options: LaunchOptions) -> Iterator[Runner]:
    """What trains the runs; ended on leaving, whatever it is at."""
    runner: Runner
    if options.processes_per_run > 1:
        runner = TorchrunPool(options.num_jobs, options.processes_per_run)
    else:
        runner = WorkerPool(options.num_jobs, options.num_threads)
    try:
        yield runner
    finally:
        runner.stop()


def default_num_jobs() -> int:
    """A run a core; on a GPU one, which fills it."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def check_arms(plan: Plan, arms: Iterable[Arm], runner: Runner) -> None:
    """Set the first run of every arm up without training it, so that mistakes show at once.

    Raises:
        UserError: an arm cannot be run as it is.
    """
    first = {cell.arm: cell for cell in reversed(plan.cells)}
    waiting = deque((arm.name, plan.cell_config(first[arm.name])) for arm in arms)
    num_running = 0
    while waiting or num_running:
        while waiting and runner.num_idle:
            name, config = waiting.popleft()
            runner.start(name, replace(config, dry_run=True))
            num_running += 1
        for ended in runner.wait(_POLL_S):
            num_running -= 1
            if ended.error:
                raise UserError(f"{ended.key}: {ended.error}")


@dataclass
class Launch:
    """One process's work on a study.

    Attributes:
        study: worked on.
        runner: trains.
        progress: shows it.
        done: ids of finished cells.
        given_up: ids of the cells that failed for good, and why.
        invalid: ids of the cells whose files are not the plan's, and how.
        selection_error: why the tuned baseline has no settings; empty where it has.
    """

    study: StudyFolder
    runner: Runner
    progress: StudyProgress
    done: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    selection_error: str = ""
    _pending: deque[Cell] = field(default_factory=deque)
    _elsewhere: list[Cell] = field(default_factory=list)
    _running: dict[str, Cell] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _attempts_before: dict[str, int] = field(default_factory=dict)
    _refreshed: float = 0.0
    _looked_elsewhere: float = 0.0

    def run(self) -> None:
        """Work until every cell is done, failed for good, or invalid."""
        self._enter_new_cells()
        try:
            while self._pending or self._running or self._elsewhere:
                self._start_what_can_be()
                for ended in self.runner.wait(_POLL_S):
                    self._end(ended)
                self._keep_claims_young()
                self._look_elsewhere()
        except BaseException:
            self.runner.stop()  # before its claims are let go of
            raise
        finally:
            for cell in self._running.values():
                claims.release(self.study.lock_path(cell))

    def _enter_new_cells(self) -> None:
        """Take up the plan's cells, those of a selection that is due among them."""
        self._enter(self.study.plan.unique_cells())
        if any(arm.is_waiting for arm in self.study.plan.arms) and self._tuning_is_over():
            try:
                select_settings(self.study, frozenset(self.given_up | self.invalid))
            except UserError as error:  # the other arms do not wait for it
                self.selection_error = str(error)
            self._enter(self.study.plan.unique_cells())

    def _enter(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            if cell.id in self._known:
                continue
            self._known.add(cell.id)
            self._attempts_before[cell.id] = self._attempts(cell)
            if not self._is_settled(cell):
                self._pending.append(cell)
            if cell.id in self.invalid:
                self.progress.say(f"{_label(cell)} is not the plan's: {self.invalid[cell.id]}")
        self.progress.update(len(self.done), len(self._known))

    def _tuning_is_over(self) -> bool:
        settled = self.done | self.given_up.keys() | self.invalid.keys()
        plan = self.study.plan
        return all(cell.id in settled for cell in plan.cells if plan.arm(cell.arm).kind == TUNING)

    def _is_settled(self, cell: Cell) -> bool:
        """Whether there is nothing to do for a cell; notes why."""
        state = self.study.state(cell)
        if state == "done":
            self.done.add(cell.id)
        elif state == "invalid":
            self.invalid[cell.id] = self.study.contradiction(cell) or ""
        return state in ("done", "invalid")

    def _start_what_can_be(self) -> None:
        while self.runner.num_idle and self._pending:
            cell = self._pending.popleft()
            lock = self.study.lock_path(cell)
            if not claims.claim(lock):
                self._elsewhere.append(cell)
                continue
            if self._is_settled(cell):  # by another process, since it was last looked at
                claims.release(lock)
                self._settle(cell, "done by another process")
                continue
            self._running[cell.id] = cell
            config = self.study.plan.cell_config(cell)
            output = str(self.study.cells_path)
            self.runner.start(
                cell.id, replace(config, output=output, experiment=cell.id, resume="auto")
            )

    def _end(self, ended: Ended) -> None:
        """Record how a cell's run went, and let go of it."""
        cell = self._running.pop(ended.key)
        error = ended.error
        if not error and not self._is_settled(cell):
            error = "it ended without a result.json"
        if error:
            self.study.record_failure(cell, error, ended.traceback)
        else:
            self.study.forget_failure(cell)
        claims.release(self.study.lock_path(cell))
        if not error:
            self._settle(cell, self._accuracy(cell))
        elif self._attempts(cell) < max(MAX_ATTEMPTS, self._attempts_before[cell.id] + 1):
            self.progress.say(f"{_label(cell)} failed and is tried again: {error}")
            self._pending.append(cell)
        else:
            self.given_up[cell.id] = error
            self._settle(cell, f"failed: {error}")

    def _settle(self, cell: Cell, what: str) -> None:
        self.progress.update(len(self.done), len(self._known), f"{_label(cell)}: {what}")
        if self.study.plan.arm(cell.arm).kind == TUNING:
            self._enter_new_cells()

    def _accuracy(self, cell: Cell) -> str:
        if cell.id in self.invalid:
            return self.invalid[cell.id]
        final = self.study.result(cell).get("final") or {}
        top1, seconds = final.get("eval_top1"), self.study.result(cell).get("seconds")
        return f"{top1:.2f} % in {seconds:.1f} s" if top1 is not None else "done"

    def _keep_claims_young(self) -> None:
        if time.monotonic() - self._refreshed > claims.HEARTBEAT_S:
            self._refreshed = time.monotonic()
            for cell in self._running.values():
                claims.refresh(self.study.lock_path(cell))

    def _look_elsewhere(self) -> None:
        """See what has become of the cells that other processes were at."""
        if not self._elsewhere or time.monotonic() - self._looked_elsewhere < _POLL_S:
            return
        self._looked_elsewhere = time.monotonic()
        cells, self._elsewhere = self._elsewhere, []
        for cell in cells:
            if self._is_settled(cell):
                self._settle(cell, "done by another process")
            elif claims.is_held(self.study.lock_path(cell)):
                self._elsewhere.append(cell)
            elif self._attempts(cell) >= max(MAX_ATTEMPTS, self._attempts_before[cell.id] + 1):
                self.given_up[cell.id] = str(self.study.failure(cell).get("error", ""))
                self._settle(cell, "failed in another process")
            else:
                self._pending.append(cell)

    def _attempts(self, cell: Cell) -> int:
        return int(self.study.failure(cell).get("attempts", 0))


def _label(cell: Cell) -> str:
    return f"{cell.arm} seed {cell.seed}"
