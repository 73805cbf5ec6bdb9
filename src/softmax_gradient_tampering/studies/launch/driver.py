"""Running a study: claim a cell, train it, record how it went, until none is left.

Any number of processes, on any machines that see the folder, can do this at the same time.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.analysis.measurements import judged_value
from softmax_gradient_tampering.studies.launch.cost import RunCost, describe_cost
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.runner import POLL_S, Runner
from softmax_gradient_tampering.studies.launch.selection import select_settings
from softmax_gradient_tampering.studies.plan.plan import ACCURACY, TUNING, Cell, State
from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.cell_record import CellRecord
from softmax_gradient_tampering.studies.results.run_files import RunFiles, as_number
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder

MAX_ATTEMPTS = 2  # a failed cell is retried once; one that diverged would diverge again


@dataclass
class Driver:
    """One process's work on a study.

    Attributes:
        study: worked on.
        runner: trains.
        progress: shows it.
        keeps_checkpoints: whether a finished run keeps all its checkpoints, not the last alone.
        done: ids of the cells whose runs are finished, or diverged, which is a result too.
        given_up: ids of the cells that failed for good, and why.
        invalid: ids of the cells whose files are not the plan's, and how.
        selection_error: why the tuned baseline has no settings; empty where it has.
    """

    study: StudyFolder
    runner: Runner
    progress: StudyProgress
    keeps_checkpoints: bool = False
    done: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    selection_error: str = ""
    _pending: deque[Cell] = field(default_factory=deque)
    _elsewhere: list[Cell] = field(default_factory=list)
    _running: dict[str, Cell] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _attempts_before: dict[str, int] = field(default_factory=dict)
    _judged: dict[str, dict[int, float]] = field(default_factory=dict)
    _spent: dict[str, list[float]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _refreshed: float = 0.0
    _looked_elsewhere: float = 0.0

    def look(self) -> None:
        """Take up the plan's cells that are not yet known."""
        self._enter_new_cells()

    def describe_rest(self, costs: Mapping[str, RunCost], num_jobs: int) -> str:
        """How many runs there are to do, and about what they take; empty where there are none.

        Args:
            costs: of a run, by the arm's name; those of finished runs are added.
            num_jobs: runs at a time.
        """
        if not self._pending:
            return ""
        found = {arm: _mean_cost(spent) for arm, spent in self._spent.items()}
        return describe_cost(self._pending, {**costs, **found}, num_jobs, self._num_waiting)

    @property
    def _num_waiting(self) -> int:
        """Cells that will be known once the tuning runs are done."""
        waiting = [arm for arm in self.study.plan.arms if arm.is_waiting]
        return 0 if self.selection_error else len(waiting) * len(self.study.plan.seeds)

    def _show(self, news: str = "") -> None:
        """Show how many of the runs are done, and what has happened last."""
        self.progress.update(len(self.done), len(self._known) + self._num_waiting, news)

    def run(self) -> None:
        """Work until every cell is done, failed for good, or invalid."""
        self.look()
        try:
            while self._pending or self._running or self._elsewhere:
                self._start_what_can_be()
                for ended in self.runner.wait(POLL_S):
                    self._end(ended)
                self._keep_claims_young()
                self._look_elsewhere()
        except BaseException:
            self.runner.stop()  # before its claims are let go of
            raise
        finally:
            for cell in self._running.values():
                self._let_go(self.study.read(cell))

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
            self._attempts_before[cell.id] = self.study.attempts(cell)
            record = self._look_at(cell)
            if not _is_settled(record):
                self._pending.append(cell)
            elif record.state is State.FINISHED:
                self._finish_what_was_killed(record)
            elif record.state is State.INVALID:
                self.progress.say(f"{_label(cell)} is not the plan's: {record.reason}")
        self._show()

    def _finish_what_was_killed(self, record: CellRecord) -> None:
        """Let go of a finished cell whose process was killed before it had done so."""
        lock = self.study.lock_path(record.cell)
        if lock.exists() and claims.claim(lock):
            self._let_go(record)

    def _let_go(self, record: CellRecord) -> None:
        """Release the claim on a cell; a finished one has the checkpoints alone that it keeps."""
        if record.state is State.FINISHED and not self.keeps_checkpoints:
            self.study.prune_checkpoints(record.cell)
        claims.release(self.study.lock_path(record.cell))

    def _tuning_is_over(self) -> bool:
        settled = self.done | self.given_up.keys() | self.invalid.keys()
        plan = self.study.plan
        return all(cell.id in settled for cell in plan.cells if plan.arm(cell.arm).kind == TUNING)

    def _look_at(self, cell: Cell) -> CellRecord:
        """What has become of a cell; notes one for which there is nothing left to do."""
        record = self.study.read(cell)
        if record.state in (State.FINISHED, State.DIVERGED):
            self.done.add(cell.id)
            if record.run is not None:
                self._note(record.run, cell)
        elif record.state is State.INVALID:
            self.invalid[cell.id] = record.reason
        return record

    def _note(self, run: RunFiles, cell: Cell) -> None:
        """Keep what a finished run came to, for the means and for what others will cost."""
        self._judged.setdefault(cell.arm, {})[cell.seed] = self._value(run)
        seconds = as_number(run.result.get("seconds"))
        if math.isfinite(seconds):
            self._spent.setdefault(cell.arm, []).append(seconds)

    def _value(self, run: RunFiles) -> float:
        """What the study is judged by, of a finished run."""
        top1 = run.summary.final("eval_top1")
        return judged_value(self.study.plan.metric, top1, run.classes)

    def _outcome(self, record: CellRecord) -> str:
        """What a run came to, in a few words."""
        if record.run is None:
            return f"{record.state}: {record.reason}"
        seconds = as_number(record.run.result.get("seconds"))
        metric = self.study.plan.metric
        what = "" if metric == ACCURACY else f"{metric} "
        return f"{what}{self._value(record.run):.2f} % in {seconds:.1f} s"

    def _means(self, cell: Cell) -> str:
        """The mean of what is judged of a cell's arm so far, and that of the baseline."""
        plan = self.study.plan
        names = dict.fromkeys([cell.arm, *(a.name for a in plan.arms if a.kind == "baseline")])
        found = []
        for name in names:
            values = [v for v in self._judged.get(name, {}).values() if math.isfinite(v)]
            if values and plan.arm(cell.arm).kind != TUNING:
                found.append(f"{name} {math.fsum(values) / len(values):.2f} of {len(values)}")
        return f"; means: {', '.join(found)}" if found else ""

    def _start_what_can_be(self) -> None:
        while self.runner.num_idle and self._pending:
            cell = self._pending.popleft()
            lock = self.study.lock_path(cell)
            if not claims.claim(lock):
                self._elsewhere.append(cell)
                continue
            if _is_settled(self._look_at(cell)):  # by another process, since the last look
                claims.release(lock)
                self._report(cell, "done by another process")
                continue
            self._running[cell.id] = cell
            config = self.study.plan.cell_config(cell)
            output = str(self.study.cells_path)
            self.runner.start(
                cell.id, replace(config, output=output, experiment=cell.id, resume="auto")
            )

    def _end(self, ended: Ended) -> None:
        """Record how a cell's run went, and release the claim on it."""
        cell = self._running.pop(ended.key)
        error = ended.error
        if error:
            self.study.record_failure(cell, error, ended.traceback)
        record = self._look_at(cell)
        if record.state is State.FINISHED:
            self.study.forget_failure(cell)
        elif not error and not _is_settled(record):
            error = "it ended without a result.json"
            self.study.record_failure(cell, error)
        self._let_go(record)
        if _is_settled(record):
            self._report(cell, self._outcome(record) + self._means(cell))
        elif self._may_be_tried_again(cell):
            reason = "as one before" if error in self._said else error
            self._said.add(error)
            self.progress.say(f"{_label(cell)} failed and is tried again: {reason}")
            self._pending.append(cell)
        else:
            self.given_up[cell.id] = error
            self._report(cell, "failed again")

    def _report(self, cell: Cell, outcome: str) -> None:
        """Show what has become of a cell; the last tuning run makes further cells known."""
        self._show(f"{_label(cell)}: {outcome}")
        if self.study.plan.arm(cell.arm).kind == TUNING:
            self._enter_new_cells()

    def _keep_claims_young(self) -> None:
        if time.monotonic() - self._refreshed > claims.HEARTBEAT_S:
            self._refreshed = time.monotonic()
            for cell in self._running.values():
                claims.refresh(self.study.lock_path(cell))

    def _look_elsewhere(self) -> None:
        """See what has become of the cells that other processes work on."""
        if not self._elsewhere or time.monotonic() - self._looked_elsewhere < POLL_S:
            return
        self._looked_elsewhere = time.monotonic()
        cells, self._elsewhere = self._elsewhere, []
        for cell in cells:
            record = self._look_at(cell)
            if _is_settled(record):
                self._report(cell, "done by another process")
            elif record.state is State.RUNNING:
                self._elsewhere.append(cell)
            elif self._may_be_tried_again(cell):
                self._pending.append(cell)
            else:
                self.given_up[cell.id] = record.reason
                self._report(cell, "failed in another process")

    def _may_be_tried_again(self, cell: Cell) -> bool:
        """Whether a cell is to be run: twice in all, and once more in every later command."""
        return self.study.attempts(cell) < max(MAX_ATTEMPTS, self._attempts_before[cell.id] + 1)

    @property
    def has_failures(self) -> bool:
        """Whether a cell is neither finished nor diverged, or a selection could not be made."""
        return bool(self.given_up or self.invalid or self.selection_error)

    def raise_for_failures(self) -> None:
        """Say in one line that not all runs are done.

        Raises:
            UserError: a run failed for good, has edited files, or a selection could not be made.
        """
        labels = {cell.id: _label(cell) for cell in self.study.plan.cells}
        problems = [f"{labels[i]} failed: {why}" for i, why in self.given_up.items()]
        problems += [
            f"{labels[i]} is not the plan's: {why}; remove {self.study.cells_path / i} to run it "
            "again"
            for i, why in self.invalid.items()
        ]
        if self.selection_error:
            problems.append(self.selection_error)
        if problems:
            more = f"; {len(problems) - 1} more, see sgt study status" if len(problems) > 1 else ""
            raise UserError(f"{problems[0]}{more}; {len(self.done)} runs are done and kept")


def _is_settled(record: CellRecord) -> bool:
    """Whether there is nothing to do for a cell."""
    return record.state in (State.FINISHED, State.DIVERGED, State.INVALID)


def _mean_cost(seconds: list[float]) -> RunCost:
    return RunCost(math.fsum(seconds) / len(seconds))


def _label(cell: Cell) -> str:
    return f"{cell.arm} seed {cell.seed}"
