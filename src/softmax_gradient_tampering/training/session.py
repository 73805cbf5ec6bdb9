"""A training session: what happens in, between and after the epochs of a run."""

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from softmax_gradient_tampering.training import console, records
from softmax_gradient_tampering.training.arguments import to_mapping
from softmax_gradient_tampering.training.checkpoint import CheckpointFolder, load_checkpoint
from softmax_gradient_tampering.training.config import NOT_RECORDED
from softmax_gradient_tampering.training.evaluation import Evaluation, evaluate
from softmax_gradient_tampering.training.loop import Outcome, Tally, train_one_epoch
from softmax_gradient_tampering.training.progress import Progress
from softmax_gradient_tampering.training.run_folder import make_run_folder
from softmax_gradient_tampering.training.setup import Setup
from softmax_gradient_tampering.training.sinks import Sink, open_sinks
from softmax_gradient_tampering.training.state import RunState, compare_settings, restore

# Settings that change what is seen or kept of a run, and not the run.
_NOT_HASHED = (
    *("workers", "max_steps", "recovery_interval", "checkpoint_hist", "final_validate"),
    *("log_interval", "per_line", "log", "log_wandb", "print_model", "save_images"),
)


def evaluate_model(setup: Setup, model: nn.Module, is_measured: bool = False) -> Evaluation:
    """Evaluate a model on a run's validation set; measured, the calibration too."""
    scales = {"softmax(z)": 1.0, "softmax(alpha z)": setup.alpha} if is_measured else {}
    precision = setup.trainer.precision
    return evaluate(model, setup.eval_loader, setup.processes, precision, scales.items())


class Session:
    """The epochs of a run in this process, and what process 0 writes of them.

    Attributes:
        state: where the run is and what it has recorded.
    """

    def __init__(self, setup: Setup, folder: Path, progress: Progress) -> None:
        self.setup = setup
        self.config = setup.config
        self.folder = folder
        self.progress = progress
        self.state = RunState()
        self.state.position.epoch = self.config.start_epoch or 0
        self._args = to_mapping(self.config, leave_out=NOT_RECORDED)
        self._sinks: list[Sink] = []
        self._measurements: dict[str, dict[str, float]] | None = None
        self._tally = Tally(setup.processes.device)
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
        self.progress.say(
            f"Going on from {path}: epoch {position.epoch + 1}, batch {position.batch}"
        )
        for line in compare_settings(checkpoint, self.setup, position):
            self.progress.say(line)

    def begin(self) -> None:
        """Write the files that a run has from its start."""
        if self.setup.processes.is_first:
            make_run_folder(self.folder)
            self._sinks = open_sinks(self.config.sinks, self.folder, self._args)
            records.write_args(self.folder, self._args)
            records.write_environment(self.folder, self.setup.processes.device)
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
            num_since += len(outcome.batch.labels) * setup.processes.number
            self.progress.advance()
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
        position.epoch, position.batch = position.epoch + 1, 0
        state.tallies = []
        state.seconds = time.perf_counter() - self._started
        setup.processes.share_buffers(setup.model, reduce=self.config.dist_bn == "reduce")
        if setup.ema is not None:
            # Each process averages its own statistics; rank 0's are the ones that are saved.
            setup.processes.share_buffers(setup.ema.module, reduce=False)
        metric = None
        checkpoints = self._checkpoints()
        if self.is_over or position.epoch % self.config.evaluation_interval == 0:
            metric = self._evaluate()
            checkpoints.rank(position.epoch, metric)
            state.best = checkpoints.best
        setup.schedule.end_epoch(position.epoch - 1, metric)
        if setup.processes.is_first:
            records.write_summary(self.folder, state.rows)
            checkpoints.save_epoch(state.checkpoint(setup, metric), position.epoch)
            for sink in self._sinks if metric is not None else ():
                sink.write(state.rows[-1])

    def save_recovery(self) -> None:
        """Write a checkpoint of this moment, between two optimizer steps."""
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

    def finish(self) -> dict[str, dict[str, float]]:
        """Write result.json, whose presence means that the run is finished."""
        state = self.state
        measurements = self._measurements
        if measurements is None:  # resumed after its last epoch
            evaluation = evaluate_model(self.setup, self.setup.model, is_measured=True)
            measurements = evaluation.measurements
        best_epoch, best_metric = state.best[0] if state.best else (None, None)
        if self.setup.processes.is_first:
            hashed = {name: v for name, v in self._args.items() if name not in _NOT_HASHED}
            result = {
                "status": "finished",
                "epochs": state.position.epoch,
                "steps": state.position.step,
                "best_epoch": best_epoch,
                "best_metric": best_metric,
                "final": state.rows[-1] if state.rows else None,
                "measurements": measurements,
                "config_hash": records.config_hash(hashed),
                "seconds": round(time.perf_counter() - self._started, 3),
                "resumes": state.resumes,
            }
            records.write_result(self.folder, result)
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

    def _evaluate(self) -> float:
        """Evaluate the model and its average, append the row, and return the metric."""
        setup, state, config = self.setup, self.state, self.config
        evaluation = evaluate_model(setup, setup.model, is_measured=self.is_over)
        if self.is_over:
            self._measurements = evaluation.measurements
        averaged = evaluate_model(setup, self._averaged()) if setup.ema is not None else None
        loss, correct, count = self._tally.total(setup.processes)
        train_loss = loss / max(count, 1)
        row: records.Row = dict.fromkeys(records.COLUMNS)
        row |= {
            "epoch": state.position.epoch,
            "train_loss": train_loss,
            "train_acc": 100 * correct / max(count, 1),
            "eval_loss": evaluation.loss,
            "eval_top1": evaluation.top1,
            "eval_top5": evaluation.top5,
            "lr": setup.schedule.current(),
            "images_per_s": round(self._images_per_s, 1),
            "skipped_steps": state.position.skipped_steps,
        }
        if config.logit_stats:
            names = ("logit_norm", "logit_mean", "logit_max", "logit_var")
            row |= dict(zip(names, evaluation.logits, strict=True))
        if not math.isfinite(train_loss):
            self.progress.say(
                f"Warning: the training loss of epoch {state.position.epoch} is "
                f"{train_loss}; lower --lr, or look at the data"
            )
        if averaged is not None:
            row |= {"eval_loss_ema": averaged.loss, "eval_top1_ema": averaged.top1}
        state.rows.append(row)
        self.progress.epoch(state.position.epoch - 1, evaluation.num_correct, evaluation.top1)
        return (averaged or evaluation).metric(config.eval_metric)

    def _averaged(self) -> nn.Module:
        """The averaged model, where the images are."""
        assert self.setup.ema is not None
        model: nn.Module = self.setup.ema.module
        if self.config.model_ema_force_cpu and self.setup.processes.device.type != "cpu":
            model = copy.deepcopy(model).to(self.setup.processes.device)
        return model

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
