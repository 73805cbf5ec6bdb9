"""How plans grow: seeds of arms of their own, in memory and in plan.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.growth import difference, merge, with_next_seeds
from softmax_gradient_tampering.studies.plan.plan import Plan, Settling
from softmax_gradient_tampering.studies.plan.plan_file import read_plan, to_json
from tests.studies.studies import EVERYTHING, TRAINING, plan_of

ARMS = ("--alphas", "1", "0.5", "0.25", "--controls", "equivalent")
SETTLED = (*ARMS, "--until-settled", "--max-seeds", "8")


def seeds(plan: Plan) -> dict[str, tuple[int, ...]]:
    found = {arm.name: plan.seeds_of(arm) for arm in plan.arms}
    cells: dict[str, list[int]] = {arm.name: [] for arm in plan.arms}
    for cell in plan.cells:
        cells[cell.arm].append(cell.seed)
    assert {name: set(own) for name, own in cells.items()} == {
        name: set(own) for name, own in found.items()
    }
    return found


def test_a_study_that_is_to_be_settled_begins_with_five_seeds() -> None:
    plan = plan_of(*SETTLED)
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert plan.settling == Settling(8, 0.5)
    assert plan_of(*ARMS, "--until-settled", "--max-seeds", "3").seeds == (0, 1, 2)
    assert plan_of(*ARMS, "--until-settled", "--seeds", "3,9").seeds == (3, 9)


def test_open_arms_get_seeds_and_the_baseline_has_all() -> None:
    plan = plan_of(*SETTLED)
    grown = with_next_seeds(plan, ["alpha-0.25"], 2)
    assert seeds(grown) == {
        "alpha-1": (*range(7),),
        "alpha-0.5": (*range(5),),
        "alpha-0.25": (*range(7),),
        "equivalent-0.5": (*range(5),),
        "equivalent-0.25": (*range(7),),
    }
    assert grown.stages == (5,)
    # An arm that opens again has first the seeds that the baseline has already.
    again = with_next_seeds(grown, ["alpha-0.5"], 3)
    assert seeds(again)["alpha-0.5"] == (*range(8),)
    assert seeds(again)["alpha-0.25"] == (*range(7),)
    assert again.stages == (5, 7)


def test_no_arm_gets_more_than_the_most() -> None:
    plan = with_next_seeds(plan_of(*SETTLED), ["alpha-0.25", "alpha-0.5"], 99)
    assert plan.seeds == (*range(8),)
    assert all(arm.seeds is None for arm in plan.arms)
    assert with_next_seeds(plan, ["alpha-0.25"], 1) == plan
    assert with_next_seeds(plan_of(*SETTLED), [], 1) == plan_of(*SETTLED)


def test_a_grown_plan_is_read_as_it_was_written() -> None:
    plan = with_next_seeds(plan_of(*SETTLED), ["alpha-0.25"], 2)
    path = Path("plan.json")
    path.write_text(to_json(plan))
    assert read_plan(path) == plan
    content = json.loads(path.read_text())
    assert content["settling"] == {"max_seeds": 8, "margin": 0.5}
    assert ["seeds" in arm for arm in content["arms"]] == [False, True, False, True, False]


def test_a_plan_of_fixed_seeds_is_written_as_before() -> None:
    content = json.loads(to_json(plan_of(*ARMS)))
    assert not {"settling", "stages"} & set(content)
    assert not any("seeds" in arm for arm in content["arms"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plan: plan.update(settling=3), "settling must be a mapping, not 3"),
        (lambda plan: plan.update(settling={}), "settling.max_seeds is missing"),
        (lambda plan: plan["settling"].update(margin=-1), "settling.margin must be a finite"),
        (lambda plan: plan["settling"].update(max_seeds=0.5), "settling.max_seeds must be a whole"),
        (lambda plan: plan["arms"][1].update(seeds=[0, 0]), "seeds of arm .* stands there twice"),
        (lambda plan: plan["arms"][1].update(seeds=[77]), "has seeds that the study has not"),
        (lambda plan: plan["arms"][1].update(seeds=[0]), "has cells of other seeds"),
        (lambda plan: plan["arms"][1].pop("seeds"), "has cells of other seeds"),
    ],
)
def test_an_edited_growth_is_refused(edit: Any, message: str) -> None:
    content = json.loads(to_json(with_next_seeds(plan_of(*SETTLED), ["alpha-0.25"], 2)))
    edit(content)
    Path("plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"plan\.json: not a plan .*{message}"):
        read_plan(Path("plan.json"))


def test_the_same_request_finds_the_study_that_it_has_become() -> None:
    asked = plan_of(*SETTLED)
    grown = with_next_seeds(asked, ["alpha-0.25"], 2)
    assert merge(grown, asked) == grown
    more = plan_of(*ARMS, "--until-settled", "--max-seeds", "20", "--margin", "0.1")
    assert merge(grown, more) == replace(grown, settling=Settling(20, 0.1))
    assert merge(grown, plan_of(*ARMS, "--seeds", "5")) is None  # fewer, and not to be settled
    assert merge(grown, plan_of(*SETTLED, "--seeds", "3,99")) is None


def test_seeds_that_are_asked_for_are_for_all_arms() -> None:
    grown = with_next_seeds(plan_of(*SETTLED), ["alpha-0.25"], 2)
    merged = merge(grown, plan_of(*ARMS, "--seeds", "9"))
    assert merged is not None
    assert set(seeds(merged).values()) == {(*range(9),)}
    assert merged.stages == (5, 7)
    assert merged.is_sequential


def test_a_study_of_fixed_seeds_that_is_to_be_settled_is_sequential() -> None:
    fixed = plan_of(*ARMS, "--seeds", "6", "--controls", "tuned", "--grid", "lr=0.1")
    assert not fixed.is_sequential
    merged = merge(fixed, plan_of(*SETTLED, "--controls", "tuned", "--grid", "lr=0.1"))
    assert merged is not None
    assert merged.is_sequential
    assert merged.cells == fixed.cells
    assert merged.tuning_seeds == fixed.tuning_seeds == (*range(6),)


def names(plan: Plan) -> list[str]:
    return [arm.name for arm in plan.arms]


def merged(there: Plan, *words: str) -> Plan:
    plan = merge(there, plan_of(*words))
    assert plan is not None
    return plan


def test_arms_alphas_and_controls_are_added_and_no_run_is_another() -> None:
    first = plan_of("--alphas", "1", "0.5", "--seeds", "2")
    smooth = ("--arm", "smooth: smoothing=0.1")
    grown = merged(
        first,
        *("--alphas", "1", "0.25", "0.5", *smooth, "--seeds", "2"),
        *("--controls", "equivalent", "tuned", "--grid", "lr=0.1"),
    )
    assert names(grown)[:4] == ["alpha-1", "alpha-0.25", "alpha-0.5", "smooth"]
    added = {arm.name for arm in grown.arms if arm.is_added}
    assert added == {*names(grown)} - {"alpha-1", "alpha-0.5"}
    assert set(first.cells) < set(grown.cells)
    assert seeds(grown.only(names(grown)[:6])) == dict.fromkeys(names(grown)[:6], (0, 1))
    assert grown.tuning_seeds == (0, 1)
    assert not grown.is_sequential
    assert grown.command != first.command
    # What is asked for again is there; what is there must be asked for again.
    assert merge(grown, first) is None
    again = plan_of(
        *("--alphas", "1", "0.5", "0.25", *smooth, "--seeds", "2"),
        *("--controls", "equivalent", "tuned", "--grid", "lr=0.1"),
    )
    assert merge(grown, again) == grown


def test_arms_and_seeds_are_added_at_once() -> None:
    first = plan_of("--alphas", "1", "0.5", "--seeds", "2")
    grown = merged(first, "--alphas", "1", "0.5", "--arm", "adam: opt=adamw", "--seeds", "4")
    assert seeds(grown) == dict.fromkeys(("alpha-1", "alpha-0.5", "adam"), (0, 1, 2, 3))
    assert grown.stages == (2,)
    assert set(first.cells) < set(grown.cells)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--alphas", "1"), "it has smooth, not asked for here; to add arms to it, name those"),
        (
            ("--alphas", "1", "--arm", "smooth: smoothing=0.2"),
            "arm smooth has smoothing 0.1 there, 0.2 here",
        ),
        (
            ("--alphas", "0.5", "--arm", "smooth: smoothing=0.1", "--baseline", "smooth"),
            "it has alpha-1, not asked for here",
        ),
        (
            *(("--alphas", "1", "--arm", "plain: lr=1", "--arm", "smooth: smoothing=0.1"),),
            "",
        ),
    ],
)
def test_another_study_of_arms_is_told_by_what_differs(
    words: tuple[str, ...], message: str
) -> None:
    there = plan_of("--arm", "smooth: smoothing=0.1", "--seeds", "2")
    asked = plan_of(*words, "--seeds", "2")
    assert (merge(there, asked) is None) == bool(message)
    assert not message or message in difference(there, asked)


def test_a_flag_that_is_newer_than_a_plan_is_no_difference() -> None:
    there = plan_of("--seeds", "2")
    older = {name: value for name, value in there.config.items() if name != "on_bad_image"}
    there = replace(there, config=older)
    assert merge(there, plan_of("--seeds", "2")) == there
    asked = plan_of("--seeds", "2", training=(*TRAINING, "--weight-decay", "0.5"))
    assert merge(there, asked) is None
    assert difference(there, asked).startswith("weight_decay ")


def test_another_baseline_is_another_study() -> None:
    there = plan_of("--alphas", "1", "0.5", "--seeds", "2")
    asked = plan_of("--alphas", "1", "0.5", "--baseline", "alpha-0.5", "--seeds", "2")
    assert merge(there, asked) is None
    assert difference(there, asked) == "arm alpha-1 is baseline there, ordinary here"


def test_an_arm_that_joins_a_settled_study_begins_where_the_others_did() -> None:
    grown = with_next_seeds(plan_of(*SETTLED), ["alpha-0.25"], 2)
    asked = (*SETTLED, "--arm", "half: modify-softmax=0.5 lr=0.5", "--arm", "adam: opt=adamw")
    joined = merged(grown, *asked)
    assert seeds(joined) == {
        **seeds(grown),
        **dict.fromkeys(("half", "equivalent-half", "adam"), (0, 1, 2, 3, 4)),
    }
    assert set(grown.cells) < set(joined.cells)
    again = with_next_seeds(joined, ["half"], 1)
    assert seeds(again)["half"] == seeds(again)["equivalent-half"] == (0, 1, 2, 3, 4, 5)
    assert seeds(again)["adam"] == (0, 1, 2, 3, 4)


def test_a_control_that_is_added_later_has_the_seeds_of_the_arm_that_it_follows() -> None:
    plain = ("--alphas", "1", "0.5", "0.25", "--until-settled", "--max-seeds", "8")
    grown = with_next_seeds(plan_of(*plain), ["alpha-0.25"], 2)
    joined = merged(grown, *plain, "--controls", "equivalent")
    assert seeds(joined)["equivalent-0.25"] == (*range(7),)
    assert seeds(joined)["equivalent-0.5"] == (*range(5),)


def test_a_tuned_study_that_has_grown_is_found_again() -> None:
    words = ("--controls", "tuned", "--grid", "lr=0.1,0.2")
    first = plan_of("--seeds", "2", *words)
    grown = merged(first, "--seeds", "4", *words)
    assert grown.tuning_seeds == (0, 1)
    assert merge(grown, plan_of("--seeds", "4", *words)) == grown
    assert merge(grown, plan_of("--seeds", "4", *words, "--tuning-seeds", "3")) is None
    assert merge(grown, plan_of("--seeds", "4", "--controls", "tuned", "--grid", "lr=0.1")) is None
    more = plan_of("--seeds", "4", "--controls", "tuned", "--grid", "lr=0.1,0.2,0.3")
    assert merge(grown, more) is None


def test_cells_of_a_plan_that_lacks_a_newer_flag_keep_their_ids() -> None:
    """An id is a hash of all flags: a program with one flag more would make another one."""
    older = plan_of("--alphas", "1", "0.5", "--seeds", "2")
    ids = {cell: f"older-{number}" for number, cell in enumerate(older.cells)}
    older = replace(older, cells=tuple(replace(cell, id=ids[cell]) for cell in older.cells))
    grown = merged(older, "--alphas", "1", "0.5", "--arm", "adam: opt=adamw", "--seeds", "3")
    assert set(older.cells) < set(grown.cells)
    assert len({cell.id for cell in grown.cells}) == 9


GOLDEN = Path(__file__).parent / "golden"
SMOOTH = ("--arm", "smooth: smoothing=0.1")


@pytest.mark.parametrize(
    ("name", "words"),
    [("plan-of-alphas", EVERYTHING), ("plan-being-settled", SETTLED)],
)
def test_a_plan_of_the_time_of_alphas_alone_is_found_and_grows(
    name: str, words: tuple[str, ...]
) -> None:
    """As they were written before there were other arms; no id of a cell may change."""
    there = read_plan(GOLDEN / f"{name}.json")
    assert merged(there, *words) == there
    grown = merged(there, *words, *SMOOTH, "--arm", "half: modify-softmax=0.5 lr=0.5")
    added = {"smooth", "half", "equivalent-half"}
    assert {arm.name for arm in grown.arms if arm.is_added} == added
    old = [cell for cell in grown.cells if cell.arm not in added]
    assert sorted(old, key=str) == sorted(there.cells, key=str)
