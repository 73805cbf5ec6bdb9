"""How a study grows: by seeds that are asked for, and by those that its open arms need."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace

from softmax_gradient_tampering.studies.plan.plan import Arm, Plan


def merge(there: Plan, asked: Plan) -> Plan | None:
    """The plan of a study of which more is asked.

    Further seeds are for all arms. The tuning stays as it is: settings that are chosen are not
    chosen again. One that asks for its arms to be settled may name fewer seeds: it names those
    that the study began with.

    Returns:
        None where another study is asked for.
    """
    added = tuple(seed for seed in asked.seeds if seed not in there.seeds)
    has_all = len(asked.seeds) - len(added) == len(there.seeds)
    if not (added and has_all) and asked.settling is None:
        return there if there.is_same_study(asked) else None
    if not has_all and (added or asked.settling is None):
        return None
    tunes_all = asked.tuning_seeds == asked.seeds
    tuning_seeds = there.tuning_seeds if tunes_all else asked.tuning_seeds
    if not there.is_same_study(replace(asked, seeds=there.seeds, tuning_seeds=tuning_seeds)):
        return None
    plan = replace(there, settling=asked.settling or there.settling)
    if not added:
        return plan
    arms = tuple(replace(arm, seeds=None) for arm in plan.arms)
    return _grown(replace(plan, arms=arms, command=asked.command), added)


def with_next_seeds(plan: Plan, open_arms: Collection[str], number: int) -> Plan:
    """The plan with further seeds for some arms, and for the arms that these are compared with.

    Args:
        plan: of a study that is to be settled.
        open_arms: names of the tampered and scheduled arms that are not settled; the others
            keep the seeds that they have.
        number: of seeds to add to each, as far as there are to be so many.
    """
    assert plan.settling is not None
    new, added = itertools.count(max(plan.seeds) + 1), list[int]()
    seeds: dict[str, tuple[int, ...]] = {}
    for arm in plan.arms:
        if arm.kind not in ("tampered", "scheduled"):
            continue
        own = plan.seeds_of(arm)
        wanted = min(number, plan.settling.max_seeds - len(own)) if arm.name in open_arms else 0
        has = set(own)
        free = [seed for seed in (*plan.seeds, *added) if seed not in has][: max(wanted, 0)]
        fresh = list(itertools.islice(new, max(wanted - len(free), 0)))
        added += fresh
        seeds[arm.name] = (*own, *free, *fresh)
    grown = _grown(plan, tuple(added)) if added else plan
    arms = tuple(_with_seeds(arm, seeds, grown) for arm in grown.arms)
    return replace(grown, arms=arms).with_cells()


def _grown(plan: Plan, added: tuple[int, ...]) -> Plan:
    stages = (*plan.stages, len(plan.seeds))
    return replace(plan, seeds=(*plan.seeds, *added), stages=stages).with_cells()


def _with_seeds(arm: Arm, seeds: dict[str, tuple[int, ...]], plan: Plan) -> Arm:
    """An arm with its own seeds; an equivalent one has those of the arms that it follows."""
    of_arms = [seeds[followed] for followed in _followed(arm, plan) if followed in seeds]
    own = tuple(dict.fromkeys(itertools.chain.from_iterable(of_arms)))
    has_all = not own or set(own) == set(plan.seeds)
    return replace(arm, seeds=None if has_all else own)


def _followed(arm: Arm, plan: Plan) -> Iterator[str]:
    """The arms whose seeds an arm has: its own, or the tampered ones of its alpha."""
    yield arm.name
    if arm.kind == "equivalent":
        yield from (each.name for each in plan.arms
                    if (each.kind, each.alpha) == ("tampered", arm.alpha))  # fmt: skip
