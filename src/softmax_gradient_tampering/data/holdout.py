"""A part of the training set held out, to validate on: the test set stays unseen."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from softmax_gradient_tampering.data.dali.loaders import CheckedFiles, DaliDataset
from softmax_gradient_tampering.data.factory import Dataset, MemoryDataset, SampleDataset
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.memory.loaders import Images
from softmax_gradient_tampering.data.order import counter_hash
from softmax_gradient_tampering.errors import UserError

_SALT = 0x5B1D  # so that the split is not the order of an epoch


def split_indices(num_samples: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices (kept,) and (held,) of a split, each ascending; f(seed) alone.

    Raises:
        UserError: one of the two parts would be empty.
    """
    num_held = round(fraction * num_samples)
    if not 0 < num_held < num_samples:
        raise UserError(
            f"--holdout {fraction} of {num_samples} training samples leaves a part empty; "
            "give a share that both can be made of"
        )
    generator = torch.Generator().manual_seed(counter_hash(seed, _SALT))
    shuffled = torch.randperm(num_samples, generator=generator)
    return shuffled[num_held:].sort().values, shuffled[:num_held].sort().values


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """A data set whose validation set is a part of the training set, and trains on the rest.

    Args:
        dataset: whose own validation set is left alone.
        fraction: of the training set that is held out, in (0, 1).
        seed: of the split; the same seed gives the same split.

    Raises:
        UserError: the data set cannot be split, or a part would be empty.
    """
    if not isinstance(dataset, MemoryDataset | SampleDataset | DaliDataset):
        raise UserError(f"--holdout {fraction}: {dataset.name} cannot be split")
    kept, held = split_indices(dataset.num_train, fraction, seed)
    part = copy.copy(dataset)
    part.num_train, part.num_val = len(kept), len(held)
    part.train, part.val = (_take(dataset.train, indices) for indices in (kept, held))
    return part


def _take(split: Any, indices: Tensor) -> Any:
    if isinstance(split, Images):
        return Images(split.images[indices], split.labels[indices], split.classes)
    if isinstance(split, LabelledFiles | CheckedFiles):
        return split.take(indices)
    taken: Any = Subset(split, indices.tolist())
    if hasattr(split, "reader"):
        taken.reader = _PartOfReader(split.reader, indices.tolist())
    return taken


class _PartOfReader:
    """Some of the files of a timm reader, by their new numbers."""

    def __init__(self, reader: Any, indices: list[int]) -> None:
        self._reader = reader
        self._indices = indices

    def __getitem__(self, index: int) -> Any:
        return self._reader[self._indices[index]]

    def filename(self, index: int, **kwargs: Any) -> Any:
        return self._reader.filename(self._indices[index], **kwargs)
