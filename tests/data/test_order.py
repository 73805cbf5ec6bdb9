"""Order by counter: permutations, shares, and random numbers without a state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_gradient_tampering.data.order import (
    BatchPlan,
    counter_hash,
    counter_uniforms,
    epoch_order,
    evaluation_shard,
)


def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(100, seed=1, epoch=0), epoch_order(100, seed=1, epoch=1)
    assert sorted(first.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(100, seed=1, epoch=0))
    assert not torch.equal(first, epoch_order(100, seed=2, epoch=0))


@settings(derandomize=True, deadline=None)
@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    num_processes=st.integers(1, 4),
    drop_last=st.booleans(),
    multiple=st.sampled_from([1, 2]),
)
def test_processes_share_batches_evenly_and_no_sample_twice(
    num_samples: int, batch_size: int, num_processes: int, drop_last: bool, multiple: int
) -> None:
    plan = BatchPlan(num_samples, batch_size * multiple, num_processes, drop_last, multiple)
    order = epoch_order(num_samples, 0, 0)
    seen: list[int] = []
    for number, size in enumerate(plan.sizes()):
        shares = [plan.batch(order, number, process) for process in range(num_processes)]
        assert [len(share) for share in shares] == [size] * num_processes
        assert size % multiple == 0
        seen += torch.cat(shares).tolist()
    assert len(seen) == len(set(seen))
    num_left_out = num_samples - len(seen)
    full = batch_size * multiple * num_processes
    # Besides what cannot be shared evenly, shares of one sample are left out.
    allowed = full if drop_last and plan.sizes() else num_processes * (multiple + 1)
    assert num_left_out < allowed


@settings(derandomize=True, deadline=None)
@given(
    num_samples=st.integers(1, 60),
    shapes=st.lists(st.tuples(st.integers(2, 9), st.integers(1, 4), st.integers(0, 5)), max_size=4),
    drop_last=st.booleans(),
)
def test_an_epoch_goes_on_with_batches_of_another_size_where_the_last_ended(
    num_samples: int, shapes: list[tuple[int, int, int]], drop_last: bool
) -> None:
    order = epoch_order(num_samples, 0, 0)
    seen: list[int] = []
    taken, plan = 0, BatchPlan(num_samples, 1)
    for batch_size, num_processes, num_batches in shapes:
        plan = BatchPlan(num_samples, batch_size, num_processes, drop_last, taken=taken)
        numbers = range(min(num_batches, len(plan)))
        for number in numbers:
            shares = [plan.batch(order, number, process) for process in range(num_processes)]
            assert len({len(share) for share in shares}) == 1
            seen += torch.cat(shares).tolist()
        taken = plan.taken_by(len(numbers))
    # In order, none twice; left out is only what the last batch of an epoch leaves out.
    assert seen == order[: len(seen)].tolist()
    if taken < num_samples:
        assert len(seen) == taken


def test_a_batch_is_the_same_samples_for_any_number_of_processes() -> None:
    order = epoch_order(100, 0, 0)
    one = BatchPlan(100, 12, num_processes=1)
    four = BatchPlan(100, 3, num_processes=4)
    assert len(four) == len(one) - 1  # the last shares would be of one sample
    for number in range(len(four)):
        shares = [four.batch(order, number, process) for process in range(4)]
        assert torch.equal(torch.cat(shares), one.batch(order, number, 0))


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_evaluation_shards_cover_every_sample_once(num_processes: int) -> None:
    shards = [evaluation_shard(11, num_processes, process) for process in range(num_processes)]
    assert sorted(index for shard in shards for index in shard) == list(range(11))


def test_random_numbers_depend_on_the_sample_and_not_on_its_batch() -> None:
    together = counter_uniforms(3, 5, torch.tensor([4, 9, 2]), 4)
    alone = counter_uniforms(3, 5, torch.tensor([9]), 4)
    assert (together[1] == alone[0]).all()
    assert (together != counter_uniforms(3, 6, torch.tensor([4, 9, 2]), 4)).all()


def test_uniform_numbers_are_uniform() -> None:
    numbers = counter_uniforms(0, 0, torch.arange(20_000), 4)
    assert ((numbers >= 0) & (numbers < 1)).all()
    # Six standard errors of the mean and of the variance of 80,000 uniform numbers.
    assert abs(numbers.mean() - 1 / 2) < 6 * (1 / 12 / 80_000) ** 0.5
    assert abs(numbers.var() - 1 / 12) < 6 * (1 / 180 / 80_000) ** 0.5


def test_the_hash_tells_its_counters_apart() -> None:
    hashes = {counter_hash(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(hashes) == 1000
