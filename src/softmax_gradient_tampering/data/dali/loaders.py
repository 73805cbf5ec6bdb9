"""Image folders, read and augmented by NVIDIA DALI: random resized crop and flips.

The recipe is that of the published DALI loader. Order, crops, flips and filters are drawn
here, by counter, so that DALI gives the same batches whatever came before them: an epoch can
be begun at any batch, by any number of processes and threads.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from softmax_gradient_tampering.data.dali.pipeline import (
    INTERPOLATIONS,
    Decoder,
    Graph,
    Request,
)
from softmax_gradient_tampering.data.dali.windows import (
    NUM_WINDOW_UNIFORMS,
    Numbers,
    centred_windows,
    random_windows,
)
from softmax_gradient_tampering.data.factory import SampleDataset, Statistics, count_labels
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.inspection.images import Inspection
from softmax_gradient_tampering.data.loader import Batch, Loader, TrainLoader
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.data.order import (
    counter_uniforms,
    epoch_order,
    evaluation_shard,
)
from softmax_gradient_tampering.errors import UserError

_RANDOM_FILTERS = ("bilinear", "bicubic")


class CheckedFiles(NamedTuple):
    """Image files that were checked, their sizes (N, 2) in pixels and (N,) in bytes."""

    files: LabelledFiles
    sizes: Numbers
    num_bytes: Numbers

    @staticmethod
    def of(files: LabelledFiles, inspections: Mapping[str, Inspection]) -> "CheckedFiles":
        """Of files, and what was found of each by its path."""
        found = [inspections[path] for path, _ in files]
        sizes = np.array([(each.height, each.width) for each in found]).reshape(-1, 2)
        return CheckedFiles(files, sizes, np.array([each.num_bytes for each in found]))

    def take(self, indices: Tensor) -> "CheckedFiles":
        """Some of the files."""
        rows = indices.numpy()
        return CheckedFiles(self.files.take(indices), self.sizes[rows], self.num_bytes[rows])

    def request(self, indices: Tensor, inputs: dict[str, Numbers]) -> Request:
        part = self.take(indices)
        return Request(part.files.paths, part.num_bytes.tolist(), inputs)


def require_dali(device: torch.device, on_gpu: bool) -> None:
    """Refuse DALI where it is not installed, or has no GPU to decode on.

    Raises:
        UserError: which of the two, and what to do.
    """
    flag = "--dali-gpu" if on_gpu else "--dali"
    if importlib.util.find_spec("nvidia") is None or not importlib.util.find_spec("nvidia.dali"):
        raise UserError(
            f"{flag}: NVIDIA DALI is not installed; pip install 'softmax-gradient-tampering[dali]'"
        )
    if on_gpu and device.type != "cuda":
        raise UserError(
            f"--dali-gpu decodes on a GPU, and this run is on {device.type}; --dali decodes on "
            "the CPU"
        )


class DaliTrainLoader(TrainLoader):
    """Training batches; see `Loader`. The augmentation is f(seed, epoch, index)."""

    def __init__(
        self, files: CheckedFiles, options: DataOptions, on_gpu: bool, antialias: bool
    ) -> None:
        self.files = files
        self.options = options
        self.plan = options.plan(len(files.files), drop_last=True)
        self.batch_sizes = self.plan.sizes()
        self.num_samples = sum(self.batch_sizes) * self.plan.num_processes
        self.model_input: ModelInput = options.model_input(is_training=True)
        channels, *size = options.input_size
        interpolation = options.train_interpolation
        if interpolation == "random" and options.no_aug:
            interpolation = "bilinear"  # as timm has it
        self._filters = _RANDOM_FILTERS if interpolation == "random" else (interpolation,)
        graph = Graph((size[0], size[1]), channels == 1, True, antialias, interpolation, on_gpu)
        num_threads = max(1, options.num_workers)
        largest = max(self.batch_sizes, default=1)
        self._decoder = Decoder(graph, largest, num_threads, options.device)

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def names(self, epoch: int, number: int) -> list[str]:
        """The files of a batch."""
        indices = self.plan.batch(self._order(epoch), number, self.options.process)
        return self.files.files.take(indices).paths

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = self._order(epoch)
        numbers = range(start, len(self))
        batches = [self.plan.batch(order, number, self.options.process) for number in numbers]
        requests = (self.files.request(batch, self._inputs(batch, epoch)) for batch in batches)
        for batch, images in zip(batches, self._decoder.batches(requests), strict=True):
            yield self.model_input(images, self.files.files.labels[batch], epoch, batch)

    def _order(self, epoch: int) -> Tensor:
        return epoch_order(self.plan.num_samples, self.options.seed, epoch)

    def _inputs(self, indices: Tensor, epoch: int) -> dict[str, Numbers]:
        """DALI's inputs of a batch: windows, flips, filters."""
        from nvidia.dali import types

        options, sizes = self.options, self.files.sizes[indices.numpy()]
        uniforms = counter_uniforms(options.seed, epoch, indices, NUM_WINDOW_UNIFORMS + 3)
        vertical, horizontal, kind = uniforms[:, NUM_WINDOW_UNIFORMS:].T
        starts, shapes = random_windows(
            sizes, uniforms[:, :NUM_WINDOW_UNIFORMS], options.scale, options.ratio
        )
        hflip, vflip = options.hflip, options.vflip
        if options.no_aug:
            starts, shapes, hflip, vflip = np.zeros_like(sizes), sizes, 0.0, 0.0
        filters = np.array([int(getattr(types, INTERPOLATIONS[name])) for name in self._filters])
        return {
            "start": starts,
            "shape": shapes,
            "horizontal": horizontal < hflip,
            "vertical": vertical < vflip,
            "filter": filters[(kind * len(filters)).astype(np.int64)],
        }


