"""Batches of samples that worker processes read."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from softmax_gradient_tampering.data.folder.samples import Samples
from softmax_gradient_tampering.data.folder.workers import BatchBuffer, WorkerPool
from softmax_gradient_tampering.data.loader import Batch, Loader, TrainLoader
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.data.order import epoch_order, evaluation_shard


class _Reader:
    """A pool of workers, and what is made of the pixels that they read."""

    def __init__(
        self,
        samples: Samples,
        batch_sizes: Sequence[int],
        options: DataOptions,
        model_input: ModelInput,
    ) -> None:
        self._model_input = model_input
        capacity, num_images = max(batch_sizes, default=1), max(1, samples.num_splits)
        self._pool = WorkerPool(
            samples,
            options.num_workers,
            lambda: BatchBuffer(capacity, num_images, options.input_size),
            options.while_waiting,
        )
        self.close = self._pool.close

    def epoch(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        def make_batch(images: Tensor, labels: Tensor, indices: Tensor) -> Batch:
            # On a CPU the images are copied as they become float32, the labels here.
            if self._model_input.device.type == "cpu":
                labels = labels.clone()
            return self._model_input(images, labels, epoch, indices)

        return self._pool.batches(epoch, batches, make_batch)


class SampleTrainLoader(TrainLoader):
    """Training batches; see `Loader`. A last batch that is not full is left out."""

    def __init__(self, samples: Samples, options: DataOptions) -> None:
        self.plan = options.plan(len(samples), drop_last=True)
        self.batch_sizes = self.plan.sizes()
        self.num_samples = sum(self.batch_sizes) * self.plan.num_processes
        self._samples = samples
        self._seed, self._process = options.seed, options.process
        model_input = options.model_input(is_training=True)
        self._reader = _Reader(samples, self.batch_sizes, options, model_input)

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def close(self) -> None:
        self._reader.close()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = self._order(epoch)
        numbers = range(start, len(self))
        batches = [self.plan.batch(order, number, self._process) for number in numbers]
        return self._reader.epoch(epoch, batches)

    def names(self, epoch: int, number: int) -> list[str]:
        indices = self.plan.batch(self._order(epoch), number, self._process)
        return [self._samples.name(index) for index in indices.tolist()]

    def _order(self, epoch: int) -> Tensor:
        return epoch_order(self.plan.num_samples, self._seed, epoch)


class SampleEvaluationLoader(Loader):
    """Evaluation batches of this process's shard, in order; see `Loader`."""

    def __init__(self, samples: Samples, options: DataOptions) -> None:
        self.num_samples = len(samples)
        shard = evaluation_shard(self.num_samples, options.num_processes, options.process)
        self._batches = list(torch.tensor(shard).split(options.eval_batch_size)) if shard else []
        self.batch_sizes = [len(batch) for batch in self._batches]
        model_input = options.model_input(is_training=False)
        self._reader = _Reader(samples, self.batch_sizes, options, model_input)

    def __len__(self) -> int:
        return len(self._batches)

    def close(self) -> None:
        self._reader.close()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return self._reader.epoch(epoch, self._batches[start:])
