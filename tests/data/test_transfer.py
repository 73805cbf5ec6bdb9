"""Batches on their way to a GPU; on a CPU they pass through."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from softmax_gradient_tampering.data.factory import open_dataset
from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.data.transfer import Prefetched, keep_near, to_device
from tests.data.batches import OPTIONS, assert_equal

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def numbered(log: list[int], num_batches: int = 3, fails_at: int = 99) -> Iterator[Batch]:
    for number in range(num_batches):
        if number == fails_at:
            raise OSError(f"batch {number} cannot be read")
        log.append(number)
        yield Batch(*[torch.tensor([number])] * 3)


@pytest.mark.parametrize("loads_ahead", [False, True])
def test_every_batch_comes_once_and_in_order(loads_ahead: bool) -> None:
    log: list[int] = []
    batches, seen = Prefetched(numbered(log), CPU), []
    for number, batch in enumerate(batches):
        seen.append(int(batch.images))
        for _ in range(2 * loads_ahead):  # the second time changes nothing
            batches.load()
        assert log == list(range(min(3, number + 1 + loads_ahead)))
    assert seen == [0, 1, 2]
    assert next(batches, None) is None


@pytest.mark.parametrize("loads_ahead", [False, True])
def test_a_batch_that_fails_is_missed_where_it_is_taken_and_not_before(loads_ahead: bool) -> None:
    batches = Prefetched(numbered([], fails_at=2), CPU)
    for number in range(2):
        assert int(next(batches).images) == number
        if loads_ahead:
            batches.load()
    with pytest.raises(OSError, match="batch 2"):
        next(batches)


def test_what_is_on_its_device_is_not_copied() -> None:
    tensor = torch.arange(4)
    assert to_device(tensor, CPU).data_ptr() == tensor.data_ptr()
    assert keep_near(tensor, CPU) is tensor


@needs_gpu
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["in memory", "on the GPU"])
def test_a_gpu_gets_the_batches_of_a_cpu(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_gradient_tampering.data.transfer._SHARE", share)
    digits = open_dataset(None)
    digits.pad = 2  # type: ignore[attr-defined]
    here = replace(OPTIONS, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,), vflip=0.3)
    here = replace(here, batch_size=100)
    there = replace(here, device=torch.device("cuda", 0))
    batches = Prefetched(digits.train_loader(there).epoch(1), there.device)
    on_gpu = []
    for batch in batches:
        on_gpu.append(Batch(*(tensor.cpu() for tensor in batch)))
        batches.load()
        # What is queued on the stream of the steps reads a batch whose successor is being made.
        torch.zeros(1000, 1000, device=there.device).matmul(torch.ones(1000, 1000, device="cuda"))
    assert_equal(on_gpu, list(digits.train_loader(here).epoch(1)))
