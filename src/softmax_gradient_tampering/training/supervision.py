"""What ends a run between two steps: a signal, or numbers that are not finite."""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.processes.preemption import Interrupted, StopRequest
from softmax_gradient_tampering.training.resume.run_folder import RunFolder
from softmax_gradient_tampering.training.step.finiteness import LateReader
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.trainer import Outcome

# Every skipped step halves a loss scale that is too large: 16 of them bring 2^16 down to 1.
MAX_SKIPS_RUNNING = 50
_NUM_NAMED = 3


class NotFinite(UserError):  # noqa: N818 - named for what was found
    """A loss or a gradient is not finite: nothing after the last checkpoint is kept."""


class _Moment(NamedTuple):
    epoch: int
    batch: int
    step: int
    loss: Tensor


class Supervisor:
    """Agrees with the other processes, after every optimizer step, on whether to go on.

    They meet on the CPU: no step waits for a GPU.

    Args:
        processes: of the run.
        request: the signal that asks this process to stop.
        skips_nonfinite: whether the trainer leaves out steps that are not finite.
        describe: gives, of a batch by epoch and number, what a report says of it besides its
            loss: the learning rate, the loss scale, the names of its samples.
        run_folder: where process 0 writes nonfinite.json when a number is not finite.
        say: prints a line on the first process.
    """

    def __init__(
        self,
        processes: Processes,
        request: StopRequest,
        skips_nonfinite: bool,
        describe: Callable[[int, int], dict[str, object]],
        run_folder: RunFolder,
        say: Callable[[str], None],
    ) -> None:
        self._processes = processes
        self._request = request
        self._skips_nonfinite = skips_nonfinite
        self._describe = describe
        self._run_folder = run_folder
        self._say = say
        self._reader = LateReader(processes.device)
        self._skips_running = 0

    def after_batch(self, outcome: Outcome, position: Position) -> None:
        """Agree with the other processes on whether to go on after a batch.

        Raises:
            Interrupted: a process was asked to stop.
            NotFinite: a loss or a gradient is not finite, or steps are skipped without end.
        """
        moment = _Moment(position.epoch, outcome.number, position.step, outcome.loss)
        if not self._skips_nonfinite:
            self._reader.push(moment, outcome.is_finite)
        if not outcome.is_update:
            return
        self._skips_running = self._skips_running + 1 if outcome.is_skipped else 0
        if outcome.is_skipped and self._skips_nonfinite:
            self._tell_of_skip(moment, outcome)
        found = self._reader.first_false()
        if self._skips_running >= MAX_SKIPS_RUNNING:
            found = moment
        self._meet(found)

    def _tell_of_skip(self, moment: _Moment, outcome: Outcome) -> None:
        """Say which step is left out, unless float16's loss scale skips it by design."""
        mine = None if bool(outcome.is_finite) else self._report(moment)
        reports = self._processes.gather(mine)
        report = next((report for report in reports if report is not None), None)
        if report is not None:
            self._say(f"{_place(report)}: {_cause(report)} ({_details(report)}); it is left out")

    def settle(self) -> None:
        """Read all that was not read yet, before a checkpoint keeps the result of it."""
        self._meet(self._reader.first_false(is_last=True), heeds_signals=False)

    def check_evaluation(
        self, loss: float, lr: float, position: Position, is_float16: bool = False
    ) -> None:
        """Check that a model that was just evaluated may be kept; all processes have its loss.

        Args:
            loss: on the validation set.
            lr: of the epoch.
            position: at its end.
            is_float16: whether the model computes in float16, whose numbers end at 65,504: with the
                running statistics of a few steps batch normalisation can exceed that.

        Raises:
            NotFinite: the loss is not finite, and the run is to stop then.
        """
        if math.isfinite(loss) or self._skips_nonfinite:
            return
        cause, fix = "the training has diverged", "a lower --lr"
        if is_float16:
            cause, fix = f"float16 has overflowed, or {cause}", f"{fix} or --amp-dtype bfloat16"
        raise NotFinite(
            f"epoch {position.epoch + 1}, step {position.step}: the loss on the validation set is "
            f"{loss} (lr {lr:g}): {cause}. No checkpoint holds this epoch: start anew with {fix}, "
            "or go on regardless with --on-nonfinite skip"
        )

    def meet(self) -> None:
        """Agree on whether a signal came; called equally often by all processes."""
        self._meet(None)

    def _meet(self, found: _Moment | None, heeds_signals: bool = True) -> None:
        processes = self._processes
        number, is_bad = processes.most([self._request.signal, int(found is not None)])
        if is_bad:
            reports = processes.gather(None if found is None else self._report(found))
            report = next(report for report in reports if report is not None)
            raise NotFinite(_sentence(report, self._write(report)))
        if number and heeds_signals:
            raise Interrupted(number)

    def _write(self, report: dict[str, object]) -> str:
        """Write the report on process 0; returns where all of it is, or why it is not."""
        path = self._run_folder.path / "nonfinite.json"
        try:
            if self._processes.is_first:
                self._run_folder.check()
                write_text(path, json.dumps(report, indent=2) + "\n")
        except UserError as error:  # what it is about matters more
            return f"not written: {error}"
        return f"all in {path}"

    def _report(self, moment: _Moment) -> dict[str, object]:
        return {
            "epoch": moment.epoch + 1,
            "batch": moment.batch,
            "step": moment.step,
            "loss": str(moment.loss.item()),  # JSON has no nan
            "skipped_steps_running": self._skips_running,
            "process": self._processes.rank,
            **self._describe(moment.epoch, moment.batch),
        }


def _sentence(report: dict[str, object], where: str) -> str:
    what = _cause(report)
    if report["skipped_steps_running"]:
        what = (
            f"{report['skipped_steps_running']} steps running were skipped because their "
            "gradients are not finite"
        )
    return (
        f"{_place(report)}: {what} ({_details(report)}; {where}). No checkpoint holds any "
        "of it: start anew with a lower --lr, or go on from the last one with "
        "--on-nonfinite skip"
    )


def _place(report: dict[str, object]) -> str:
    return f"epoch {report['epoch']}, batch {report['batch']}, step {report['step']}"


def _cause(report: dict[str, object]) -> str:
    if report["loss"] in ("nan", "inf", "-inf"):
        return f"the loss is {report['loss']}"
    return f"the loss is {report['loss']} and its gradient is not finite"


def _details(report: dict[str, object]) -> str:
    names = report["samples"]
    assert isinstance(names, list)
    samples = ", ".join(names[:_NUM_NAMED])
    samples += f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"lr {report['lr']:g}, loss scale {report['loss_scale']:g}; samples {samples}"
