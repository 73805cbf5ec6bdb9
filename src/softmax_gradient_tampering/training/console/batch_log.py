"""The progress of the batches, and a line of figures every --log-interval of them."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from softmax_gradient_tampering.errors import as_user_error
from softmax_gradient_tampering.loss import logit_statistics
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.console.progress import Progress
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.resume.run_folder import RunFolder
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.step.trainer import Outcome


class BatchLog:
    """Follows the batches of an epoch, and their speed.

    Args:
        config: log_interval, logit_stats, grad_stats, save_images.
        processes: of the run; all of them follow.
        run_folder: for --save-images.
        progress: prints on the first process.
    """

    def __init__(
        self,
        config: Config,
        processes: Processes,
        run_folder: RunFolder,
        progress: Progress,
    ) -> None:
        self._config = config
        self._processes = processes
        self._num_batches = 0
        self._run_folder = run_folder
        self._progress = progress
        self._started = self._logged = time.perf_counter()
        self._num_images = self._num_at_log = 0

    def start_epoch(self, position: Position, num_batches: int) -> None:
        """Begin an epoch of so many batches, or go on in it."""
        self._num_batches = num_batches
        self._progress.start(position.epoch, position.batch, num_batches)
        self._started = self._logged = time.perf_counter()
        self._num_images = self._num_at_log = 0

    @property
    def images_per_s(self) -> float:
        """Of the epoch so far, or of its part that this process has seen."""
        return self._num_images / (time.perf_counter() - self._started)

    def wants_grad_range(self, number: int) -> bool:
        """Whether the range of the logits' gradient is shown for a batch."""
        return self._config.grad_stats and self._is_logged(number)

    def after_batch(
        self, outcome: Outcome, epoch: int, tally: Tally, current_lr: Callable[[], float]
    ) -> None:
        """Count a batch, and show the figures where that is due; all processes take part."""
        self._progress.advance()
        self._num_images += len(outcome.batch.labels) * self._processes.number
        if not self._is_logged(outcome.number) or self._is_unseen:
            return
        now = time.perf_counter()
        images_per_s = (self._num_images - self._num_at_log) / (now - self._logged)
        loss, accuracy = tally.means(self._processes)
        fields = [
            f"Loss: {loss:.3f}",
            f"LR: {current_lr():.4f}",
            f"img/s:{int(images_per_s):5d}",
            f"Acc: {accuracy:5.2f}",
            *self._statistics(outcome),
        ]
        self._progress.batch(epoch, outcome.number, self._num_batches, fields)
        if self._config.save_images and self._processes.is_first:
            self._run_folder.check()
            path = self._run_folder.path / f"train-{epoch + 1}-{outcome.number}.jpg"
            _save_images(path, outcome.batch.images)
        self._logged, self._num_at_log = time.perf_counter(), self._num_images

    @property
    def _is_unseen(self) -> bool:
        """Whether no process shows or saves anything."""
        is_alone = self._processes.number == 1
        return is_alone and self._progress.is_silent and not self._config.save_images

    def _is_logged(self, number: int) -> bool:
        is_last = number == self._num_batches - 1
        return is_last or (number > 0 and number % self._config.log_interval == 0)

    def _statistics(self, outcome: Outcome) -> list[str]:
        """The figures of --logit-stats and --grad-stats, as published."""
        fields = []
        if self._config.logit_stats:
            statistics = self._processes.sum(torch.stack(logit_statistics(outcome.logits)))
            norm, mean, peak, var = (statistics / self._processes.number).tolist()
            fields.append(f"LStat: {norm:5.2f},{mean:4.2f},{peak:5.2f},{var:5.2f}")
        if outcome.grad_range is not None:
            bounds = self._processes.gather(torch.stack(outcome.grad_range).tolist())
            low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
            fields.append(f"GStat: {low:.2e},{high:.2e}")
        return fields


def _save_images(path: Path, images: torch.Tensor) -> None:
    """Save a batch's images as the model sees them, scaled to be visible."""
    from torchvision.utils import save_image

    with as_user_error(f"--save-images: {path} cannot be written"):
        save_image(images, path, padding=0, normalize=True)
