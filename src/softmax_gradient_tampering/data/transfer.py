"""Batches on their way to a GPU: from memory that it reads by itself, beside its other work."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from softmax_gradient_tampering.data.loader import Batch

# Of the free memory of a GPU, what a set may take that is kept there, so that several runs fit.
_SHARE = 0.1


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. A GPU is not waited for: it copies from page-locked memory.

    The page-locked copy is made at once, so that the tensor's own memory may be used again.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def keep_near(tensor: Tensor, device: torch.device) -> Tensor:
    """A set's tensor on the GPU where it takes a tenth of the free memory at most, else as it is.

    Where it is decides how fast batches are cut from it, and no value of any batch.
    """
    if device.type != "cuda":
        return tensor
    free, _ = torch.cuda.mem_get_info(device)
    return tensor.to(device) if tensor.nbytes <= _SHARE * free else tensor


class Prefetched(Iterator[Batch]):
    """Batches that a GPU loads beside its other work; on a CPU they pass through.

    All that makes a batch, copies, normalisation, erasing and mixing, runs on a stream of its
    own. The program is ahead of the GPU, so that a batch that it asks for after a step is copied
    while that step is computed. Where a step has to be waited for, `load` is called before.

    Args:
        batches: of a loader.
        device: that they are made on.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._loaded: list[Batch | Exception] = []
        if device.type == "cuda":
            # What the loader keeps on the device was made on the stream of the steps.
            _stream(device).wait_stream(torch.cuda.current_stream(device))

    def load(self) -> None:
        """Load the next batch, if it is not loaded; an error is raised where the batch is taken."""
        if self._loaded:
            return
        try:
            self._loaded.append(self._make())
        except Exception as error:  # the end of the batches is one
            self._loaded.append(error)

    def __next__(self) -> Batch:
        batch = self._loaded.pop() if self._loaded else self._make()
        if isinstance(batch, Exception):
            raise batch
        if self._device.type == "cuda":
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(_stream(self._device))
            for tensor in batch:  # its memory is not used again before the step has read it
                tensor.record_stream(current)
        return batch

    def _make(self) -> Batch:
        if self._device.type != "cuda":
            return next(self._batches)
        with torch.cuda.stream(_stream(self._device)):
            return next(self._batches)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of the copies to a device: the allocator keeps each stream's memory apart."""
    return torch.cuda.Stream(device)
