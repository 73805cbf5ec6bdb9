"""`sgt checkpoint show` on checkpoints of every origin."""

import gzip
from pathlib import Path

import pytest
import torch
import yaml

from softmax_gradient_tampering.cli import main
from tests.training.runs import train

GOLDEN = (
    Path(__file__).parents[1] / "training" / "golden" / "published-format-resnet18-c10.pth.tar.gz"
)


def test_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--epochs", 2, "--modify-softmax", 0.25, "--output", tmp_path, "--experiment", "run")
    train(*flags, "--model-ema")
    assert main(["checkpoint", "show", str(tmp_path / "run" / "last.pth.tar")]) == 0
    text = capsys.readouterr().out
    for line in (
        r"written by        this program, format 1",
        r"completed epochs  2",
        r"alpha             0.25",
        r"averaged weights  14 tensors",
        r"position          12 optimizer steps, 0 batches into the next epoch",
        r"weight decay 0.0001; keeps momentum_buffer",
    ):
        assert line in text


def test_a_published_one_with_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "published.pth.tar"
    path.write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    assert main(["checkpoint", "show", str(path), "--args"]) == 0
    text, _, settings = capsys.readouterr().out.partition("settings:\n")
    assert "the published program, version 2" in text
    assert "completed epochs  37" in text
    assert "loss scale        65536.0" in text
    assert yaml.safe_load(settings)["modify_softmax"] == 0.25


def test_bare_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(3, 4)}, path)
    assert main(["checkpoint", "show", str(path)]) == 0
    text = capsys.readouterr().out
    assert "unknown: weights alone" in text
    assert "1 tensors, 12 numbers, float32" in text


def test_what_is_no_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"state_dict": {}, "optimizer": {"param_groups": 3}}, path)
    assert main(["checkpoint", "show", str(path)]) == 2
    assert "odd.pth: not a checkpoint of a known form" in capsys.readouterr().err
