"""Checkpoints of other programs: taken, or told apart in a line."""

import argparse
import bz2
import gzip
import io
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.checkpoint.weights import load_best_weights
from softmax_gradient_tampering.training.config.fields import Config
from tests.training.runs import train

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(3)
    state: Weights = timm.create_model("test_resnet", num_classes=2).state_dict()
    return state


def load(path: Path, num_classes: int = 2, may_start_head: bool = False) -> tuple[Weights, Any]:
    """What a model has after loading a file, and the line on it."""
    torch.manual_seed(4)
    model = timm.create_model("test_resnet", num_classes=num_classes)
    config = Config(model="test_resnet", num_classes=num_classes)
    line = load_best_weights(model, load_checkpoint(path), config, may_start_head)
    return model.state_dict(), line


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


ARGS = argparse.Namespace(model="test_resnet", lr=0.1, output_dir=None)
FORMS: dict[str, Callable[[Weights], Any]] = {
    "weights alone": lambda weights: weights,
    "compiled": lambda weights: {"state_dict": under("_orig_mod.", weights)},
    "parallel": lambda weights: under("module.", weights),
    "parallel and compiled": lambda weights: {"state_dict": under("module._orig_mod.", weights)},
    "compiled and parallel": lambda weights: {"state_dict": under("_orig_mod.module.", weights)},
    "DeiT's and torchvision's": lambda weights: {
        "model": weights, "optimizer": {}, "epoch": 3, "args": ARGS, "scaler": None
    },
    "torchvision's average": lambda weights: {
        "model": {name: tensor * 2 for name, tensor in weights.items()},
        "model_ema": {"n_averaged": torch.tensor(5), **under("module.", weights)},
        "epoch": 3,
    },
    "timm's average": lambda weights: {
        "state_dict": {name: tensor * 2 for name, tensor in weights.items()},
        "state_dict_ema": weights,
        "epoch": 3,
    },
    "an average alone": lambda weights: {"state_dict_ema": weights},
    "Lightning's": lambda weights: {
        "state_dict": under("model.", weights) | {"criterion.weight": torch.ones(2)},
        "epoch": 3, "global_step": 90, "pytorch-lightning_version": "2.5", "loops": {},
        "optimizer_states": [], "lr_schedulers": [], "callbacks": {}, "hyper_parameters": {},
    },
    "Lightning's, compiled": lambda weights: {"state_dict": under("model._orig_mod.", weights)},
    "of an own loop": lambda weights: {"model_state_dict": weights, "loss": 0.3},
    "older than torch 0.4.1": lambda weights: {
        name: tensor for name, tensor in weights.items() if "num_batches" not in name
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_the_files_of_other_programs(
    form: str, weights: Weights, tmp_path: Path
) -> None:
    torch.save(FORMS[form](weights), tmp_path / "file.pth")
    loaded, line = load(tmp_path / "file.pth")
    assert line is None
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor), name


def test_safetensors_are_read(weights: Weights, tmp_path: Path) -> None:
    for name in ("model.safetensors", "renamed.pth"):
        safetensors.torch.save_file(weights, tmp_path / name, metadata={"format": "pt"})
        loaded, _ = load(tmp_path / name)
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    content = (tmp_path / "renamed.pth").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    with pytest.raises(UserError, match=r"cut.safetensors: not a whole checkpoint"):
        load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_another_number_of_classes_starts_the_classifier_anew_and_it_is_said(
    prefix: str, weights: Weights, tmp_path: Path
) -> None:
    torch.save({"state_dict": under(prefix, weights)}, tmp_path / "two.pth")
    loaded, line = load(tmp_path / "two.pth", num_classes=5, may_start_head=True)
    assert "has another number of classes than 5: it starts anew" in line
    torch.manual_seed(4)
    fresh = timm.create_model("test_resnet", num_classes=5).state_dict()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, (fresh if name.startswith("fc.") else weights)[name]), name
    with pytest.raises(UserError, match=r"with 5 classes: it holds .* with 2 outputs"):
        load(tmp_path / "two.pth", num_classes=5)


def test_weights_without_a_classifier_start_one_anew_and_it_is_said(
    weights: Weights, tmp_path: Path
) -> None:
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    torch.save(under("module.", body), tmp_path / "body.pth")
    loaded, line = load(tmp_path / "body.pth", may_start_head=True)
    assert "classifier (fc.weight and so on) is missing: it starts anew" in line
    assert all(torch.equal(loaded[name], tensor) for name, tensor in body.items())
    with pytest.raises(UserError, match=r"it lacks fc\.bias and 1 more"):
        load(tmp_path / "body.pth")
    body.pop("conv1.0.weight")
    torch.save({"state_dict": body}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"\(89 tensors.* it lacks conv1\.0\.weight and 2 more"):
        load(tmp_path / "part.pth", may_start_head=True)


