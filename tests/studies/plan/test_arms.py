"""Arms of any flags: how they are asked for, what they are, and what is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.plan.plan import Plan
from softmax_gradient_tampering.studies.plan.plan_file import read_plan, to_json
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import create_study
from tests.studies.studies import TRAINING, plan_of

SMOOTH = ("--arm", "smooth: smoothing=0.1")
NAMED = (*SMOOTH, "--arm", "half: modify-softmax=0.5 opt=adamw lr=1e-3")


def differences(plan: Plan, name: str, other: str = "alpha-1") -> dict[str, Any]:
    """The settings in which one arm differs from another."""
    own, others = (vars(plan.config_of(plan.arm(each), 0)) for each in (name, other))
    return {key: value for key, value in own.items() if value != others[key]}


def test_an_arm_has_its_flags_and_the_rest_is_the_studys() -> None:
    plan = plan_of(
        *NAMED,
        *("--arm", "mixed: mixup=0.2 mixup_prob=0.5 scale=0.5,1 channels-last=false"),
        *("--arm", "falling: modify_softmax=1 alpha-schedule=linear alpha-end=0.25"),
        *("--seeds", "2"),
    )
    assert [(arm.name, arm.kind, arm.alpha) for arm in plan.arms] == [
        ("alpha-1", "baseline", 1.0),
        ("smooth", "ordinary", 1.0),
        ("half", "tampered", 0.5),
        ("mixed", "ordinary", 1.0),
        ("falling", "scheduled", 1.0),
    ]
    assert differences(plan, "smooth") == {"smoothing": 0.1}
    assert differences(plan, "half") == {"modify_softmax": 0.5, "opt": "adamw", "lr": 1e-3}
    mixed = {"mixup": 0.2, "mixup_prob": 0.5, "scale": (0.5, 1.0), "channels_last": False}
    assert differences(plan, "mixed") == mixed
    assert differences(plan, "falling") == {"alpha_schedule": "linear", "alpha_end": 0.25}
    assert [arm.logit_scale for arm in plan.arms] == [1.0, 1.0, 0.5, 1.0, 0.25]
    assert len({cell.id for cell in plan.cells}) == len(plan.cells) == 10


def test_what_the_plateau_schedule_is_led_by_makes_an_arm() -> None:
    arms = ("--arm", "best: eval-metric=loss", "--arm", "rare: eval-every=2", "--seeds", "1")
    plan = plan_of(*arms, training=(*TRAINING, "--sched", "plateau"))
    assert [arm.name for arm in plan.arms] == ["alpha-1", "best", "rare"]


def test_arms_and_alphas_go_together() -> None:
    plan = plan_of("--alphas", "1", "0.25", *SMOOTH, "--seeds", "1")
    assert [arm.name for arm in plan.arms] == ["alpha-1", "alpha-0.25", "smooth"]
    plain = plan_of("--alphas", "1", "0.25", "--seeds", "1")
    assert plan.cells_of("alpha-1", "alpha-0.25") == list(plain.cells)


def test_alphas_and_controls_have_the_other_flags_of_the_baseline() -> None:
    plan = plan_of(
        *("--alphas", "0.5", *NAMED, "--baseline", "smooth"),
        *("--controls", "equivalent", "tuned", "--grid", "lr=0.05,0.1", "--seeds", "1"),
        *("--alpha-schedules", "linear:1:0.25"),
    )
    assert plan.baseline is not None
    assert plan.baseline.name == "smooth"
    assert differences(plan, "alpha-0.5", "smooth") == {"modify_softmax": 0.5}
    assert differences(plan, "equivalent-0.5", "smooth") == {"equivalent_to": 0.5}
    # An arm of flags has its own, and so has the control that must coincide with it.
    assert differences(plan, "equivalent-half", "half") == {
        "modify_softmax": 1.0,
        "equivalent_to": 0.5,
    }
    assert {arm.name: arm.follows for arm in plan.arms if arm.follows} == {
        "equivalent-0.5": "alpha-0.5",
        "equivalent-half": "half",
    }
    assert differences(plan, "linear-1-to-0.25", "smooth") == {
        "alpha_schedule": "linear",
        "alpha_end": 0.25,
    }
    assert differences(plan, "tuning-lr-0.1", "smooth") == {"lr": 0.1, "holdout": 0.2}
    assert differences(plan, "tuned", "smooth") == {}


def test_any_arm_can_be_the_baseline() -> None:
    plan = plan_of("--arm", "plain:", *NAMED, "--baseline", "half", "--seeds", "1")
    assert [(arm.name, arm.kind) for arm in plan.arms] == [
        ("plain", "ordinary"),
        ("smooth", "ordinary"),
        ("half", "baseline"),
    ]
    assert plan.arm("half").logit_scale == 0.5
    plan = plan_of("--alphas", "1", "0.5", "--baseline", "alpha-0.5", "--seeds", "1")
    assert [arm.kind for arm in plan.arms] == ["ordinary", "baseline"]


def test_a_plan_of_arms_is_read_as_it_was_written() -> None:
    plan = plan_of(*NAMED, "--controls", "equivalent", "--seeds", "2")
    path = Path("plan.json")
    path.write_text(to_json(plan))
    assert read_plan(path) == plan
    assert to_json(read_plan(path)) == path.read_text()


def test_an_older_plan_does_not_say_which_arm_an_equivalent_one_follows() -> None:
    plan = plan_of("--alphas", "1", "0.5", "0.25", "--controls", "equivalent", "--seeds", "2")
    content = json.loads(to_json(plan))
    for arm in content["arms"]:
        arm.pop("follows", None)
    Path("plan.json").write_text(json.dumps(content))
    assert read_plan(Path("plan.json")) == plan


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda arms: arms[1].update(kind="baseline"), "more than one baseline"),
        (lambda arms: arms[3].update(follows="smooth"), "follows what is no tampered arm"),
        (lambda arms: arms[1].update(follows="half"), "follows what is no tampered arm"),
        (lambda arms: arms[1].update(is_added="yes"), "is_added must be true, not 'yes'"),
        (lambda arms: arms[1].update(follows=3), "follows must be text"),
    ],
)
def test_an_edited_arm_is_refused(edit: Any, message: str) -> None:
    plan = plan_of(*NAMED, "--controls", "equivalent", "--seeds", "1")
    content = json.loads(to_json(plan))
    edit(content["arms"])
    Path("plan.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match=rf"plan\.json: not a plan .*{message}"):
        read_plan(Path("plan.json"))


STUDY_FILE = """
name: small
seeds: 1
baseline: smooth
arms:
  smooth: {smoothing: 0.1}
  half:
    modify-softmax: 0.5
    opt: adamw
    lr: 1e-3
  wide: {scale: [0.5, 1], channels_last: true, aa: rand m9}
  plain:
