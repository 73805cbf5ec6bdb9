"""timm's programs read what this one writes.

Its scripts are no part of the package: SGT_TIMM_REPOSITORY names a folder that holds them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from timm.models import load_state_dict as timm_weights

from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from tests.training.runs import environment, train

REPOSITORY = os.environ.get("SGT_TIMM_REPOSITORY")


@pytest.fixture
def words(tmp_path: Path, make_images: Callable[..., Path]) -> tuple[str | int, ...]:
    data = make_images(tmp_path / "photos", {"ant": 4, "bee": 4})
    return ("--data_dir", str(data), "--model", "test_resnet", "--img-size", 32, "-b", 4, "-j", 0)


def test_weights_of_a_model_in_channels_last_become_safetensors(
    words: tuple[str | int, ...], tmp_path: Path
) -> None:
    train(*words, "--epochs", 1, "--model-ema", "--output", "out", "--experiment", "a")
    for uses_average in (False, True):
        weights = timm_weights("out/a/last.pth.tar", use_ema=uses_average)
        safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
        model = timm.create_model(
            "test_resnet", num_classes=2, checkpoint_path=str(tmp_path / "weights.safetensors")
        )
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
    timm.create_model("test_resnet", num_classes=2, checkpoint_path="out/a/model_best.pth.tar")
    words += ("--initial-checkpoint", str(tmp_path / "weights.safetensors"))
    assert train(*words, "--validate").status == "validated"


def run_script(name: str, *arguments: str) -> str:
    assert REPOSITORY is not None
    command = [sys.executable, str(Path(REPOSITORY, name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(REPOSITORY is None, reason="timm's scripts are not at hand")
def test_timms_scripts(words: tuple[str | int, ...]) -> None:
    train(*words, "--epochs", 2, "--output", "out", "--experiment", "a")
    data, size = str(words[1]), ("--num-classes", "2", "--img-size", "32", "--device", "cpu")
    common = ("--data-dir", data, "--model", "test_resnet", *size, "-b", "4", "-j", "0")
    output = run_script(
        "validate.py", *common, "--split", "val", "--checkpoint", "out/a/last.pth.tar"
    )
    found = json.loads(output.split("--result")[1])
    assert found["model"] == "test_resnet"
    for extra in ((), ("--safetensors",)):
        target = "mean.safetensors" if extra else "mean.pth"
        source = ("--input", "out/a", "--filter", "checkpoint-*")
        run_script("avg_checkpoints.py", *source, "--output", target, *extra)
        assert Path(target).exists()
        assert train(*words, "--validate", "--initial-checkpoint", target).status == "validated"
    run_script(
        *("train.py", *common, "--train-split", "train", "--val-split", "val", "--opt", "sgd"),
        *("--epochs", "4", "--warmup-epochs", "0", "--cooldown-epochs", "0"),
        *("--resume", "out/a/last.pth.tar", "--output", "timm", "--experiment", "b"),
    )
    lines = Path("timm/b/summary.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "3"]
    timms = Path("timm/b/last.pth.tar")
    assert load_checkpoint(timms)["epoch"] == 3
    back = train(*words, "--epochs", 5, "--resume", timms, "--output", "out", "--experiment", "b")
    assert [row["epoch"] for row in back.rows] == [5]
