"""What the published program got wrong and this one must not: whole runs, by what they record."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from softmax_gradient_tampering.data.order import BatchPlan
from softmax_gradient_tampering.recipes.catalogue import recipe_names, recipe_path
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.config.arguments import load_config, parse_arguments
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.records.run_files import read_summary
from softmax_gradient_tampering.training.setup.setup import set_up
from tests.data.memory.test_cifar import write_batches
from tests.training.runs import program, train

WORDS = ("--output", "out", "--experiment", "run")
RUN = Path("out/run")


def test_loss_and_accuracy_of_training_are_those_of_all_processes() -> None:
    """Two processes are one with the double batch; the net has no batch norm to tell them apart."""
    words = ("--epochs", 1, "--model", "digits_mlp_plain", "--output", "out")
    assert program(*words, "-b", 64, "--experiment", "two", processes=2).returncode == 0
    train(*words, "-b", 128, "--experiment", "one")
    (two,), (one,) = (read_summary(Path("out", name, "summary.csv")) for name in ("two", "one"))
    # A last batch of 67 is 2 * 33: two processes leave one sample of 1,347 out.
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=2e-3)
    assert two["train_acc"] == pytest.approx(one["train_acc"], abs=0.2)
    assert two["eval_top1"] == pytest.approx(one["eval_top1"], abs=0.5)
    assert BatchPlan(1347, 64, 2).sizes()[-1] == 33


def test_the_average_has_columns_of_its_own_and_decides_which_is_best() -> None:
    train("--epochs", 4, "--model-ema", "--model-ema-decay", 0.9, *WORDS)
    rows = read_summary(RUN / "summary.csv")
    averages = [float(row["eval_top1_ema"] or 0) for row in rows]
    assert averages != [row["eval_top1"] for row in rows]
    assert all(row["eval_loss_ema"] is not None for row in rows)
    best = load_checkpoint(RUN / "model_best.pth.tar")
    assert best["epoch"] == 1 + averages.index(max(averages))
    assert best["metric"] == max(averages)


def test_the_rates_do_not_depend_on_how_often_is_evaluated() -> None:
    train("--epochs", 4, *WORDS)
    rates = [row["lr"] for row in read_summary(RUN / "summary.csv")]
    train("--epochs", 4, "--eval-every", 2, "--output", "out", "--experiment", "rare")
    rare = [row["lr"] for row in read_summary(Path("out/rare/summary.csv"))]
    assert rare == rates[1::2]


def test_the_evaluations_loss_is_no_half_precision_number() -> None:
    train("--epochs", 1, "--amp", *WORDS)
    (row,) = read_summary(RUN / "summary.csv")
    loss = torch.tensor(row["eval_loss"], dtype=torch.float64)
    assert loss != loss.bfloat16().double()


def test_the_arguments_that_are_recorded_are_resolved() -> None:
    train("--epochs", 1, *WORDS)
    args = yaml.safe_load((RUN / "args.yaml").read_text())
    assert (args["model"], args["num_classes"]) == ("digits_mlp", 10)


def test_without_hard_links_checkpoints_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    train("--epochs", 2, *WORDS)
    for name in ("last", "model_best", "checkpoint-2", "checkpoint-1"):
        assert load_checkpoint(RUN / f"{name}.pth.tar")["epoch"] in (1, 2)


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_trains_its_small_last_batch_included(tmp_path: Path, classes: int) -> None:
    names, key = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"], b"labels"
    folder = tmp_path / "cifar-10-batches-py"
    if classes == 100:
        names, key, folder = ["train", "test"], b"fine_labels", tmp_path / "cifar-100-python"
    write_batches(folder, names, key, classes)
    num_train = 4 * (len(names) - 1)
    words = ("--cifar", classes, "--data_dir", tmp_path, "--model", "resnet8_narrow", "-b", 3)
    result = train(*words, "--epochs", 1, "--modify-softmax", 0.25, *WORDS)
    assert result.status == "finished"
    position = load_checkpoint(RUN / "last.pth.tar")["softmax_gradient_tampering"]["position"]
    # A last batch of one sample is left out: batch norm can make nothing of it.
    assert position["step"] == num_train // 3 + (num_train % 3 > 1)


def test_the_validation_batch_is_a_multiple() -> None:
    setup = set_up(parse_arguments(["-b", "50", "-vb", "4"]), Processes(1, 0, torch.device("cpu")))
    assert setup.data.eval_loader.batch_sizes == [200, 200, 50]


def test_an_alpha_above_one_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"--modify-softmax 1\.5 is above 1"):
        train("--epochs", 1, "--modify-softmax", 1.5, *WORDS)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_augment_as_the_published_loader_did(name: str) -> None:
    config = load_config(recipe_path(name))
    assert (config.color_jitter, config.train_interpolation) == (0, "bilinear")
    assert config.sched_order == "published"