train: {epochs: 1, batch-size: 256, model: digits_mlp_plain, lr: 0.02}
"""


def test_a_study_file_says_the_same() -> None:
    Path("study.yaml").write_text(STUDY_FILE)
    words = (
        *NAMED,
        *("--arm", "wide: scale=0.5,1 channels-last=true 'aa=rand m9'", "--arm", "plain:"),
        *("--baseline", "smooth", "--seeds", "1"),
    )
    plan, expected = parse_run(["--config", "study.yaml"]).plan, plan_of(*words)
    assert (plan.arms, plan.cells) == (expected.arms, expected.cells)
    # Arms of the command line join those of the file, and take the place of one of their name.
    more = ("--arm", "smooth: smoothing=0.2", "--arm", "more: lr=0.5")
    joined = parse_run(["--config", "study.yaml", *more]).plan
    assert [arm.name for arm in joined.arms] == ["smooth", "half", "wide", "plain", "more"]
    assert differences(joined, "smooth", "plain") == {"smoothing": 0.2}


MISTAKES = {
    "smooth": "--arm smooth: expected NAME: FLAG=VALUE",
    "smooth: smoothing": "expected FLAG=VALUE, got smoothing; a switch is FLAG=true",
    "smooth: smoothing=0.1, 0.2": "expected FLAG=VALUE, got 0.2",
    "smooth: lr=1 lr=2": "lr appears twice",
    "smooth: batch-size=1 batch_size=2": "--arm smooth: .*: batch_size appears twice",
    "smooth: aa='rand": "a quotation mark has no other one",
    "smooth: smoothng=0.1": r"--arm smooth: smoothng: there is no such flag; did you mean smooth",
    "smooth: smoothing=much": "--arm smooth: .*invalid float value: 'much'",
    "smooth: smoothing=2": r"--arm smooth: --smoothing 2\.0: must be from 0 to 1",
    "smooth: scale=1,0.5": r"--arm smooth: --scale 1\.0 0\.5: the smaller one first",
    "smooth: scale=1": "--arm smooth: argument --scale: expected 2 arguments",
    "smooth: amp=yes": "--arm smooth: --amp: expected true or false, got 'yes'",
    "smooth: jsd=true aug-splits=3": "--arm smooth: --jsd with --modify-softmax 1.0: .*use one",
    "smooth: seed=3": "--arm smooth: seed: not in an arm; --seeds sets it",
    "smooth: output=elsewhere": "output: not in an arm; give the study's own --output",
    "smooth: data-dir=elsewhere": "data-dir: not in an arm; arms are compared on the same data",
    "smooth: cifar=10": "cifar: not in an arm; arms are compared on the same data",
    "smooth: equivalent-to=0.5": "equivalent-to: not in an arm; --controls equivalent sets it",
    "smooth: modify-softmax=-1": "--arm smooth: --modify-softmax -1: must be a finite number above",
    "smooth: modify-softmax=nan": "--arm smooth: --modify-softmax nan: must be a finite number",
    "smooth: alpha-end=0.5": "--arm smooth: --alpha-end 0.5 needs --alpha-schedule",
    "smooth: config=x.yaml": "config: not in an arm; give it after --, for all runs",
    "smooth: recipe=x": "recipe: not in an arm; give it after --, for all runs",
    "smooth: scale=0.1,0.5,1": "--arm smooth: --scale 0.1,0.5,1: 3 values, where there are to be 2",
    "smooth: smoothing=0.1,0.2": "--smoothing 0.1,0.2: 2 values, where there are to be 1",
    "plain:": "--arm plain: has the same flags as alpha-1; leave one out",
    "plain: lr=0.02": "--arm plain: has the same flags as alpha-1; leave one out",
    "plain: workers=3": "--arm plain: differs from alpha-1 in nothing that changes the weights",
    "ema: model-ema=true": "--arm ema: differs from alpha-1 in nothing that changes the weights",
    "best: eval-metric=loss": "--arm best: differs from alpha-1 in nothing that changes the weight",
    "rare: eval-every=2": "--arm rare: differs from alpha-1 in nothing that changes the weights",
    "pin: pin-mem=false": "--arm pin: differs from alpha-1 in nothing that changes the weights",
    "tuned: lr=0.1": "--arm tuned: the study gives such a name to arms of its own",
    "alpha-0.3: lr=0.1": "--arm alpha-0.3: the study gives such a name",
    "a/b: lr=0.1": "--arm 'a/b': an arm's name has letters",
    ": lr=0.1": "--arm '': an arm's name has letters",
    f"{'a' * 61}: lr=0.1": "at most 60 of them",
}
FURTHER_MISTAKES = (
    ((*SMOOTH, "--arm", "smooth: lr=1"), "--arm smooth: two arms have this name"),
    ((*SMOOTH, "--arm", "b: smoothing=1e-1"), "--arm b: has the same flags as smooth; leave one"),
    ((*SMOOTH, "--baseline", "smoth"), "--baseline smoth: no such arm; there are smooth"),
    (("--baseline", "smooth"), r"--baseline smooth: no such arm; there are alpha-1, alpha-0\.25"),
    ((*SMOOTH, "--alphas", "0.5"), r"--alphas 0\.5: 1 is missing, .*--baseline"),
    (
        (*SMOOTH, "--alphas", "1", "--baseline", "smooth"),
        "--arm smooth: has the same flags as alpha-1; leave one out; --alphas have the other",
    ),
    (
        ("--alphas", "1", "0.5", "--arm", "0.5: modify-softmax=0.25", "--controls", "equivalent"),
        r"--arm 0\.5: another arm's equivalent is equivalent-0\.5 too; choose another name",
    ),
    ((*SMOOTH, "--controls", "equivalent"), "no alpha but 1 to be equivalent to"),
    (("--arm", "x:", "--baseline", "x", "--until-settled"), "no arm but the baseline, nothing to"),
)


@pytest.mark.parametrize(
    ("words", "message"),
    [*((("--arm", arm), message) for arm, message in MISTAKES.items()), *FURTHER_MISTAKES],
)
def test_a_mistake_in_an_arm_is_one_line_and_nothing_is_touched(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create_study(Path("studies/small"), plan_of("--seeds", "2"))
    before = Path("studies/small/plan.json").read_bytes()
    argv = ["study", "run", "--name", "small", "--output", "studies", *words, "--", *TRAINING]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert Path("studies/small/plan.json").read_bytes() == before
    assert [path.name for path in Path("studies").iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("3", "arms: expected `name:"),
        ("{a: 3}", "arms: a: expected `flag: value` lines, got 3"),
        ("{a: {lr: null}}", "arms: a: lr: expected a value, got None"),
        ("{a: {lr: {b: 1}}}", "arms: a: lr: expected a value"),
        ("{a: {lrr: 1}}", "--arm a: lrr: there is no such flag; did you mean lr"),
    ],
)
def test_a_mistake_in_the_arms_of_a_study_file_is_one_line(
    arms: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("study.yaml").write_text(f"name: small\narms: {arms}\n")
    assert main(["study", "run", "--config", "study.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
