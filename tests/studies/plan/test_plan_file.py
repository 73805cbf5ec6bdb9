"""plan.json: what is written is read, and what was edited is refused."""

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan_file import read_plan, to_json
from softmax_gradient_tampering.studies.results.study_folder import create_study, open_study
from tests.studies.studies import EVERYTHING, plan_of

CHOSEN = {
    "metric": "top1",
    "table": [{"overrides": {"lr": 0.05}, "mean_top1": 90.0, "mean_loss": None, "n": 2}],
    "chosen": {"lr": 0.05},
}


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = plan_of(*EVERYTHING)
    for written in (plan, plan.with_selection("tuned", CHOSEN)):
        path = Path("plan.json")
        path.write_text(to_json(written))
        assert read_plan(path) == written
        assert to_json(read_plan(path)) == path.read_text()
        content = json.loads(path.read_text())
        assert content["format"] == 1
        assert content["command"][:3] == ["sgt", "study", "run"]
        (arm,) = (arm for arm in content["arms"] if arm["kind"] == "tuned")
        assert ("selection" in arm) == (written is not plan)
        assert {"id", "arm", "seed"} == set(content["cells"][0])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "arms": 3}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    Path("plan.json").write_text(text)
    with pytest.raises(UserError, match=r"plan\.json: (not a plan|cannot be read)"):
        read_plan(Path("plan.json"))


def _share_an_id(plan: dict[str, Any]) -> None:
    plan["cells"][1]["id"] = plan["cells"][0]["id"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plan: plan.update(format=2), "of format 1 .format: 2"),
        (lambda plan: plan.update(arms="x"), "arms must be a list"),
        (
            lambda plan: plan["arms"][0]["overrides"].update(class_weights="plan.json"),
            "names a file in class_weights",
        ),
        (
            lambda plan: plan["config"].update(class_weights='{"cat": -1}'),
            "the weight -1 must be a finite number",
        ),
        (lambda plan: plan["arms"][0].update(kind="magic"), "kind must be one of .* not 'magic'"),
        (
            lambda plan: plan["arms"][0].update(alpha=math.nan),
            "alpha must be a finite number",
        ),
        (lambda plan: plan["arms"][0].update(overrides={"lrr": 1}), "unknown key 'lrr'"),
        (lambda plan: plan["arms"][0].update(kind="tuned"), "is not tuned by"),
        (lambda plan: plan["config"].update(epochs="many"), "epochs: expected int"),
        (lambda plan: plan.update(seeds=["0"]), "seeds must be a list of a whole number"),
        (lambda plan: plan["cells"][1].update(id="../../elsewhere"), "id must be a folder's name"),
        (lambda plan: plan["cells"][1].update(arm="none"), "an arm 'none' that is not among"),
        (lambda plan: plan["cells"][1].pop("arm"), "cells.1.arm is missing"),
        (lambda plan: plan["cells"].append(plan["cells"][0]), "cells .* stands there twice"),
        (_share_an_id, "two cells of different settings have the id"),
        (lambda plan: plan["cells"].pop(), "cells of other seeds than the study"),
        (lambda plan: plan.update(arms=[], cells=[]), "no arms"),
        (lambda plan: plan.update(seeds=[], cells=[]), "no seeds"),
    ],
)
def test_an_edited_plan_is_refused_before_anything_is_read_by_it(
    edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    study = create_study(Path("studies/small"), plan_of("--seeds", "2"))
    path = study.path / "plan.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        open_study(study.path)
    assert re.search(rf"plan\.json: not a plan .*{message}", str(caught.value)), caught.value


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value inside a value."""
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    for key in keys:
        yield (*way, key)
        yield from _places(value[key], (*way, key))


WRONG: tuple[Any, ...] = (
    *(None, True, "x", -1, 0.5, 10**400, math.nan, "../x"),
    *([], {}, [[]], [{}]),
)


def test_no_value_is_trusted() -> None:
    """Whatever stands in the place of a value: the plan is read, or refused in one line."""
    plan = plan_of(
        "--seeds", "1", "--controls", "tuned", "--grid", "lr=0.05", "--tuning-seeds", "1"
    )
    content = json.loads(to_json(plan.with_selection("tuned", CHOSEN)))
    path = Path("plan.json")
    refused: list[str] = []
    places = [way for way in _places(content) if way[0] != "config" or len(way) == 1]
    for way in places:
        for wrong in WRONG:
            edited = copy.deepcopy(content)
            inner = edited
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = wrong
            path.write_text(json.dumps(edited))
            try:
                read_plan(path)
            except UserError as error:
                refused.append(str(error))
    assert len(refused) > 8 * len(places)
    assert "\n" not in "".join(refused)
