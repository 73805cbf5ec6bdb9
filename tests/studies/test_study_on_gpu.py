"""The study for one GPU, rehearsed on a CPU with the smallest nets."""

import importlib.util
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from softmax_gradient_tampering.data.memory.cifar import load_cifar
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.printed import report_text
from softmax_gradient_tampering.studies.results.study_folder import open_study

PATH = Path(__file__).parents[2] / "tools" / "study_on_gpu.py"
NUM_RUNS = 2 * 8 + 4  # seeds times arms, and the tuning's


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("study_on_gpu", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images of ten classes, 2 of each to train on and 1 to validate."""
    generator = np.random.default_rng(0)
    for split, number in (("train", 2), ("val", 1)):
        for label in range(10):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for name in range(number):
                pixels = generator.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}.png")
    return tmp_path / "images"


def test_images_are_packed_as_they_are(tool: Any, images: Path, tmp_path: Path) -> None:
    packed = tool.pack(images, tmp_path / "packed")
    splits = [load_cifar(10, folder, "train", "val") for folder in (packed, images)]
    for ours, theirs in zip(*splits, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert tool.pack(packed, tmp_path / "again") == packed


@pytest.mark.usefixtures("in_process")
def test_a_net_is_studied_with_the_seeds_that_fit(
    tool: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(images), "--output", str(tmp_path), "--net", "resnet8", "--epochs", "1"]
    args = tool._parser().parse_args([*words, "--jobs", "2"])
    left = []

    def two_fit(*given: Any) -> int:
        left.append(tool_says(*given))
        return 2

    tool_says = tool.seeds_that_fit
    monkeypatch.setattr(tool, "seeds_that_fit", two_fit)
    tool.study_net("no-norm", args, time.monotonic() - 1, nullcontext())
    assert left == [1]  # the time is over
    study = open_study(tmp_path / "no-norm")
    states = [study.read(cell).state for cell in study.plan.cells]
    assert states == [State.FINISHED] * NUM_RUNS
    assert not study.plan.is_sequential
    assert "tuned" in report_text(study.path)
    tool.study_net(
        "no-norm", args, time.monotonic() + 1e6, nullcontext()
    )  # does what is missing: nothing
    assert open_study(study.path).plan == study.plan


def test_what_fits_follows_from_the_first_seed(tool: Any, tmp_path: Path) -> None:
    class Study:
        cells_path = tmp_path
        plan = type("Plan", (), {"arms": [type("Arm", (), {"kind": "tampered"})] * 8})

    for number in range(12):  # 12 runs in 60 s
        for name, moment in (("args.yaml", 10 + 5 * number), ("result.json", 15 + 5 * number)):
            path = tmp_path / str(number) / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
            os.utime(path, (moment, moment))
    # A seed is 8 runs in 40 s.
    assert tool.seeds_that_fit(Study, 0.0) == 1
    assert tool.seeds_that_fit(Study, (3 * 40 + 1) / 0.9) == 4
    assert tool.seeds_that_fit(Study, 1e9) == tool.MOST_SEEDS


@pytest.mark.slow
def test_both_nets_are_begun_and_stopped_when_the_time_is_over(
    images: Path, tmp_path: Path
) -> None:
    words = [str(images), "--output", str(tmp_path), "--net", "resnet8", "--epochs", "1"]
    command = [sys.executable, str(PATH), *words, "--jobs", "2", "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "resnet8_narrow_wobn" in done.stdout
    assert list(tmp_path.glob("*/cells/*.lock")) == []
