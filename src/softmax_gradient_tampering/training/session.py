"""The epochs of a run: the one loop, and what happens at its pauses and its end."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from softmax_gradient_tampering.data.transfer import Prefetched
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.state import RunState, make_checkpoint
from softmax_gradient_tampering.training.console import lines as console
from softmax_gradient_tampering.training.console.batch_log import BatchLog
from softmax_gradient_tampering.training.console.progress import Progress
from softmax_gradient_tampering.training.measure.evaluation import BALANCED_ACCURACY, Evaluation
from softmax_gradient_tampering.training.measure.evaluator import Evaluator
from softmax_gradient_tampering.training.measure.predictions import predict
from softmax_gradient_tampering.training.processes.preemption import Interrupted, StopRequest
from softmax_gradient_tampering.training.recorder import Recorder
from softmax_gradient_tampering.training.records.run_files import COLUMNS, Row
from softmax_gradient_tampering.training.resume.run_folder import RunFolder
from softmax_gradient_tampering.training.setup.setup import Setup
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.supervision import Supervisor


class Session:
    """The epochs of a run in this process, from where its state is to their end.

    Args:
        setup: the objects of the run.
        state: where it starts or goes on.
        run_folder: the run folder.
        progress: prints on the first process.
        request: the signal that asks this process to stop.

    Attributes:
        final: the evaluation of the final model, with its calibration; None before.
    """

    def __init__(
        self,
        setup: Setup,
        state: RunState,
        run_folder: RunFolder,
        progress: Progress,
        request: StopRequest,
    ) -> None:
        self.setup = setup
        self.schedule = setup.schedule
        self.state = state
        self.folder = run_folder.path
        self.progress = progress
        self.final: Evaluation | None = None
        config, processes, trainer = setup.config, setup.processes, setup.trainer
        self.tally = Tally(processes.device)
        self.supervisor = Supervisor(
            processes,
            request,
            trainer.skips_nonfinite,
            self._describe_batch,
            run_folder,
            progress.say,
        )
        self.batch_log = BatchLog(config, processes, run_folder, progress)
        self.evaluator = Evaluator(
            setup.data.eval_loader,
            processes,
            trainer.precision,
            config.final_alpha,
            self._after_evaluated,
            setup.data.dataset.class_names,
            counts_classes=config.eval_metric == BALANCED_ACCURACY,
        )
        self.recorder: Recorder | None = None
        if run_folder.lock is not None:
            self.recorder = Recorder(run_folder, setup.circumstances, processes.device_name, state)

    def train(self, after_batch: Callable[[], None]) -> str:
        """Train to the last epoch's end ("finished"), or to --max-steps ("stopped").

        Raises:
            Interrupted: a process was asked to stop.
            NotFinite: a loss or a gradient is not finite.
            UserError: a file cannot be read or written.
        """
        loader, trainer, schedule = self.setup.data.train_loader, self.setup.trainer, self.schedule
        position = self.state.position
        while position.epoch < schedule.num_epochs:
            self._start_epoch()
            has_batches = position.batch < len(loader)
            batches = Prefetched(
                iter(()) if self._is_stopped else loader.epoch(position.epoch, position.batch),
                self.setup.processes.device,
            )
            for batch in batches:
                wants_grad_range = self.batch_log.wants_grad_range(position.batch)
                outcome = trainer.train_batch(
                    batch, position, loader.batch_sizes, wants_grad_range, batches.load
                )
                self.tally.add(outcome)
                samples = loader.plan.taken_by(position.batch + 1)
                position.count_batch(outcome.is_update, outcome.is_skipped, samples)
                self.supervisor.after_batch(outcome, position)
                self.batch_log.after_batch(outcome, position.epoch, self.tally, schedule.current)
                if self._is_stopped:
                    break
                if outcome.is_update and self._is_recovery_due:
                    self.save_recovery()
                after_batch()
            images_per_s = self.batch_log.images_per_s
            if self._is_stopped:
                self._stop()
                return "stopped"
            self.supervisor.settle()
            if has_batches:  # otherwise they were shared before the checkpoint was written
                self._share_buffers()
            self._end_epoch(images_per_s)
        self._finish()
        return "finished"

    @property
    def _is_stopped(self) -> bool:
        """Whether --max-steps is reached."""
        max_steps = self.setup.config.max_steps
        return max_steps is not None and self.state.position.step >= max_steps

    @property
    def _is_recovery_due(self) -> bool:
        """Whether, after an optimizer step, a recovery checkpoint is to be written."""
        interval, position = self.setup.config.recovery_interval, self.state.position
        is_within = position.batch < len(self.setup.data.train_loader)
        return bool(interval) and position.step % interval == 0 and is_within

    def _start_epoch(self) -> None:
        """Set what is constant in an epoch, and go on with the sums of a begun one."""
        position, loader = self.state.position, self.setup.data.train_loader
        loader.begin_after(position.taken)
        self.setup.trainer.model.train()
        self.tally = Tally(self.setup.processes.device)
        self.tally.restore(self.state.tallies, self.setup.processes)
        self.state.tallies = []
        self.schedule.start_epoch(position.epoch)
        self.setup.alpha_schedule.start_epoch(position.epoch)
        self.batch_log.start_epoch(position, len(loader))

    def _end_epoch(self, images_per_s: float) -> None:
        """Evaluate where it is due, and write the row and the checkpoints of the epoch."""
        config, state, position = self.setup.config, self.state, self.state.position
        metric = None
        is_last = position.epoch + 1 >= self.schedule.num_epochs
        if is_last or (position.epoch + 1) % config.evaluation_interval == 0:
            metric = self._evaluate(is_last, images_per_s)
        position.start_epoch(position.epoch + 1)
        state.tallies = []
        if metric is not None:
            state.rank(metric, config.checkpoint_hist, config.eval_metric == "loss")
        self.schedule.end_epoch(position.epoch - 1, metric)
        if self.recorder is not None:
            self.recorder.end_epoch(state, self._checkpoint(metric), self.setup.trainer.model)

    def _evaluate(self, is_last: bool, images_per_s: float) -> float:
        """Evaluate, append the row, and return the metric."""
        config, trainer, position = self.setup.config, self.setup.trainer, self.state.position
        average = None if trainer.average is None else trainer.average.module
        found = self.evaluator.evaluate_epoch(trainer.model, average, is_last, config.filter_norms)
        lr = self.schedule.current()
        is_float16 = trainer.precision.dtype is torch.float16
        self.supervisor.check_evaluation(found.model.loss, lr, position, is_float16)
        if is_last:
            self.final = found.model
        loss, accuracy = self.tally.means(self.setup.processes)
        row: Row = dict.fromkeys(COLUMNS)
        row |= {
            "epoch": position.epoch + 1,
            "train_loss": loss,
            "train_acc": accuracy,
            "lr": lr,
            "images_per_s": round(images_per_s, 1),
            "skipped_steps": position.skipped_steps,
            "bad_images": self.setup.data.dataset.num_bad,
        }
        self.state.rows.append(row | found.columns(has_logits=config.logit_stats))
        self.progress.epoch(position.epoch, console.epoch_fields(found), self.state.seconds)
        return found.metric(config.eval_metric)

    def _finish(self) -> None:
        """Measure and record the final model."""
        config, processes, trainer = self.setup.config, self.setup.processes, self.setup.trainer
        if self.final is None:  # resumed after its last epoch
            self.final = self.evaluator.evaluate(trainer.model, is_measured=True)
        arrays = None
        if config.save_predictions:
            loader = self.setup.data.eval_loader
            arrays = predict(
                trainer.model, loader, processes, trainer.precision, self.supervisor.meet
            )
        if self.recorder is not None:
            self.recorder.finish(self.state, self.final, arrays)
        self.progress.stop()
        if config.final_validate:
            self.progress.say("\n".join(console.validation_lines(self.final)))
        lines = console.summary_lines(config, self.state, self.final, self.folder)
        self.progress.say("\n".join(lines))

    @property
    def measurements(self) -> dict[str, dict[str, float]]:
        """nll, brier and ece of the final model, by prediction; empty before."""
        return self.final.measurements if self.final is not None else {}

    def _after_evaluated(self, number: int, num_batches: int) -> None:
        """After a batch of an evaluation."""
        self.supervisor.meet()
        self.progress.evaluated(number, num_batches)

    def _stop(self) -> None:
        """Write a checkpoint, and say how the run goes on."""
        self.save_recovery()
        self.progress.say(
            f"Stopped after {self.state.position.step} steps, as --max-steps says; go on with "
            f"--resume auto --experiment {self.folder.name}"
        )

    def save_recovery(self) -> None:
        """Write a checkpoint of this moment, between two optimizer steps."""
        self.supervisor.settle()
        self.state.tallies = self.setup.processes.gather(self.tally.state())
        if self.recorder is not None:
            self.recorder.save_recovery(self._checkpoint(), self.state.position)

    def save_interrupted(self, signal: Interrupted) -> None:
        """Write a recovery checkpoint, unless the epoch's end has just written one."""
        position = self.state.position
        kept = ""
        if signal.is_agreed or self._is_alone_between_steps:
            if position.batch:
                self.save_recovery()
        else:
            kept = "; a batch did not come, and nothing after the last checkpoint is kept"
        self.progress.stop()
        self.progress.say(
            f"Stopped by {signal} in epoch {position.epoch + 1}, after {position.step} steps{kept}"
            f"; go on with --resume auto --experiment {self.folder.name}"
        )

    def save_before_error(self) -> None:
        """Keep what was trained since the last checkpoint, where one process can do it."""
        if self.state.position.batch and self._is_alone_between_steps:
            with suppress(UserError):  # the cause of the error may prevent this too
                self.save_recovery()

    @property
    def _is_alone_between_steps(self) -> bool:
        """Whether a checkpoint may be written without an agreement of several processes."""
        is_update = self.state.position.batch % self.setup.trainer.accumulation == 0
        return (is_update or self.is_at_end_of_epoch) and self.setup.processes.number == 1

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether the epoch is trained, and not yet recorded."""
        return self.state.position.batch == len(self.setup.data.train_loader)

    def close(self) -> None:
        """End the progress and close the sinks."""
        self.progress.stop()
        if self.recorder is not None:
            self.recorder.close()

    def _share_buffers(self) -> None:
        """Give all processes the same running statistics."""
        processes, trainer = self.setup.processes, self.setup.trainer
        processes.share_buffers(trainer.model, reduce=self.setup.config.dist_bn == "reduce")
        if trainer.average is not None:
            # Each process averages its own statistics; rank 0's are the ones that are saved.
            processes.share_buffers(trainer.average.module, reduce=False)

    def _checkpoint(self, metric: float | None = None) -> dict[str, Any]:
        return make_checkpoint(
            self.state, self.setup.trainer, self.schedule, self.setup.circumstances, metric
        )

    def _describe_batch(self, epoch: int, number: int) -> dict[str, object]:
        """What a report of a batch says besides its loss."""
        return {
            "lr": self.schedule.current(),
            "loss_scale": self.setup.trainer.precision.scaler.get_scale(),
            "samples": self.setup.data.train_loader.names(epoch, number),
        }
