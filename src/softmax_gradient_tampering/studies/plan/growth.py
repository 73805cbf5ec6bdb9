"""How a study grows: by arms and seeds that are asked for, and by seeds that open arms need."""

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from softmax_gradient_tampering.studies.plan.plan import Arm, Plan
from softmax_gradient_tampering.training.config.arguments import from_mapping, to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED
from softmax_gradient_tampering.training.records.run_files import NOT_HASHED


def merge(there: Plan, asked: Plan) -> Plan | None:
    """The plan of a study of which more is asked.

    What is there must be asked for again: its arms, its seeds. Further seeds are for all arms;
    further arms have all seeds. The tuning stays as it is: settings that are chosen are not
    chosen again. One that asks for its arms to be settled may name fewer seeds: it names those
    that the study began with, and further arms begin with them.

    Returns:
        None where another study is asked for.
    """
    added = tuple(seed for seed in asked.seeds if seed not in there.seeds)
    has_all = len(asked.seeds) - len(added) == len(there.seeds)
    if not has_all and (added or asked.settling is None):
        return None
    if there.metric != asked.metric or not _is_same_training(there, asked):
        return None
    if not _has_arms(asked, there.arms):
        return None
    if not _is_same_tuning(there, asked):
        return None
    arms = _joined_arms(there, asked)
    tuning_seeds = there.tuning_seeds or asked.tuning_seeds
    settling = asked.settling or there.settling
    plan = replace(there, arms=arms, tuning_seeds=tuning_seeds, settling=settling)
    plan = replace(plan, margin=asked.margin or there.margin)
    if added:
        plan = replace(plan, arms=tuple(replace(arm, seeds=None) for arm in arms))
        plan = replace(_grown(plan, added), command=asked.command)
    elif len(arms) > len(there.arms):
        plan = replace(plan.with_cells(), command=asked.command)
    return plan


def difference(there: Plan, here: Plan) -> str:
    """In what two plans differ that are not of one study, in a few words."""
    if there.metric != here.metric:
        return f"it is judged by {there.metric!r:.80} there, by {here.metric!r:.80} here"
    settings, others = _settings(there), _settings(here)
    for name, value in settings.items():
        if value != (other := others[name]) and name not in NOT_HASHED:
            return f"{name} {value!r:.80} there, {other!r:.80} here"
    if lacking := [arm.name for arm in there.arms if not _find(here, arm.name)]:
        return (
            f"it has {', '.join(lacking[:4])}{' and others' * (len(lacking) > 4)}, not asked for "
            "here; to add arms to it, name those that it has too"
        )
    for arm in there.arms:
        if text := _arm_difference(arm, here.arm(arm.name)):
            return f"arm {arm.name} {text}"
    for what, seeds, asked in (
        ("seeds", there.seeds, here.seeds),
        ("tuning seeds", there.tuning_seeds, here.tuning_seeds),
    ):
        if seeds != asked:
            return f"{what} {list(seeds)!r:.80} there, {list(asked)!r:.80} here"
    return f"processes per run {there.processes_per_run} there, {here.processes_per_run} here"


def _arm_difference(there: Arm, here: Arm) -> str:
    own, others = _requested(there), _requested(here)
    if own == others:
        return ""
    if own.kind != others.kind:
        return f"is {own.kind} there, {others.kind} here"
    for name in sorted({*own.overrides, *others.overrides}):
        value, other = (arm.overrides.get(name, "unset") for arm in (own, others))
        if value != other:
            return f"has {name} {value!r:.40} there, {other!r:.40} here"
    return "is made from other arms there"


def _is_same_training(there: Plan, asked: Plan) -> bool:
    """Whether the runs of two plans share their settings, those aside that change no run."""
    return there.hash_of(_settings(there)) == asked.hash_of(_settings(asked))


def _settings(plan: Plan) -> dict[str, Any]:
    """The settings that the runs of a plan share, those of flags that are newer among them."""
    return to_mapping(from_mapping(plan.config, plan.name), leave_out=NOT_RECORDED)


def _has_arms(asked: Plan, arms: Collection[Arm]) -> bool:
    """Whether a plan asks for arms again; their seeds and selections aside."""
    found = {arm.name: _requested(arm) for arm in asked.arms}
    return all(found.get(arm.name) == _requested(arm) for arm in arms)


def _requested(arm: Arm) -> Arm:
    """An arm as it was asked for: without what the study has made of it."""
    arm = replace(arm, seeds=None, is_added=False)
    return replace(arm, overrides={}, selection=None) if arm.selected_from else arm


def _is_same_tuning(there: Plan, asked: Plan) -> bool:
    """Whether the seeds of the tuning are those that are asked for.

    Where they are asked for as those of all arms, they are those of the arms at some time.
    """
    if not there.tuning_seeds or not asked.tuning_seeds:
        return True  # the arms tell
    if asked.tuning_seeds == asked.seeds:
        times = (*there.stages, len(there.seeds))
        return there.tuning_seeds in [there.seeds[:time] for time in times]
    return asked.tuning_seeds == there.tuning_seeds


def _joined_arms(there: Plan, asked: Plan) -> tuple[Arm, ...]:
    """The arms of a study with those that it lacks, in the order in which they are asked for."""
    if len(asked.arms) == len(there.arms):
        return there.arms
    has_own = asked.settling is not None and set(asked.seeds) != set(there.seeds)
    first = asked.seeds if has_own else None
    seeds = {arm.name: first if arm.is_judged else None for arm in asked.arms}
    seeds |= {arm.name: arm.seeds for arm in there.arms}
    return tuple(
        _find(there, arm.name) or replace(arm, seeds=seeds[arm.follows or arm.name], is_added=True)
        for arm in asked.arms
    )


def _find(plan: Plan, name: str) -> Arm | None:
    return next((arm for arm in plan.arms if arm.name == name), None)


def with_next_seeds(plan: Plan, open_arms: Collection[str], number: int) -> Plan:
    """The plan with further seeds for some arms, and for the arms that these are compared with.

    Args:
        plan: of a study that is to be settled.
        open_arms: names of the judged arms that are not settled; the others keep the seeds that
            they have.
        number: of seeds to add to each, as far as there are to be so many.
    """
    assert plan.settling is not None
    new, added = itertools.count(max(plan.seeds) + 1), list[int]()
    seeds: dict[str, tuple[int, ...]] = {}
    for arm in plan.arms:
        if not arm.is_judged:
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
    """An arm with its own seeds; an equivalent one has those of the arm that it follows."""
    own = seeds.get(arm.follows or arm.name)
    has_all = not own or set(own) == set(plan.seeds)
    return replace(arm, seeds=None if has_all else own)
