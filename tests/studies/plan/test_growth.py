"""How plans grow: seeds of arms of their own, in memory and in plan.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.growth import merge, with_next_seeds
from softmax_gradient_tampering.studies.plan.plan import Plan, Settling
from softmax_gradient_tampering.studies.plan.plan_file import read_plan, to_json
from tests.studies.studies import plan_of

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
