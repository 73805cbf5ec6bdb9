"""`sgt reproduce`: a published row as a study, what it shares with the recipe, the row it gives."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.recipes.catalogue import (
    find_row,
    published_figures,
    recipe_names,
    recipe_path,
    split_batch,
)
from softmax_gradient_tampering.studies.launch import devices
from softmax_gradient_tampering.studies.plan.plan_file import read_plan
from softmax_gradient_tampering.studies.plan.reproduction import parse_reproduction
from softmax_gradient_tampering.studies.report.reproduction import HEAD, unreported_row
from softmax_gradient_tampering.studies.results.study_folder import open_study
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.config.arguments import load_config

ROW = "resnet18/cosine-scheduler-alpha-0.25"
CLIPPED = "paper/resnet18_wobn-cosine-batch-256-alpha-0.25-clipping"
ADAPTIVE = "paper/resnet18_wobn-cosine-batch-256-alpha-0.25-agc"
SMALL = (
    *("--model", "resnet20", "--img-size", "32", "-b", "4", "--grad-accum-steps", "1", "-j", "0"),
    *("--epochs", "1", "--cooldown-epochs", "0", "--warmup-epochs", "0", "--no-amp"),
)


@pytest.fixture
def photos(make_images: Callable[..., Path]) -> str:
    return str(make_images(Path("photos"), {"ant": 8, "bee": 8}))


def test_a_row_is_a_pair_of_recipes_that_differ_in_alpha_alone() -> None:
    for name in recipe_names():
        row = find_row(name)
        assert published_figures(row.baseline).alpha == 1
        assert name == row.baseline or row.tampered == (name,)
        baseline = vars(load_config(recipe_path(row.baseline)))
        for tampered in row.tampered:
            assert published_figures(tampered).alpha != 1
            config = vars(load_config(recipe_path(tampered)))
            assert {key for key in config if config[key] != baseline[key]} == {"modify_softmax"}
    alphas = ("paper/resnet50-cosine-alpha-0.3", "paper/resnet50-cosine-alpha-0.05")
    assert find_row("paper/resnet50-cosine-alpha-1.0").tampered == alphas


@pytest.mark.parametrize(
    ("name", "processes", "expected"),
    [
        (ROW, 4, (256, 1)),
        (ROW, 8, (128, 1)),
        (ROW, 1, (256, 4)),
        (ROW, 2, (256, 2)),
        (CLIPPED, 1, (64, 4)),
        (CLIPPED, 8, (32, 1)),
    ],
)
def test_a_step_has_the_published_samples_on_any_number_of_processes(
    name: str, processes: int, expected: tuple[int, int], photos: str
) -> None:
    assert split_batch(name, processes) == expected
    words = [name, "--data_dir", photos, "--processes-per-run", str(processes)]
    request = parse_reproduction(words).request
    assert request is not None
    for arm in request.plan.arms:
        config = request.plan.config_of(arm, 0)
        assert (config.batch_size, config.grad_accum_steps) == expected


def test_the_arms_are_the_recipes_in_one_precision_with_both_controls(photos: str) -> None:
    asked = parse_reproduction([ROW, "--data_dir", photos, "--seeds", "2"])
    assert asked.request is not None
    plan = asked.request.plan
    kinds = [arm.kind for arm in plan.arms]
    assert kinds == ["baseline", "tampered", "equivalent", "tuned", *["tuning"] * 9]
    assert (plan.seeds, plan.tuning_seeds, plan.processes_per_run) == ((0, 1), (0,), 4)
    recipe = vars(load_config(recipe_path(ROW)))
    ours = {"modify_softmax", "equivalent_to", "amp_dtype", "data_dir", "filter_norms"}
    for arm in plan.arms[:3]:
        config = vars(plan.config_of(arm, 0))
        assert {key for key in config if config[key] != recipe[key]} <= ours | {"seed"}
        assert config["amp_dtype"] == "bfloat16"
    grid = {(arm.overrides["lr"], arm.overrides["weight_decay"]) for arm in plan.arms[4:]}
    assert grid == {(lr, decay) for lr in (0.05, 0.1, 0.2) for decay in (2.5e-4, 5e-4, 1e-3)}


def test_clipping_by_norm_has_no_equivalent_and_adaptive_clipping_has_one(photos: str) -> None:
    def kinds(*words: str) -> set[str]:
        request = parse_reproduction([*words[:1], "--data_dir", photos, *words[1:]]).request
        assert request is not None
        return {arm.kind for arm in request.plan.arms}

    whole = {"baseline", "tampered", "equivalent", "tuned", "tuning"}
    smoothed = "resnet50/cosine-scheduler-alpha-0.3-label-smoothing"
    assert kinds(ADAPTIVE) == kinds(smoothed) == whole
    assert kinds(CLIPPED) == kinds(ROW, "--", "--amp-dtype", "float16") == whole - {"equivalent"}
    assert kinds(ROW, "--controls") == {"baseline", "tampered"}


@pytest.mark.usefixtures("in_process")
def test_a_dry_run_says_what_would_run_and_writes_nothing(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--epochs", "2", "--class-weights", "balanced", "--model", "resnet20"]
    words = ["reproduce", CLIPPED, "--data_dir", photos, "--processes-per-run", "2"]
    assert main([*words, "--seeds", "3", "--dry-run", "--", *changes]) == 0
    said = capsys.readouterr().out
    assert "67.064 % at alpha 1, 67.088 % at alpha 0.25" in said
    assert "2 processes of 64, 2 batches a step: 256 samples a step at lr 0.4" in said
    assert "bfloat16" in said
    assert "no equivalent: there is none with clipping by norm" in said
    assert "Changed:   epochs 2 (published: 90)" in said
    assert "Changed:   class_weights balanced (published: not set)" in said
    assert "Changed:   data of 2 classes (published: 1000)" in said
    assert "1.0 is this project's choice" in said
    assert re.search(r"^alpha-0\.25 +tampered +3 +modify-softmax=0\.25$", said, re.MULTILINE)
    assert re.search(r"^tuning-\S+ +tuning +1 .*lr=0\.8 weight-decay=0\.001 ", said, re.MULTILINE)
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("own", "training", "message"),
    [
        ("--jobs 0", "", "--jobs 0: must be at least 1"),
        ("--jobs-per-gpu 2", "", "--jobs-per-gpu belongs to --gpus"),
        ("", "--opt sdg", "--opt sdg: timm has no such optimizer; did you mean sgd?"),
        ("--grid opt=sgd,adamm", "", "--opt adamm: timm has no such optimizer"),
    ],
)
def test_a_dry_run_sees_what_would_end_every_run(
    own: str, training: str, message: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", ROW, "--data_dir", photos, "--dry-run", *own.split()]
    assert main([*words, "--", *SMALL, *training.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.usefixtures("in_process")
def test_a_row_is_trained_resumed_and_reported(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", ROW, "--data_dir", photos, "--output", "out"]
    own = ["--processes-per-run", "1", "--jobs", "1", "--grid", "lr=0.05,0.1"]
    whole = [*words, *own, "--seeds", "2", "--", *SMALL]
    assert main([*words, *own, "--seeds", "1", "--plan", "--", *SMALL]) == 0
    study = Path("out/resnet18-cosine-scheduler-alpha-0.25")
    assert json.loads((study / "plan.json").read_text())["command"][:2] == ["sgt", "reproduce"]
    assert not [*study.glob("cells/*/result.json")]
    assert main(["reproduce", ROW, "--output", "out", "--row"]) == 0
    assert capsys.readouterr().out.splitlines()[-3] == unreported_row(ROW)

    assert main([*whole, "--lr", "0.2"]) == 2  # another study is not gone on with
    assert re.search("lr 0.1 there, 0.2 here; choose .* --output", capsys.readouterr().err)
    assert main(whole) == 0
    said = capsys.readouterr().out
    results = {path: path.read_bytes() for path in study.glob("cells/*/result.json")}
    assert main(whole) == 0
    assert results == {path: path.read_bytes() for path in study.glob("cells/*/result.json")}
    assert main(["reproduce", ROW, "--output", "out", "--row"]) == 0
    (row,) = {text.splitlines()[-3] for text in (said, capsys.readouterr().out)}
    cells = dict(zip(HEAD, row.strip("| ").split(" | "), strict=True))
    assert cells["row"] == f"`{ROW}`"
    assert [cells[name] for name in HEAD[1:4]] == ["70.208", "70.298", "+0.090"]
    assert cells["ours, alpha 1"].endswith("(2 seeds)")
    assert cells["ours, gain"] == cells["equivalent's gain"]  # 0.25 is a power of two
    assert cells["gain over tuned"] != "–"
    changed = cells["verdict"].split("; not the published settings: ")[1]
    assert "4 samples a step (published: 1024)" in changed
    assert "data of 2 classes (published: 1000)" in changed
    assert "model resnet20 (published: resnet18)" in changed
    assert "float32 (published: float16)" in changed
    assert "amp_dtype" not in changed

    assert said.endswith(f"Report:  sgt report {study}\n")
    # The plan holds the margin, for the report too; a margin that is given goes before it.
    assert main(["report", str(study), "--json"]) == 0
    assert main(["study", "status", str(study), "--json"]) == 0
    assert capsys.readouterr().out.count('"margin": 0.09,') == 2
    assert main(["report", str(study), "--json", "--margin", "1"]) == 0
    assert '"margin": 1.0,' in capsys.readouterr().out
    # So does that of a plan of the time when it did not, once the same command has gone on.
    plan = study / "plan.json"
    plan.write_text(plan.read_text().replace(',\n "margin": 0.09', ""))
    assert read_plan(plan).margin is None
    assert main(whole) == 0
    assert read_plan(plan).margin == 0.09


@pytest.mark.slow
def test_of_two_processes_the_equivalent_of_adaptive_clipping_agrees_bit_by_bit(
    photos: str,
) -> None:
    words = ["reproduce", ADAPTIVE, "--data_dir", photos, "--output", "out", "--seeds", "1"]
    own = ["--controls", "equivalent", "--processes-per-run", "2", "--jobs", "1"]
    assert main([*words, *own, "--", *SMALL, "--model", "resnet18_wobn", "--epochs", "2"]) == 0
    study = open_study(Path("out") / ADAPTIVE.replace("/", "-"))
    weights = {
        cell.arm: load_checkpoint(study.cell_path(cell) / "last.pth.tar")["state_dict"]
        for cell in study.plan.cells
    }
    tampered, ordinary, plain = (
        weights[name] for name in ("alpha-0.25", "equivalent-0.25", "alpha-1")
    )
    for name, value in tampered.items():
        assert torch.equal(ordinary[name], value * (0.25 if name.startswith("fc.") else 1))
    assert any(not torch.equal(plain[name], value) for name, value in tampered.items())


@pytest.mark.usefixtures("in_process")
def test_a_row_of_alpha_1_gives_a_row_of_every_alpha(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = "paper/resnet50-cosine-alpha-1.0"
    words = ["reproduce", baseline, "--data_dir", photos, "--processes-per-run", "1", "--controls"]
    assert main([*words, "--seeds", "1", "--jobs", "1", "--", *SMALL]) == 0
    *_, half, low, _, report = capsys.readouterr().out.splitlines()
    assert half.startswith("| `paper/resnet50-cosine-alpha-0.3` | 76.560 | 76.886 | +0.326 | ")
    assert low.startswith("| `paper/resnet50-cosine-alpha-0.05` | 76.560 | 77.216 | +0.656 | ")
    assert half.count(" | – | – | ") == low.count(" | – | – | ") == 1  # without controls
    assert read_plan(Path(report.split()[-1]) / "plan.json").margin == 0.326


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet18/cosine-scheduler-alpha-0.2"], f"did you mean {ROW}?"),
        (["--data_dir", "photos"], "required: ROW"),
        ([ROW], "--data_dir DIR is missing"),
        ([ROW, "--data_dir", "nowhere"], "--data_dir nowhere: there is no such folder"),
        ([ROW, "--data_dir", "photos", "--seeds", "0"], "--seeds 0: no seeds"),
        ([ROW, "--data_dir", "photos", "--processes-per-run", "3"], "cannot be divided"),
        ([ROW, "--data_dir", "photos", "--processes-per-run", "0"], "must be at least 1"),
        ([ROW, "--data_dir", "photos", "--", "--lrr", "1"], "did you mean --lr"),
        ([ROW, "--data_dir", "photos", "--", "--recipe", "x"], "the ROW says what is trained"),
        ([ROW, "--data_dir", "photos", "--", "--data-dir", "x"], "folder before --"),
        ([ROW, "--data_dir", "photos", "--", "--seed", "1"], "--seeds sets it"),
        ([ROW, "--row"], "no study there"),
        ([ROW, "--row", "--dry-run"], "not allowed with"),
        ([CLIPPED, "--data_dir", "photos", "--controls", "equivalent"], "there is none with clip"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: list[str], message: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == [photos]


def test_more_processes_than_gpus_are_refused_before_anything_runs(
    photos: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 2)
    assert main(["reproduce", ROW, "--data_dir", photos]) == 2
    assert "--processes-per-run 4: torch sees 2 GPUs" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == [photos]
