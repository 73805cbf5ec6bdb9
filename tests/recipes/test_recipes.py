"""The recipes: the published rows, their figures, their schedules, their commands."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.recipes.catalogue import (
    published_figures,
    recipe_names,
    recipe_of,
    recipe_path,
)
from softmax_gradient_tampering.training.config.arguments import load_config, parse_arguments
from softmax_gradient_tampering.training.config.refusals import check_config
from softmax_gradient_tampering.training.run import Result
from softmax_gradient_tampering.training.step.schedule import epoch_rates

GOLDEN = Path(__file__).parents[1] / "training" / "golden" / "lr"

# The published README's table: checkpoint path and test accuracy.
README = """
resnet18/step-scheduler-alpha-1.0                   69.704
resnet18/step-scheduler-alpha-0.25                  69.844
resnet18/cosine-scheduler-alpha-1.0                 70.208
resnet18/cosine-scheduler-alpha-0.25                70.298
resnet_non_bn/cosine-scheduler-alpha-1.0            66.796
resnet_non_bn/cosine-scheduler-alpha-0.25           67.796
resnet50/step-scheduler-alpha-1.0                   75.97
resnet50/step-scheduler-alpha-0.3                   76.494
resnet50/cosine-scheduler-alpha-1.0                 76.56
resnet50/cosine-scheduler-alpha-0.3                 76.886
resnet50/cosine-scheduler-alpha-1.0-label-smoothing 76.698
resnet50/cosine-scheduler-alpha-0.3-label-smoothing 76.968
resnet101/cosine-scheduler-alpha-1.0                77.896
resnet101/cosine-scheduler-alpha-0.3                78.258
seresnet18/cosine-scheduler-alpha-1.0               71.09
seresnet18/cosine-scheduler-alpha-0.25              71.436
seresnet50/cosine-scheduler-alpha-1.0               77.218
seresnet50/cosine-scheduler-alpha-0.3               77.952
"""


def test_every_row_of_the_published_table_is_a_recipe() -> None:
    rows = dict(line.split() for line in README.strip().splitlines())
    names = [name for name in recipe_names() if not name.startswith("paper/")]
    assert sorted(names) == sorted(rows)
    for name, accuracy in rows.items():
        assert published_figures(name).test_accuracy == float(accuracy)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_its_name_says(name: str) -> None:
    config, row = load_config(recipe_path(name)), published_figures(name)
    check_config(config)
    model = name.split("/")[1].split("-")[0] if name.startswith("paper/") else name.split("/")[0]
    assert config.model == model.replace("resnet_non_bn", "resnet18_wobn")
    found = re.search(r"alpha-([\d.]+)", name)
    assert found
    assert float(found[1]) == row.alpha == (config.modify_softmax or 1.0)
    assert config.smoothing == (0.1 if name.endswith("label-smoothing") else 0.0)
    assert config.sched == ("step" if "step" in name else "cosine")
    assert config.clip_mode == ("agc" if name.endswith("agc") else "norm")
    assert (config.clip_grad is not None) == name.endswith(("agc", "clipping"))
    batch = re.search(r"batch-(\d+)", name)
    assert config.batch_size * row.processes == (int(batch[1]) if batch else 1024)
    assert (config.weight_decay, config.momentum, config.sched_order) == (5e-4, 0.9, "published")
    assert config.lr == (0.4 if name.startswith("paper/") else 0.1)


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("resnet18/cosine-scheduler-alpha-0.25", "fork_cosine"),
        ("resnet50/step-scheduler-alpha-0.3", "fork_step"),
        ("paper/resnet50-cosine-alpha-0.3", "fork_cosine_paper_lr0.4_warmup4e-4"),
    ],
)
def test_a_recipes_schedule_is_the_measured_one(
    name: str, golden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", "schedule", name]) == 0
    printed = list(csv.reader(capsys.readouterr().out.splitlines()))
    with (GOLDEN / f"{golden}.csv").open() as file:
        assert printed == list(csv.reader(file))


def test_the_papers_step_schedule_divides_at_30_60_and_90_of_100() -> None:
    rates = epoch_rates(load_config(recipe_path("paper/resnet18-step-alpha-0.25")))
    assert len(rates) == 100
    drops = [epoch + 1 for epoch in range(5, 100) if rates[epoch] < rates[epoch - 1] / 5]
    assert drops == [30, 60, 90]  # counted from 1, as the paper does


def test_a_recipe_trains_with_overrides(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    data = make_images(tmp_path / "photos", {"ant": 4, "bee": 4})
    argv = ["train", "--recipe", "resnet18/cosine-scheduler-alpha-0.25", "--data_dir", str(data)]
    argv += ["--img-size", "32", "-b", "4", "-j", "0", "--max-steps", "3", "--output", "out"]
    assert main([*argv, "--dry-run"]) == 0
    assert main(argv) == 0
    (folder,) = Path("out").iterdir()
    config = load_config(folder / "args.yaml")
    assert (config.modify_softmax, config.batch_size, config.lr) == (0.25, 4, 0.1)


def test_listing_and_showing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in recipe_names())
    assert re.search(r"paper/resnet101-cosine-alpha-0\.3 +0\.3 +83\.10 +78\.258", output)
    assert main(["recipes", "show", "resnet50/step-scheduler-alpha-0.3"]) == 0
    assert "alpha 0.05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", "resnet18/cosine-scheduler-alpha-0.2"], "did you mean resnet18/cosine-schedul"),
        (["show", "../../errors"], "there is none of that name"),
        (["show", "x\n\x00" * 200], "there is none of that name"),
        (["show"], "show needs the NAME"),
        (["shw"], "invalid choice: 'shw'"),
    ],
)
def test_a_wrong_name_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_recipe_goes_without_a_config_file() -> None:
    from softmax_gradient_tampering.errors import UserError

    with pytest.raises(UserError, match="give it alone, without --config"):
        parse_arguments(["--recipe", "a", "--config", "b"], find_recipe=recipe_path)


@pytest.mark.parametrize(
    ("processes", "flags", "warned"),
    [
        (1, (), "this run has 256 a step at lr 0.1. .*give -b 1024"),
        (8, (), "this run has 2048 a step at lr 0.1. .*give -b 128"),
        (3, ("--lr", "0.075"), "this run has 768 a step at lr 0.075. .*choose an --lr"),
        (4, (), None),
        (1, ("-b", "1024"), None),
        (2, ("--grad-accum-steps", "2"), None),
    ],
)
def test_a_recipe_on_another_number_of_processes_is_warned_of(
    processes: int,
    flags: tuple[str, ...],
    warned: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("RANK", "0")
    name = "resnet18/cosine-scheduler-alpha-0.25"
    copy = Path("copy.yaml")
    copy.write_bytes(recipe_path(name).read_bytes())
    monkeypatch.setattr("softmax_gradient_tampering.training.run.run", lambda _: Result("planned"))
    for recipe in (("--recipe", name), ("--config", str(copy)), (f"--config={recipe_path(name)}",)):
        assert main(["train", *recipe, "--dry-run", *flags]) == 0
        said = capsys.readouterr().out
        if warned is None:
            assert said == ""
        else:
            published = (
                f"{name} was published with 4 processes of 256: 1024 samples a step at lr 0.1; "
            )
            assert re.search(published + warned, said)


def test_a_pipe_is_not_waited_for_twice() -> None:
    os.mkfifo("pipe")
    assert recipe_of(Path("pipe")) is None


def test_a_file_that_is_no_recipe_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("softmax_gradient_tampering.training.run.run", lambda _: Result("planned"))
    own = Path("own.yaml")
    own.write_text(recipe_path("resnet18/cosine-scheduler-alpha-0.25").read_text() + "seed: 1\n")
    assert main(["train", "--config", str(own), "--dry-run"]) == 0
    assert capsys.readouterr().out == ""
