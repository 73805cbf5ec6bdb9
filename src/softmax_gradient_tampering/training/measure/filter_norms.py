"""Norms of filters and features: which of them training has zeroed (paper, networks without norm).

A filter is the weights of one output channel of a convolution; a feature is one input of the
classifier, over all samples of an evaluation.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError, as_printable, first_line
from softmax_gradient_tampering.files.whole import write_whole
from softmax_gradient_tampering.terminal.streams import print_line
from softmax_gradient_tampering.training.processes.distributed import Processes

FILE_NAME = "filter_norms.npz"
ZEROED_BELOW = 1e-6


@torch.no_grad()
def filter_norms(model: nn.Module) -> dict[str, Tensor]:
    """The L2 norm of every filter: {convolution: (output channels,) float32 on the CPU}."""
    return {
        name: torch.linalg.vector_norm(module.weight.float().flatten(1), dim=1).cpu()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }


def num_zeroed(norms: Tensor) -> int:
    """How many norms are those of something zeroed."""
    return int((norms < ZEROED_BELOW).sum())


class FeatureNorms:
    """Sums of squares of a linear classifier's inputs, over the samples that pass through it."""

    def __init__(self, classifier: nn.Linear) -> None:
        self._classifier = classifier
        self._sums = torch.zeros(
            classifier.in_features, dtype=torch.float64, device=classifier.weight.device
        )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Add up what reaches the classifier while the context lasts."""
        handle = self._classifier.register_forward_pre_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def total(self, processes: Processes) -> Tensor:
        """The norms (features,) over all samples of all processes, on the CPU."""
        return processes.sum(self._sums).sqrt().cpu()

    def _add(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._sums += inputs[0].detach().double().flatten(0, -2).square().sum(0)


class FilterHistory:
    """filter_norms.npz: `epochs` (E,), from 1, and per convolution the norms (E, filters).

    The file holds whole epochs only and is rewritten whole, so that a run that is killed and
    resumed leaves the same file. A network without convolutions has none.

    Args:
        folder: the run folder.
        num_epochs: how many epochs of a file that is there count: those before the run goes on.
    """

    def __init__(self, folder: Path, num_epochs: int) -> None:
        self._path = folder / FILE_NAME
        self._rows: dict[int, dict[str, np.ndarray]] = {}
        if num_epochs and self._path.exists():
            self._rows = _read_rows(self._path, num_epochs)

    def add(self, epoch: int, norms: dict[str, Tensor]) -> None:
        """Record the norms after an epoch, from 1; the name lasts with the epoch's checkpoint."""
        if not norms:
            return
        self._rows[epoch] = {name: values.numpy() for name, values in norms.items()}
        arrays = {name: np.stack([row[name] for row in self._rows.values()]) for name in norms}
        epochs = np.array(list(self._rows), dtype=np.int64)
        write_whole(
            self._path,
            lambda file: np.savez_compressed(file, epochs=epochs, **arrays),  # type: ignore[arg-type]
            lasts=False,
        )


def _read_rows(path: Path, num_epochs: int) -> dict[int, dict[str, np.ndarray]]:
    """The norms by epoch, up to a given one; none of a damaged file, which is reported.

    A damaged record does not end the training, but a file that may be whole is not overwritten.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", is_local=True) from error
    try:
        history = read_filter_norms(io.BytesIO(content))
        numbers = history.pop("epochs").tolist()
        return {
            int(number): {name: norms[index] for name, norms in history.items()}
            for index, number in enumerate(numbers)
            if number <= num_epochs
        }
    except Exception as error:  # damaged bytes make numpy and zipfile raise anything
        reason = f"{type(error).__name__}: {first_line(error):.200}"
        print_line(as_printable(f"{path}: damaged ({reason}); the history starts anew"))
        return {}


def read_filter_norms(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a filter_norms.npz."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
