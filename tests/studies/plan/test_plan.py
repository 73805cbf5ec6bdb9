"""Plans: arms, cells and their ids, plan.json, and what is no study."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan_file import read_plan
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import create_study
from tests.studies.studies import EVERYTHING, plan_of


def test_the_arms_are_what_was_asked_for() -> None:
    plan = plan_of(*EVERYTHING)
    assert [(arm.name, arm.kind, arm.alpha) for arm in plan.arms] == [
        ("alpha-1", "baseline", 1.0),
        ("alpha-0.25", "tampered", 0.25),
        ("alpha-0.3", "tampered", 0.3),
        ("equivalent-0.25", "equivalent", 0.25),
        ("equivalent-0.3", "equivalent", 0.3),
        ("linear-1-to-0.25", "scheduled", 1.0),
        ("cosine-0.5-to-0.1", "scheduled", 0.5),
        ("tuned", "tuned", 1.0),
        ("tuning-lr-0.05-weight_decay-0.0005", "tuning", 1.0),
        ("tuning-lr-0.05-weight_decay-0.02", "tuning", 1.0),
        ("tuning-lr-0.1-weight_decay-0.0005", "tuning", 1.0),
        ("tuning-lr-0.1-weight_decay-0.02", "tuning", 1.0),
    ]
    cosine, tuned = plan.arm("cosine-0.5-to-0.1"), plan.arm("tuned")
    assert (cosine.alpha_schedule, cosine.alpha_end) == ("cosine", 0.1)
    assert tuned.is_waiting
    assert tuned.selected_from == tuple(arm.name for arm in plan.arms[-4:])
    # Four tuning runs, then seven arms of two seeds; none yet of the tuned arm.
    assert [cell.seed for cell in plan.cells] == [0] * 4 + [3] * 7 + [5] * 7
    assert "tuned" not in {cell.arm for cell in plan.cells}
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)


def test_a_cell_differs_from_the_others_of_its_seed_in_its_arms_settings_alone() -> None:
    plan = plan_of(*EVERYTHING)
    configs = {(c.arm, c.seed): vars(plan.cell_config(c)) for c in plan.cells}
    baseline = configs["alpha-1", 3]
    assert (baseline["model"], baseline["epochs"]) == ("digits_mlp_plain", 1)
    assert baseline["save_predictions"]
    assert baseline["logit_stats"]

    def differences(arm: str, seed: int) -> dict[str, object]:
        config = configs[arm, seed]
        return {name: config[name] for name in config if config[name] != baseline[name]}

    assert differences("alpha-1", 5) == {"seed": 5}
    assert differences("alpha-0.25", 3) == {"modify_softmax": 0.25}
    assert differences("equivalent-0.25", 3) == {"equivalent_to": 0.25}
    assert differences("cosine-0.5-to-0.1", 3) == {
        "modify_softmax": 0.5,
        "alpha_schedule": "cosine",
        "alpha_end": 0.1,
    }
    expected = {"holdout": 0.3, "lr": 0.1, "weight_decay": 0.02, "seed": 0}
    assert differences("tuning-lr-0.1-weight_decay-0.02", 0) == expected


def test_an_id_is_of_what_is_computed_and_of_nothing_else() -> None:
    def ids(*training: str, words: tuple[str, ...] = ("--seeds", "2")) -> list[str]:
        return [cell.id for cell in plan_of(*words, training=training).cells]

    assert ids("--epochs", "2") == ids("--epochs", "2", "--workers", "3", "--per-line")
    assert not set(ids("--epochs", "2")) & set(ids("--epochs", "3"))
    two_processes = ids("--epochs", "2", words=("--seeds", "2", "--processes-per-run", "2"))
    assert not set(ids("--epochs", "2")) & set(two_processes)
    assert set(ids(words=("--seeds", "1"))) < set(ids(words=("--seeds", "2")))


def test_equal_configurations_are_one_cell() -> None:
    plan = plan_of("--controls", "tuned", "--grid", "lr=0.02", "--seeds", "2")
    tuned = plan.with_selection("tuned", {"metric": "", "table": [], "chosen": {"lr": 0.02}})
    ids = {
        name: [c.id for c in tuned.cells if c.arm == name]
        for name in ("alpha-1", "alpha-0.25", "tuned")
    }
    assert ids["tuned"] == ids["alpha-1"] != ids["alpha-0.25"]
    assert len(tuned.unique_cells()) == len(tuned.cells) - 2
    other = plan.with_selection("tuned", {"metric": "", "table": [], "chosen": {"lr": 0.5}})
    assert len(other.unique_cells()) == len(other.cells)
    assert [cell.id for cell in other.cells[: len(plan.cells)]] == [c.id for c in plan.cells]


def test_a_study_file_says_what_a_command_line_says() -> None:
    Path("study.yaml").write_text(
        """
