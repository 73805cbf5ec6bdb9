"""The package's own tests that only a GPU can run, in as many processes as there are cores."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from gpu.timing import Sink
from timer import Row

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/loss/test_cuda.py",
    "tests/loss/test_triton.py",
    "tests/loss/test_fused.py",
    "tests/loss/test_linear_passes.py",
)


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    sink = Sink("gpu-behaviour")
    tests = TESTS if device.type == "cuda" else TESTS[:1]
    spread = [] if device.type == "cpu" else ["-n", str(min(12, len(os.sched_getaffinity(0))))]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE", *spread]
    command += ["-o", "addopts=", "--import-mode=importlib", "--tb=short", *tests]
    with sink.trying(" ".join(tests), "tests", "passed"), tempfile.TemporaryFile("w+") as printed:
        left = max(1.0, deadline - time.monotonic())
        process = subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
        try:
            process.wait(left)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        printed.seek(0)
        text = printed.read()
        print(text[-60_000:])
        for name, number in count(text).items():
            sink.add(" ".join(tests), "tests", name, "tests", p50=str(number))
    yield from sink


def count(text: str) -> dict[str, int]:
    """How many tests passed, failed, broke and were skipped; of a run cut short, those seen.

    Raises:
        RuntimeError: pytest says of none.
    """
    last = (text.strip().splitlines() or [""])[-1]
    said = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", last)}
    found = {name: said.get(name, 0) for name in ("passed", "failed", "errors", "skipped")}
    if not any(found.values()):  # cut short: a sign for every test that ended
        signs = "".join(re.findall(r"^([.FEsx]+)", text, re.MULTILINE))
        found = {n: signs.count(c) for n, c in zip(found, ".FEs", strict=True)}
        found["not finished"] = 1
    if not any(number for name, number in found.items() if name != "not finished"):
        raise RuntimeError(f"pytest says of no test: {last}")
    return found
