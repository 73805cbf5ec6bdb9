"""Whole runs of `train.py` on a GPU, on JPEG files that are made here, and a small study.

A row says whether a run ended well, and its seconds of wall time, the start included.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gpu.timing import Sink, is_past
from timer import Row

ROOT = Path(__file__).parents[2]


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="sgt-gpu-check-") as folder:
        images = Path(folder) / "images"
        _make_images(images, num_train=512 if device.type == "cuda" else 32)
        for name, command in _commands(device, images, Path(folder) / "runs").items():
            if is_past(deadline):
                return
            yield from _run(name, command, deadline)


def _make_images(root: Path, num_train: int) -> None:
    """Coarse random pictures of four classes, of 400 x 300."""
    random = np.random.default_rng(0)
    for split, number in (("train", num_train), ("val", num_train // 4)):
        for label in range(4):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(number // 4):
                coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((400, 300)).save(folder / f"{index}.jpg")


def _commands(device: torch.device, images: Path, output: Path) -> dict[str, list[str]]:
    is_gpu = device.type == "cuda"
    train = [sys.executable, "train.py"]
    plain = ["--device", device.type, "--modify-softmax", "0.25", "--output", str(output)]
    jpeg = [*train, *plain, "--data_dir", str(images), "--model", "resnet18", "--logit-stats"]
    jpeg += ["--img-size", "224" if is_gpu else "32", "--batch-size", "64" if is_gpu else "8"]
    jpeg += ["--workers", str(min(12, len(os.sched_getaffinity(0)))) if is_gpu else "0"]
    jpeg += ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "--lr", "0.01"]
    sgt = [sys.executable, "-c", "from softmax_gradient_tampering.program import sgt; sgt()"]
    study = [*sgt, "study", "run", "--name", "small", "--output", str(output)]
    commands = {
        "digits, one epoch": [*train, *plain, "--epochs", "1"],
        "JPEG, amp, three steps": [*jpeg, "--amp", "--max-steps", "3", "--experiment", "few"],
        "JPEG, amp, resumed": [*jpeg, "--amp", "--experiment", "few", "--resume", "auto"],
        "JPEG, bfloat16, mixup, averaged weights, clipping": [
            *(*jpeg, "--amp", "--amp-dtype", "bfloat16", "--smoothing", "0.1", "--mixup", "0.2"),
            *("--model-ema", "--clip-grad", "1", "--experiment", "mixed"),
        ],
        "JPEG, compiled, alpha schedule": [
            *(*jpeg, "--torchcompile", "--alpha-schedule", "cosine", "--alpha-end", "0.5"),
            *("--experiment", "compiled"),
        ],
        "JPEG, erasing, accumulation": [
            *(*jpeg, "--reprob", "0.3", "--grad-accum-steps", "2", "--experiment", "erased"),
        ],
        "study of digits, four jobs on one device": [
            *(*study, "--alphas", "1", "0.25", "--seeds", "2", "--jobs", "4" if is_gpu else "1"),
            *("--", "--epochs", "2", "--device", device.type),
        ],
    }
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        gpu = ["--dali-gpu"] if is_gpu else []
        commands["JPEG, DALI"] = [*jpeg, "--dali", *gpu, "--experiment", "dali"]
    return commands


def _run(name: str, command: list[str], deadline: float) -> Iterator[Row]:
    sink = Sink("gpu-program")
    started = time.monotonic()
    with sink.trying(name, "run", "exit code"):
        left = max(1.0, deadline + 20 - started)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
        print(f"== {name}: exit code {done.returncode}")
        print("\n".join((done.stdout + done.stderr).strip().splitlines()[-30:]))
        sink.add(name, "run", "exit code", "1", p50=str(done.returncode))
        seconds = f"{time.monotonic() - started:.3g}"
        sink.add(name, "run", "wall time", "s", p50=seconds)
    yield from sink
