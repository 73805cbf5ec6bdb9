"""The package's own tests that only a GPU can run, in as many processes as there are cores."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from gpu.timing import Sink
from timer import Row

ROOT = Path(__file__).parents[2]
TESTS = ("tests/loss/test_cuda.py", "tests/loss/test_triton.py")


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    sink = Sink("gpu-behaviour")
    tests = TESTS if device.type == "cuda" else TESTS[:1]
    spread = [] if device.type == "cpu" else ["-n", str(min(12, len(os.sched_getaffinity(0))))]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE", *spread]
    command += ["-o", "addopts=", "--import-mode=importlib", "--tb=short", *tests]
    with sink.trying(" ".join(tests), "tests", "passed"):
        left = max(1.0, deadline - time.monotonic())
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
        print(done.stdout[-30_000:], done.stderr[-3000:])
        last = (done.stdout.strip().splitlines() or ["nothing was printed"])[-1]
        found = {name: number for number, name in re.findall(r"(\d+) (\w+)", last)}
        if not found:
            raise RuntimeError(f"pytest printed no numbers: {last}")
        for name in ("passed", "failed", "errors", "skipped"):
            sink.add(" ".join(tests), "tests", name, "tests", p50=found.get(name, "0"))
    yield from sink