name: small
alphas: [1, 0.25, 0.3]
seeds: [3, 5]
controls: [equivalent, tuned]
grid:
  lr: [0.05, 0.1]
  weight_decay: [5e-4, 2e-2]
tuning-seeds: 1
alpha_schedules: [linear:1:0.25, cosine:0.5:0.1]
holdout: 0.3
train:
  epochs: 1
  batch-size: 256
  model: digits_mlp_plain
  lr: 0.02
  channels_last: false
"""
    )
    plan = parse_run(["--config", "study.yaml"]).plan
    expected = plan_of(*EVERYTHING)
    config = {**expected.config, "channels_last": False}
    assert plan.config == config
    assert plan.arms == expected.arms
    assert plan.seeds == expected.seeds
    overridden = parse_run(["--config", "study.yaml", "--seeds", "2", "--", "--lr", "0.5"]).plan
    assert (overridden.seeds, overridden.config["lr"]) == ((0, 1), 0.5)


def test_a_recipe_is_taken_but_for_what_the_study_sets() -> None:
    recipe = ("--recipe", "resnet18/cosine-scheduler-alpha-0.25")
    plan = plan_of("--alphas", "1", "0.5", "--seeds", "1", training=recipe)
    baseline, tampered = (plan.cell_config(cell) for cell in plan.cells)
    assert (baseline.model, baseline.weight_decay) == ("resnet18", 5e-4)
    assert (baseline.modify_softmax, tampered.modify_softmax) == (1.0, 0.5)


MISTAKES = {
    "--seeds 0": "--seeds 0: no seeds",
    "--seeds 99999999999": "--seeds 99999999999: expected a number of seeds, .* up to 100,000",
    "--seeds ,": "--seeds ,: expected a number of seeds",
    "--seeds -2": "--seeds -2: expected a number of seeds",
    "--seeds 3,3": "--seeds 3,3: a seed stands there twice",
    "--seeds 3,-1": "--seeds -1: must be at least 0",
    "--seeds many": "--seeds many: expected a number of seeds",
    "--alphas 1 -0.5": r"--alphas -0\.5: must be a finite number above 0",
    "--alphas 1 nan": "--alphas nan: must be",
    "--alphas 1 0": "--alphas 0: must be",
    "--alphas 0.5": r"--alphas 0\.5: 1 is missing",
    "--alphas 1 0.5 0.5": r"alpha-0\.5 is asked for twice",
    "--alphas 1 half": "invalid float value: 'half'",
    "--controls equal": "--controls equal: there are equivalent and tuned",
    "--alphas 1 --controls equivalent": "no alpha but 1",
    "--controls tuned": "--controls tuned needs --grid",
    "--grid lr=0.1": "--grid belongs to the tuned baseline",
    "--controls tuned --grid lrr=0.1": r"--grid lrr: there is no such flag; did you mean lr\?",
    "--controls tuned --grid lr": "--grid lr: expected FLAG=VALUE,VALUE",
    "--controls tuned --grid lr=": "--grid lr: no values",
    "--controls tuned --grid lr=fast": "--lr: invalid float value: 'fast'",
    "--controls tuned --grid seed=1": "--grid seed: not in a grid; --seeds sets it",
    "--controls tuned --grid opt=adam --holdout 1": "--holdout 1: must be above 0 and below 1",
    "--controls tuned --grid scale=1": "--scale",
    "--controls tuned --grid lr=1 lr=2": "--grid: lr appears twice; leave one out",
    "--controls tuned --grid weight-decay=0 weight_decay=1": "--grid: weight_decay appears twice",
    "--alpha-schedules linear:1": "--alpha-schedules linear:1: expected WAY:START:END",
    "--alpha-schedules up:1:0.5": "expected WAY:START:END",
    "--alpha-schedules linear:1:-1": "must be a finite number above 0",
    "--processes-per-run 0": "--processes-per-run 0: must be at least 1",
    "--jobs 0": "--jobs 0: must be at least 1",
    "--until-settled --max-seeds 2": "--max-seeds 2: must be at least 3",
    "--until-settled --max-seeds 3 --seeds 4": "--max-seeds 3: fewer than --seeds asks for, 4",
    "--until-settled --margin -1": "--margin -1: must be above 0, in points of accuracy",
    "--until-settled --margin 0": "--margin 0: must be above 0",
    "--until-settled --margin nan": "--margin nan: must be above 0",
    "--until-settled --margin inf": "--margin inf: must be above 0",
    "--until-settled --alphas 1": "--until-settled: no arm but the baseline, nothing to settle",
    "--max-seeds 9": "--max-seeds belongs to --until-settled",
    "--margin 1": "--margin belongs to --until-settled",
    "--name a/b": "--name 'a/b': must be a plain folder name",
    "--name ..": "--name '..': must be a plain folder name",
    "--epochs 3": "--epochs is a training flag; give it after --",
    "--batch-size=8 -- --lr 1": "--batch-size is a training flag; give it after --",
    "--alphas 1 1": "alpha-1 is asked for twice",
    "--config training.yaml": r"training\.yaml: epochs is a training flag; give it under train",
    "--config maybe.yaml": r"maybe\.yaml: until_settled: expected true or false, got 'maybe'",
    "--sseeds 3": r"--sseeds; did you mean --seeds\?",
    "--config none.yaml": r"--config none\.yaml: cannot be read",
    "--config wrong.yaml": r"wrong\.yaml: unknown key 'alfas'; did you mean alphas\?",
    "--config flag.yaml": r"flag\.yaml: train: .*--lrr; did you mean --lr\?",
    "--config twice.yaml": r"twice\.yaml: alphas appears twice",
    "--config arms.yaml": r"arms\.yaml: wide appears twice; leave one out",
    "--config same.yaml": r"same\.yaml: 1 appears twice",
    "--config grid.yaml": r"--grid: weight_decay appears twice",
    "--config hyphen.yaml": r"hyphen\.yaml: max_seeds appears twice",
    "--config train.yaml": r"train\.yaml: train: batch_size appears twice",
    "--config day.yaml": r"--config day\.yaml: not valid YAML",
    "--config deep.yaml": r"--config deep\.yaml: aliases .* and deep nesting are not allowed",
    "-- --modify-softmax 0.5": "--modify-softmax after --: not in a study; --alphas sets it",
    "-- --seed 3": "--seed after --: not in a study; --seeds sets it",
    "-- --max-steps 3": "--max-steps after --: not in a study",
    "-- --lrr 3": r"unrecognized argument --lrr; did you mean --lr\?",
    "-- --recipe none": "recipe 'none': there is none of that name",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("training.yaml").write_text("epochs: 3\n")
    Path("maybe.yaml").write_text("until_settled: maybe\n")
    Path("wrong.yaml").write_text("name: a\nalfas: [1]\n")
    Path("flag.yaml").write_text("train:\n  lrr: 1\n")
    Path("twice.yaml").write_text("alphas: [1]\nseeds: 2\nalphas: [1, 0.5]\n")
    Path("arms.yaml").write_text("arms:\n  wide: {lr: 1}\n  wide: {lr: 2}\n")
    Path("same.yaml").write_text("arms:\n  1: {lr: 1}\n  yes: {lr: 2}\n")
    Path("grid.yaml").write_text("grid: {weight-decay: 0, weight_decay: 1}\ncontrols: tuned\n")
    Path("hyphen.yaml").write_text("max-seeds: 5\nmax_seeds: 6\nuntil_settled: true\n")
    Path("train.yaml").write_text("train: {batch-size: 5, batch_size: 6}\n")
    Path("day.yaml").write_text("alphas: 2001-99-99\n")
    Path("deep.yaml").write_text("a: &a [x, x]\nalphas: [*a, *a]\n")
    before = sorted(Path().iterdir())
    assert main(["study", "run", "--name", "a", *mistake.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(MISTAKES[mistake], error), error
    assert sorted(Path().iterdir()) == before


def test_two_studies_of_one_name_are_refused_and_the_first_is_kept() -> None:
    path = Path("studies/small")
    first = plan_of("--seeds", "2")
    create_study(path, first)
    before = (path / "plan.json").read_bytes()
    for words, training, message in (
        (("--seeds", "1,2"), (), r"seeds \[0, 1\] there, \[1, 2\] here"),
        (("--seeds", "1"), (), r"seeds \[0, 1\] there, \[0\] here"),
        (("--seeds", "3"), ("--lr", "0.3"), r"lr 0\.02 there, 0\.3 here"),
        (
            ("--seeds", "2", "--alphas", "1", "0.5"),
            (),
            "it has alpha-0.25, not asked for here; to add",
        ),
        (("--seeds", "2"), ("--lr", "0.3"), r"lr 0\.02 there, 0\.3 here"),
    ):
        other = plan_of(*words, training=(*_TRAINING, *training))
        with pytest.raises(UserError, match=f"holds another study of that name: {message}"):
            create_study(path, other)
    assert (path / "plan.json").read_bytes() == before
    same = replace(first, command=("another", "command"))
    assert create_study(path, same).plan == first
    assert sorted(p.name for p in path.iterdir()) == ["cells", "plan.json"]


def test_further_seeds_are_added_to_a_study() -> None:
    path = Path("studies/small")
    first = create_study(path, plan_of("--seeds", "2")).plan
    larger = create_study(path, plan_of("--seeds", "0,1,7,5")).plan
    assert read_plan(path / "plan.json") == larger
    assert (larger.seeds, larger.stages) == ((0, 1, 7, 5), (2,))
    assert {(cell.arm, cell.seed) for cell in larger.cells} == {
        (arm.name, seed) for arm in first.arms for seed in (0, 1, 7, 5)
    }
    assert set(first.cells) < set(larger.cells)
    assert create_study(path, plan_of("--seeds", "0,1,7,5")).plan == larger
    assert create_study(path, plan_of("--seeds", "0,1,7,5,9")).plan.stages == (2, 4)


_TUNED = ("--controls", "tuned", "--grid", "lr=0.01,0.02")


@pytest.mark.parametrize(
    ("words", "is_extended"),
    [
        ((), True),
        (("--tuning-seeds", "2"), True),
        (("--tuning-seeds", "3"), False),
        (("--grid", "lr=0.01,0.03"), False),
    ],
)
def test_the_tuning_of_a_study_stays_when_seeds_are_added(
    words: tuple[str, ...], is_extended: bool
) -> None:
    path = Path("studies/small")
    study = create_study(path, plan_of("--seeds", "2", *_TUNED))
    chosen = {"metric": "top1", "table": [], "chosen": {"lr": 0.01}}
    study.rewrite(study.plan.with_selection("tuned", chosen))
    before = study.plan
    other = plan_of("--seeds", "4", *_TUNED, *words)
    if not is_extended:
        with pytest.raises(UserError, match="another study of that name"):
            create_study(path, other)
        return
    larger = create_study(path, other).plan
    assert larger.tuning_seeds == before.tuning_seeds == (0, 1)
    assert larger.arm("tuned") == before.arm("tuned")
    assert set(before.cells) < set(larger.cells)
    assert sorted(cell.seed for cell in larger.cells if cell.arm == "tuned") == [0, 1, 2, 3]


def test_a_folder_that_is_no_study_is_left_alone() -> None:
    Path("studies/small").mkdir(parents=True)
    Path("studies/small/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds files, and no study"):
        create_study(Path("studies/small"), plan_of("--seeds", "2"))
    Path("studies/file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        create_study(Path("studies/file/small"), plan_of("--seeds", "2"))


_TRAINING = ("--epochs", "1", "-b", "256", "--model", "digits_mlp_plain", "--lr", "0.02")