def test_what_does_not_fit_is_described(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": weights, "arch": "test_resnet"}, tmp_path / "file.pth")
    model = timm.create_model("resnet18", num_classes=2)
    config = Config(model="resnet18", num_classes=2)
    with pytest.raises(UserError) as refusal:
        load_best_weights(model, load_checkpoint(tmp_path / "file.pth"), config, True)
    assert str(refusal.value).startswith(
        "the checkpoint does not fit resnet18 with 2 classes: it holds test_resnet with 2 outputs "
        "of its last layer (92 tensors, the first conv1.0.weight); it lacks "
    )
    assert str(refusal.value).endswith("; give --model test_resnet")


def save_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))


def save_folder(path: Path) -> None:
    path.mkdir()
    for name in ("last.pth.tar", "model_best.pth.tar", "summary.csv"):
        (path / name).touch()


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gzip": (
        lambda path: path.write_bytes(gzip.compress(b"weights")),
        "but packed with gzip; unpack it first, with gunzip",
    ),
    "bzip2": (
        lambda path: path.write_bytes(bz2.compress(b"weights")),
        "but packed with bzip2",
    ),
    "a web page": (
        lambda path: path.write_text("\n<!DOCTYPE html><p>404"),
        "but a web page in the",
    ),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"),
        "but a Git LFS pointer in the file's place; git lfs pull fetches it",
    ),
    "tar": (save_tar, "but a tar archive; give a file in it"),
    "arrays": (
        lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
        "but NumPy arrays",
    ),
    "empty": (lambda path: path.touch(), "but an empty file"),
    "a list": (lambda path: torch.save([1, 2], path), "but list"),
    "no weights": (
        lambda path: torch.save({"epoch": 3, "config": {"a": 1}, "loss": 0.1}, path),
        "it holds epoch, config, loss, and weights under no name that is known",
    ),
    "a folder": (
        save_folder,
        "but a folder; give a file in it: last.pth.tar, model_best.pth.tar",
    ),
    "an empty folder": (
        lambda path: path.mkdir(),
        "but a folder, without a checkpoint in it",
    ),
    "a whole model": (
        lambda path: torch.save(timm.create_model("test_resnet"), path),
        "not loaded, damaged or unsafe: it asks for timm.models.resnet.ResNet",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    make, message = OTHERS[kind]
    make(tmp_path / "file.pth")
    with pytest.raises(UserError) as refusal:
        load_checkpoint(tmp_path / "file.pth")
    message = message.replace("but ", "not a checkpoint but ", 1)
    assert str(refusal.value).startswith(f"{tmp_path}/file.pth: {message}")
    assert "\n" not in str(refusal.value)


def test_a_dry_run_opens_what_the_flags_name_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--epochs", 3, "--output", "out", "--experiment", "one", "-b", 500)
    dry = ("--dry-run", *words)
    train(*dry, "--resume", "auto", is_silent=False)
    assert "No checkpoint of one yet: the run starts anew" in capsys.readouterr().out
    assert not Path("out").exists()
    train(*words, "--max-steps", 4)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    train(*dry, "--resume", "auto", is_silent=False)
    assert "Going on from out/one/recovery-1-4.pth.tar: epoch 2, batch 1" in capsys.readouterr().out
    with pytest.raises(UserError, match="it holds digits_mlp"):
        train(*dry, "--resume", "out/one/recovery-1-4.pth.tar", "--model", "digits_cnn")
    for flag in ("--resume", "--initial-checkpoint"):
        with pytest.raises(UserError, match=r"nowhere.pth: no such"):
            train(*dry, flag, "nowhere.pth")
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_timm_reads_what_is_written(tmp_path: Path) -> None:
    result = train("--epochs", 1, "--output", "out", "--experiment", "one", "--model-ema")
    assert result.folder is not None
    path = result.folder / "last.pth.tar"
    checkpoint = load_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = timm.create_model("digits_mlp", num_classes=10, checkpoint_path=str(path))
    loaded = model.state_dict()
    for name, tensor in checkpoint["state_dict_ema"].items():
        assert torch.equal(loaded[name], tensor)
    buffer = io.BytesIO(path.read_bytes())
    assert torch.load(buffer, weights_only=True)["epoch"] == 1
