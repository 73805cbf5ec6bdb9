"""A part of the device code: what all blocks of a launch sum up, summed by the last to end.

Who ends last changes from run to run; what is added to what, and in which order, does not: the
same numbers give the same bits. Blocks count in groups, so that no sum is long and few blocks
wait for the same counter.
"""

import triton
import triton.language as tl

GROUP = tl.constexpr(256)


def num_groups(num_blocks: int) -> int:
    """How many groups there are; each has a counter, and so have all of them together."""
    return -(-num_blocks // GROUP.value)


def scratch_size(num_blocks: int) -> int:
    """The numbers that a launch needs room for: counters, and two sums of each block and group."""
    return 1 + 2 * num_blocks + 3 * num_groups(num_blocks)


@triton.jit
def sum_in_last_block(
    loss_sum, weight_sum, scratch, loss, divisor, IS_MEAN: tl.constexpr, HAS_DIVISOR: tl.constexpr
):
    """Add up all blocks' sums of losses and of weights; what the last block does is the loss.

    Args:
        loss_sum, weight_sum: of this block.
        scratch: `scratch_size` numbers, of which the counters, one more than groups, begin at 0.
        loss: 0-d; the sum of the losses, or their mean.
        divisor: 0-d; what the mean divides by. If not HAS_DIVISOR, it is written: the sum of the
            weights.
    """
    block, num_blocks = tl.program_id(0), tl.num_programs(0)
    group, num_groups = block // GROUP, tl.cdiv(num_blocks, GROUP)
    sums = scratch + 1 + num_groups
    tl.store(sums + block, loss_sum)
    tl.store(sums + num_blocks + block, weight_sum)
    tl.debug_barrier()
    num_others = tl.minimum(num_blocks - group * GROUP, GROUP) - 1
    if tl.atomic_add(scratch + 1 + group, 1.0, sem="acq_rel") == num_others:
        places = group * GROUP + tl.arange(0, GROUP)
        loss_sums, weight_sums = _load(sums, places, num_blocks)
        sums += 2 * num_blocks
        tl.store(sums + group, tl.sum(loss_sums, 0))
        tl.store(sums + num_groups + group, tl.sum(weight_sums, 0))
        tl.debug_barrier()
        if tl.atomic_add(scratch, 1.0, sem="acq_rel") == num_groups - 1:
            loss_sums = tl.zeros([GROUP], tl.float32)
            weight_sums = tl.zeros([GROUP], tl.float32)
            for start in range(0, num_groups, GROUP):
                more_losses, more_weights = _load(sums, start + tl.arange(0, GROUP), num_groups)
                loss_sums += more_losses
                weight_sums += more_weights
            total = tl.sum(loss_sums, 0)
            if IS_MEAN:
                if HAS_DIVISOR:
                    weights = tl.load(divisor)
                else:
                    weights = tl.sum(weight_sums, 0)
                    tl.store(divisor, weights)
                total = total / weights
            tl.store(loss, total)


@triton.jit
def _load(sums, places, number):
    """Two sums at each place, as other blocks wrote them: not from this processor's own cache."""
    is_there = places < number
    loss_sums = tl.load(sums + places, is_there, other=0.0, cache_modifier=".cg")
    weight_sums = tl.load(sums + number + places, is_there, other=0.0, cache_modifier=".cg")
    return loss_sums, weight_sums