class DaliEvaluationLoader(Loader):
    """Evaluation batches of this process's shard, in order; see `Loader`."""

    def __init__(self, files: CheckedFiles, options: DataOptions, on_gpu: bool) -> None:
        self.files = files
        self.num_samples = len(files.files)
        shard = evaluation_shard(self.num_samples, options.num_processes, options.process)
        self._batches = list(torch.tensor(shard).split(options.eval_batch_size)) if shard else []
        self.batch_sizes = [len(batch) for batch in self._batches]
        self.model_input: ModelInput = options.model_input(is_training=False)
        channels, height, width = options.input_size
        graph = Graph((height, width), channels == 1, False, True, options.interpolation, on_gpu)
        self._resized, self._windows = centred_windows(
            files.sizes, (height, width), options.crop_pct
        )
        largest = max(self.batch_sizes, default=1)
        self._decoder = Decoder(graph, largest, max(1, options.num_workers), options.device)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        batches = self._batches[start:]
        requests = (self.files.request(batch, self._inputs(batch)) for batch in batches)
        for batch, images in zip(batches, self._decoder.batches(requests), strict=True):
            yield self.model_input(images, self.files.files.labels[batch], epoch, batch)

    def _inputs(self, indices: Tensor) -> dict[str, Numbers]:
        rows = indices.numpy()
        return {"start": self._windows.start[rows], "shape": self._resized[rows]}


class DaliDataset:
    """See `Dataset`; image files that were checked, a last batch that is not full left out.

    Args:
        dataset: the same folder for worker processes, without its bad files.
        inspections: what was found of every remaining file, by path.
        on_gpu: decode on the GPU.
        antialias: in training; validation always does.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        inspections: Mapping[str, Inspection],
        on_gpu: bool = False,
        antialias: bool = False,
    ) -> None:
        assert dataset.files is not None
        self.name = dataset.name
        self.num_classes, self.class_names = dataset.num_classes, dataset.class_names
        self.num_bad = dataset.num_bad
        self.image_size: tuple[int, int, int] | None = None
        self.statistics: Statistics | None = None
        self.train, self.val = (CheckedFiles.of(files, inspections) for files in dataset.files)
        self.num_train, self.num_val = dataset.num_train, dataset.num_val
        self.on_gpu = on_gpu
        self.antialias = antialias

    def count_classes(self, is_training: bool) -> list[int]:
        split = self.train if is_training else self.val
        return count_labels(split.files.labels, self.num_classes)

    def train_loader(self, options: DataOptions) -> TrainLoader:
        return DaliTrainLoader(self.train, options, self.on_gpu, self.antialias)

    def evaluation_loader(self, options: DataOptions) -> Loader:
        return DaliEvaluationLoader(self.val, options, self.on_gpu)
