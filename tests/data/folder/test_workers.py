"""Worker processes that hang, fail or die, as the trainer sees them."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.data.factory import SampleDataset, open_dataset
from softmax_gradient_tampering.data.folder.samples import Samples
from softmax_gradient_tampering.data.loader import Batch, TrainLoader
from softmax_gradient_tampering.errors import MachineError
from tests.data.batches import OPTIONS
from tests.faults.processes import children, has_ended


class WaitedEnoughError(Exception):
    """Ends a wait."""


@pytest.fixture
def dataset(tmp_path: Path, make_images: Callable[..., Path]) -> SampleDataset:
    dataset = open_dataset(str(make_images(tmp_path / "photos", {"ant": 20, "bee": 20})))
    assert isinstance(dataset, SampleDataset)
    return dataset


def begin(dataset: SampleDataset, **changes: Any) -> tuple[TrainLoader, Iterator[Batch], list[int]]:
    """A loader of two workers after its first batch of ten, and the workers' numbers."""
    before = set(children(os.getpid()))
    loader = dataset.train_loader(replace(OPTIONS, num_workers=2, **changes))
    batches = loader.epoch(0)
    next(batches)
    workers = sorted(set(children(os.getpid())) - before)
    assert len(workers) == 2
    return loader, batches, workers


def test_a_worker_that_hangs_is_described_and_waiting_can_be_ended(dataset: SampleDataset) -> None:
    waits: list[tuple[float, str]] = []

    def while_waiting(seconds: float, describe: Callable[[], str]) -> None:
        waits.append((seconds, describe()))
        if len(waits) == 2:
            raise WaitedEnoughError

    loader, batches, workers = begin(dataset, while_waiting=while_waiting)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    with pytest.raises(WaitedEnoughError):
        list(batches)
    assert 0 < waits[0][0] < waits[1][0]
    pattern = r"loader worker (\d+) \(stopped\) reads the batch of .*\.jpg, .* and 1 more"

    found = re.fullmatch(pattern, waits[1][1])
    assert found
    assert int(found[1]) in workers
    loader.close()
    assert all(map(has_ended, workers))


def test_after_a_wait_the_batches_are_those_that_were_awaited(dataset: SampleDataset) -> None:
    def go_on(seconds: float, describe: Callable[[], str]) -> None:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)

    _, batches, workers = begin(dataset, while_waiting=go_on)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    expected = list(dataset.train_loader(OPTIONS).epoch(0))[1:]
    for batch, other in zip(batches, expected, strict=True):
        assert batch.images.equal(other.images)


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_worker_that_dies_is_named(
    dataset: SampleDataset, number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, batches, workers = begin(dataset)
    os.kill(workers[1], number)
    with pytest.raises(MachineError, match=f"worker {workers[1]}, one of 2, was ended by {name}"):
        list(batches)
    killed: list[int] = []
    kill = os.kill

    def note(pid: int, number: int) -> None:
        killed.append(pid)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", note)
    loader.close()
    assert killed == workers[:1]  # the number of the other may be another process's by now
    assert all(map(has_ended, workers))


def test_a_mistake_in_a_transform_is_shown_with_its_place(
    dataset: SampleDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Samples, epoch: int, index: int) -> None:
        raise ZeroDivisionError("a transform's")

    monkeypatch.setattr(Samples, "read", fail)
    with pytest.raises(RuntimeError, match=r"(?s)loader worker failed:.*ZeroDivisionError: a t"):
        list(dataset.train_loader(replace(OPTIONS, num_workers=1)).epoch(0))


def test_an_epoch_that_was_left_does_not_disturb_the_next(dataset: SampleDataset) -> None:
    loader, batches, _ = begin(dataset)
    del batches
    expected = list(dataset.train_loader(OPTIONS).epoch(1))
    for batch, other in zip(loader.epoch(1), expected, strict=True):
        assert batch.images.equal(other.images)


def test_workers_end_with_their_loader(dataset: SampleDataset) -> None:
    loader, batches, workers = begin(dataset)
    del loader, batches
    assert all(map(has_ended, workers))
