"""--class-weights in the loss: what a class counts, however a batch is divided."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY, load_checkpoint
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.records.run_files import read_summary
from softmax_gradient_tampering.training.setup.loss import create_loss
from softmax_gradient_tampering.training.setup.setup import set_up
from tests.training.measure.test_classes import write_images
from tests.training.runs import program, train

WEIGHTS = [0.5, 1.0, 4.0]
UNEVEN = json.dumps([*range(1, 11)])


def batch(num_rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_rows, 3, generator=generator, requires_grad=True)
    return logits, torch.randint(3, (num_rows,), generator=generator)


@pytest.mark.parametrize("alpha", [0, 0.25, 1])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_the_loss_is_the_weighted_sum_over_the_number_of_rows(
    alpha: float, smoothing: float
) -> None:
    logits, labels = batch()
    loss_fn = create_loss(Config(modify_softmax=alpha, smoothing=smoothing), WEIGHTS)
    loss = loss_fn(logits, labels)
    options: dict[str, Any] = {"weight": torch.tensor(WEIGHTS), "label_smoothing": smoothing}
    expected = F.cross_entropy(logits, labels, **options, reduction="sum") / 8
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    scale = alpha or 1
    tempered = F.cross_entropy(scale * logits, labels, **options, reduction="sum") / (8 * scale)
    (expected,) = torch.autograd.grad(tempered, logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("alpha", [0, 0.25])
def test_mixed_targets_and_labels_are_weighted_alike(alpha: float) -> None:
    """timm's mixup gives probabilities, smoothed by itself, in the place of labels."""
    logits, labels = batch()
    soft = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    of_labels = create_loss(Config(modify_softmax=alpha, smoothing=0.1), WEIGHTS)
    of_mixed = create_loss(Config(modify_softmax=alpha, smoothing=0.1, mixup=0.2), WEIGHTS)
    losses = of_labels(logits, labels), of_mixed(logits, soft)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


def test_the_parts_of_a_batch_are_the_batch() -> None:
    logits, labels = batch()
    loss_fn = create_loss(Config(modify_softmax=0.25), WEIGHTS)
    parts = zip(logits.split(4), labels.split(4), strict=True)
    halves = [loss_fn(*part) / 2 for part in parts]
    torch.testing.assert_close(halves[0] + halves[1], loss_fn(logits, labels))


def folders(tmp_path: Path) -> Path:
    return write_images(
        tmp_path / "images",
        {"cat": 16, "frog": 3, "ship": 1},
        {"cat": 2, "frog": 1, "ship": 1},
    )


def weights_of(*words: str | Path) -> list[float] | None:
    config = parse_arguments([*map(str, words), "--model", "resnet20", "--img-size", "8"])
    setup = set_up(config, start_processes("cpu"))
    setup.data.close()
    return setup.circumstances.class_weights


def test_balanced_the_images_of_every_class_count_the_same_together(tmp_path: Path) -> None:
    weights = weights_of("--data_dir", folders(tmp_path), "--class-weights", "balanced")
    assert weights == pytest.approx([20 / (3 * number) for number in (16, 3, 1)])


@pytest.mark.parametrize("content", ["ship,10\ncat,1\nfrog,2\n", "1\n2\n10\n", "10\n20\n100\n"])
def test_of_a_files_weights_the_average_image_counts_one(tmp_path: Path, content: str) -> None:
    file = tmp_path / "weights.csv"
    file.write_text(content)
    weights = weights_of("--data_dir", folders(tmp_path), "--class-weights", file)
    scale = 20 / (16 * 1 + 3 * 2 + 1 * 10)
    assert weights == pytest.approx([scale, 2 * scale, 10 * scale])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("balanced", "--num-classes", "4"), "balanced: class '3' has no training images"),
        (("[1, 2]",), "2 weights for 3 classes"),
        (('{"cat": 1, "frog": 1, "shp": 1}',), "no class 'shp'; did you mean ship"),
        (("[0, 0, 0, 1]", "--num-classes", "4"), "every class that has training images"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_refused(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        weights_of("--data_dir", folders(tmp_path), "--class-weights", *words)


def test_jsd_is_refused() -> None:
    with pytest.raises(UserError, match="--jsd with --class-weights"):
        train("--jsd", "--aug-splits", 2, "--class-weights", "balanced")


def test_the_rare_class_is_learnt_that_is_lost_without_weights(tmp_path: Path) -> None:
    """Digits, of which class 9 counts a hundredth: without images of it, so to speak."""
    light = json.dumps([1.0] * 9 + [0.01])
    words = ("--epochs", 3, "--lr", 0.05, "-b", 64, "--output", tmp_path, "--experiment")
    train(*words, "light", "--class-weights", light)
    train(*words, "even", "--class-weights", json.dumps([2.0] * 10))
    train(*words, "plain")
    recalls = {}
    for name in ("light", "even", "plain"):
        result = json.loads((tmp_path / name / "result.json").read_text())
        recalls[name] = result["classes"]["recall"][9]
    assert recalls["light"] < 20 < 80 < recalls["plain"]
    assert recalls["even"] == pytest.approx(recalls["plain"], abs=5)


def test_several_processes_train_as_one_does(tmp_path: Path) -> None:
    """With as many images in a batch of all; what is left is rounding."""
    words: tuple[Any, ...] = ("--max-steps", 8, "--class-weights", UNEVEN, "--modify-softmax", 0.5)
    words += ("--model", "digits_mlp_plain", "--lr", 0.05, "--output", tmp_path, "--experiment")
    train(*words, "one", "-b", 128)
    done = program(*words, "two", "-b", 64, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = (
        load_checkpoint(tmp_path / name / "recovery-0-8.pth.tar")["state_dict"]
        for name in ("one", "two")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)


def test_weights_are_in_the_checkpoint_and_others_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(tmp_path)
    words: tuple[Any, ...] = ("--data_dir", data, "--model", "resnet20", "--img-size", 8, "-b", 4)
    words += (
        "--workers",
        0,
        "--class-weights",
        "balanced",
        "--output",
        tmp_path,
        "--experiment",
        "run",
    )
    train(*words, "--epochs", 2, "--max-steps", 6, is_silent=False)
    assert "An image counts by its class, the average one 1: cat 0.4167" in capsys.readouterr().out
    last = tmp_path / "run" / "last.pth.tar"
    assert load_checkpoint(last)[OUR_KEY]["class_weights"] == pytest.approx(
        [5 / 12, 20 / 9, 20 / 3]
    )
    assert load_checkpoint(last)["args"]["class_weights"] == "balanced"
    shutil.move(data / "train" / "cat" / "0.png", data / "train" / "frog" / "new.png")
    for checkpoint in (tmp_path / "run").glob("recovery-*"):
        checkpoint.unlink()
    train(*words, "--epochs", 2, "--resume", "auto", is_silent=False)
    assert "the class weights are others than in the checkpoint" in capsys.readouterr().out
    assert len(read_summary(tmp_path / "run" / "summary.csv")) == 2
