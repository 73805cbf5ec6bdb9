"""A training session: what happens in, between and after the epochs of a run."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.folder import CheckpointFolder, load_checkpoint
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED
from softmax_gradient_tampering.training.console import lines as console
from softmax_gradient_tampering.training.console.progress import Progress
from softmax_gradient_tampering.training.epoch_evaluation import evaluate_epoch, evaluate_model
from softmax_gradient_tampering.training.measure.filter_norms import FilterHistory, filter_norms
from softmax_gradient_tampering.training.measure.predictions import predict, write_predictions
from softmax_gradient_tampering.training.processes.preemption import Interrupted, StopRequest
from softmax_gradient_tampering.training.records import run_files as records
from softmax_gradient_tampering.training.records.sinks import Sink, open_sinks
from softmax_gradient_tampering.training.setup.setup import Setup
from softmax_gradient_tampering.training.state import RunState, compare_settings, restore
from softmax_gradient_tampering.training.step.loop import Outcome, Tally, train_one_epoch
from softmax_gradient_tampering.training.supervision import Supervisor


def save_predictions(setup: Setup, folder: Path) -> None:
    """Write the logits of the final model; all processes take part, the first one writes."""
    found = predict(setup.model, setup.eval_loader, setup.processes, setup.trainer.precision)
    if setup.processes.is_first:
        write_predictions(folder, *found)


class Session:
    """The epochs of a run in this process, and what process 0 writes of them.

    Attributes:
        state: where the run is and what it has recorded.
    """

    def __init__(
        self, setup: Setup, folder: Path, progress: Progress, request: StopRequest
    ) -> None:
        self.setup = setup
        self.config = setup.config
        self.folder = folder
        self.progress = progress
        self.state = RunState()
        self.state.position.epoch = self.config.start_epoch or 0
        self._args = to_mapping(self.config, leave_out=NOT_RECORDED)
        self._sinks: list[Sink] = []
        self._filter_history: FilterHistory | None = None
        self._measurements: dict[str, dict[str, float]] | None = None
        self._tally = Tally(setup.processes.device)
        self._supervisor = Supervisor(setup, folder, request, progress.say)
        self._is_at_epochs_end = False  # as a checkpoint left it: batches done, not evaluated
        self._is_between_steps = False
        self._images_per_s = 0.0
        self._started = time.perf_counter()

    @property
    def is_over(self) -> bool:
        return self.state.position.epoch >= self.setup.schedule.num_epochs

    @property
    def is_stopped(self) -> bool:
        """Whether --max-steps is reached."""
        return self.config.max_steps is not None and (
            self.state.position.step >= self.config.max_steps
        )

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint."""
        checkpoint = load_checkpoint(path)
        self.state = restore(checkpoint, self.setup)
        if path.resolve().parent != self.folder.resolve():
            self.state.best = []  # their checkpoints are not in this folder
        if self.config.start_epoch is not None:
            self.state.start_over_at(self.config.start_epoch)
        self._started -= self.state.seconds
        position = self.state.position
        self._is_at_epochs_end = position.batch == len(self.setup.train_loader)
        self.progress.say(
            f"Going on from {path}: epoch {position.epoch + 1}, batch {position.batch}"
        )
        for line in compare_settings(checkpoint, self.setup, position):
            self.progress.say(line)

    def begin(self) -> None:
        """Write the files that a run has from its start."""
        if self.setup.processes.is_first:
            (self.folder / "result.json").unlink(missing_ok=True)
            if self.config.filter_norms:
                self._filter_history = FilterHistory(self.folder, self.state.position.epoch)
            self._sinks = open_sinks(self.config.sinks, self.folder, self._args)
            records.write_args(self.folder, self._args)
            device_name = self.setup.processes.device_name
            num_threads = torch.get_num_threads()
            records.write_environment(self.folder, device_name, num_threads, self.setup.loss_kernel)
            records.write_summary(self.folder, self.state.rows)
        for line in console.head_lines(self.setup):
            self.progress.say(line)
        if self.config.print_model:
            self.progress.say(str(self.setup.model))

    def train_epoch(self) -> Iterator[Outcome]:
        """Train to the end of the epoch or of --max-steps, yielding after each batch."""
        setup, position = self.setup, self.state.position
        num_batches = len(setup.train_loader)
        self._begin_tally()
        setup.schedule.start_epoch(position.epoch)
        setup.alpha_schedule.start_epoch(position.epoch)
        self.progress.start(position.epoch, position.batch, num_batches)
        started = since = time.perf_counter()
        num_images = num_since = 0
        if self.is_stopped:
            return
        for outcome in train_one_epoch(
            setup.trainer,
            setup.train_loader,
            position.epoch,
            self._tally,
            position.batch,
            lambda number: self.config.grad_stats and self._is_logged(number),
        ):
            position.batch = outcome.number + 1
            position.step += outcome.is_update
            position.skipped_steps += outcome.is_skipped
            self._is_between_steps = outcome.is_update
            num_since += len(outcome.batch.labels) * setup.processes.number
            self.progress.advance()
            self._supervisor.after_batch(outcome, position)
            if self._is_logged(outcome.number):
                self._log(outcome, num_since / (time.perf_counter() - since))
                num_images += num_since
                since, num_since = time.perf_counter(), 0
            if outcome.is_update:
                if self.is_stopped:
                    break
                interval = self.config.recovery_interval
                if interval and position.step % interval == 0 and position.batch < num_batches:
                    self.save_recovery()
            yield outcome
        self._images_per_s = num_images / (time.perf_counter() - started)

    def end_epoch(self) -> None:
        """Evaluate where it is due, and write the row and the checkpoints of the epoch."""
        setup, state = self.setup, self.state
        position = state.position
        self._supervisor.settle()
        self._share_buffers()
        metric = None
        checkpoints = self._checkpoints()
        is_last = position.epoch + 1 >= setup.schedule.num_epochs
        if is_last or (position.epoch + 1) % self.config.evaluation_interval == 0:
            metric = self._evaluate(is_last)
            checkpoints.rank(position.epoch + 1, metric)
            state.best = checkpoints.best
        position.epoch, position.batch = position.epoch + 1, 0
        state.tallies = []
        state.seconds = time.perf_counter() - self._started
        setup.schedule.end_epoch(position.epoch - 1, metric)
        if setup.processes.is_first:
            if self._filter_history is not None:
                self._filter_history.add(position.epoch, filter_norms(setup.model))
            records.write_summary(self.folder, state.rows)
            checkpoints.save_epoch(state.checkpoint(setup, metric), position.epoch)
            for sink in self._sinks if metric is not None else ():
                sink.write(state.rows[-1])

    def save_recovery(self) -> None:
        """Write a checkpoint of this moment, between two optimizer steps."""
        self._supervisor.settle()
        self.state.tallies = self.setup.processes.gather(self._tally.state())
        self.state.seconds = time.perf_counter() - self._started
        if self.setup.processes.is_first:
            checkpoint = self.state.checkpoint(self.setup, metric=None)
            self._checkpoints().save_recovery(checkpoint, self.state.position)
        if self.is_stopped:
            self.progress.say(
                f"Stopped after {self.state.position.step} steps, as --max-steps says; go on with "
                f"--resume auto --experiment {self.folder.name}"
            )

    def save_before_error(self) -> None:
        """Keep what was trained since the last checkpoint, if this process alone can tell.

        Between two optimizer steps, in a run of one process: others would not know of it.
        """
        position = self.state.position
        if self._is_between_steps and position.batch and self.setup.processes.number == 1:
            with suppress(UserError):  # what made the error may stand in the way here too
                self.save_recovery()

    def save_interrupted(self, signal: Interrupted) -> None:
        """Write a recovery checkpoint, unless the epoch's end has just written one."""
        position = self.state.position
        if position.batch:
            self.save_recovery()
        self.progress.stop()
        self.progress.say(
            f"Stopped by {signal} in epoch {position.epoch + 1}, after {position.step} steps; go "
            f"on with --resume auto --experiment {self.folder.name}"
        )

    def finish(self) -> dict[str, dict[str, float]]:
        """Write result.json, whose presence means that the run is finished."""
        state = self.state
        measurements = self._measurements
        if measurements is None:  # resumed after its last epoch
            evaluation = evaluate_model(
                self.setup, self.setup.model, is_measured=True, after_batch=self._supervisor.meet
            )
            measurements = evaluation.measurements
        if self.config.save_predictions:
            save_predictions(self.setup, self.folder)
        best_epoch, best_metric = state.best[0] if state.best else (None, None)
        if self.setup.processes.is_first:
            result = {
                "status": "finished",
                "epochs": state.position.epoch,
                "steps": state.position.step,
                "best_epoch": best_epoch,
                "best_metric": best_metric,
                "final": state.rows[-1] if state.rows else None,
                "measurements": measurements,
                "config_hash": records.run_hash(self._args),
                "summary_hash": records.rows_hash(state.rows),
                "seconds": round(time.perf_counter() - self._started, 3),
                "resumes": state.resumes,
            }
            records.write_result(self.folder, result)
            self._checkpoints().remove_spares()
        self.progress.stop()
        if self.config.final_validate:
            self.progress.say("\n".join(console.measurement_lines(measurements)))
        if best_metric is not None:
            self.progress.say(f"*** Best metric: {best_metric} (epoch {best_epoch})")
        self.progress.say(f"Run folder: {self.folder}")
        return measurements

    def close(self) -> None:
        self.progress.stop()
        for sink in self._sinks:
            sink.close()

    def _share_buffers(self) -> None:
        """Give all processes the same running statistics, once an epoch."""
        setup = self.setup
        if self._is_at_epochs_end:  # they were shared before the checkpoint was written
            self._is_at_epochs_end = False
            return
        setup.processes.share_buffers(setup.model, reduce=self.config.dist_bn == "reduce")
        if setup.ema is not None:
            # Each process averages its own statistics; rank 0's are the ones that are saved.
            setup.processes.share_buffers(setup.ema.module, reduce=False)

    def _evaluate(self, is_last: bool) -> float:
        """Evaluate, append the row, and return the metric."""
        setup, state = self.setup, self.state
        evaluation = evaluate_epoch(setup, is_last, self._supervisor.meet)
        if is_last:
            self._measurements = evaluation.model.measurements
        loss, correct, count = self._tally.total(setup.processes)
        row: records.Row = dict.fromkeys(records.COLUMNS)
        row |= {
            "epoch": state.position.epoch + 1,
            "train_loss": loss / max(count, 1),
            "train_acc": 100 * correct / max(count, 1),
            "lr": setup.schedule.current(),
            "images_per_s": round(self._images_per_s, 1),
            "skipped_steps": state.position.skipped_steps,
            "bad_images": setup.dataset.num_bad,
        }
        self._supervisor.check_evaluation(evaluation.model.loss, state.position)
        row |= evaluation.columns(has_logits=self.config.logit_stats)
        state.rows.append(row)
        self.progress.epoch(
            state.position.epoch, evaluation.model.num_correct, evaluation.model.top1
        )
        return evaluation.metric(self.config.eval_metric)

    def _begin_tally(self) -> None:
        """An empty tally, or that of the epoch that a recovery checkpoint was made in."""
        processes, saved = self.setup.processes, self.state.tallies
        self._tally = Tally(processes.device)
        if len(saved) == processes.number:
            self._tally.restore(saved[processes.rank])
        elif saved and processes.is_first:  # another number of processes made it
            self._tally.restore([sum(column) for column in zip(*saved, strict=True)])
        self.state.tallies = []

    def _is_logged(self, number: int) -> bool:
        is_last = number == len(self.setup.train_loader) - 1
        return is_last or (number > 0 and number % self.config.log_interval == 0)

    def _log(self, outcome: Outcome, images_per_s: float) -> None:
        loss, correct, count = self._tally.total(self.setup.processes)
        count = max(count, 1)  # every step so far may have been skipped
        fields = console.batch_fields(
            self.setup, outcome, loss / count, 100 * correct / count, images_per_s
        )
        num_batches = len(self.setup.train_loader)
        self.progress.batch(self.state.position.epoch, outcome.number, num_batches, fields)
        if self.config.save_images and self.setup.processes.is_first:
            name = f"train-{self.state.position.epoch + 1}-{outcome.number}.jpg"
            console.save_images(self.folder / name, outcome)

    def _checkpoints(self) -> CheckpointFolder:
        lower_is_better = self.config.eval_metric == "loss"
        best = list(self.state.best)
        return CheckpointFolder(self.folder, self.config.checkpoint_hist, lower_is_better, best)
