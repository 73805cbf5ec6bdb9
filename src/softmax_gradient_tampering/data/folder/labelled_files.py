"""Many image files and their labels, in a few bytes each."""

import os
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class LabelledFiles(Sequence[tuple[str, int]]):
    """(path, label) pairs of image files.

    The paths are kept as one string of bytes. As Python objects those of ImageNet would take a
    fifth of a gigabyte, and again as much in every worker process: each look at an object
    writes its reference count, which ends the sharing of its memory between processes.

    Args:
        folder: what the paths are relative to.
        files: the paths; absolute ones stay as they are.
        labels: of every file, an index into `classes`.
        classes: the classes' names.
    """

    def __init__(
        self, folder: str, files: Sequence[str], labels: Sequence[int], classes: tuple[str, ...]
    ) -> None:
        self.classes = classes
        self.labels: Tensor = torch.tensor(labels, dtype=torch.int64)
        self._folder = folder
        self._files = os.fsencode("\0".join([*files, ""]))
        self._ends: NDArray[Any] = np.flatnonzero(np.frombuffer(self._files, np.uint8) == 0)
        self._starts: NDArray[Any] = np.concatenate([[0], self._ends[:-1] + 1])[: len(files)]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """The path of one file."""
        file = os.fsdecode(self._files[self._starts[index] : self._ends[index]])
        return file if file.startswith("/") else f"{self._folder}/{file}"

    @property
    def paths(self) -> list[str]:
        """The paths of all files."""
        return [self.path(index) for index in range(len(self))]

    def take(self, indices: Sequence[int] | Tensor) -> "LabelledFiles":
        """Some of the files, by their indices, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        part = object.__new__(LabelledFiles)
        part.classes, part._folder, part._files = self.classes, self._folder, self._files
        part.labels = self.labels[rows]
        part._starts, part._ends = self._starts[rows.numpy()], self._ends[rows.numpy()]
        return part

    @overload
    def __getitem__(self, index: int) -> tuple[str, int]: ...
    @overload
    def __getitem__(self, index: slice) -> "LabelledFiles": ...
    def __getitem__(self, index: int | slice) -> "tuple[str, int] | LabelledFiles":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self.path(index), int(self.labels.numpy()[index])
