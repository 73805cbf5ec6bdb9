"""The tests of the Triton kernel, in Triton's interpreter, where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy

triton = pytest.importorskip("triton")
FILES = ("test_triton.py", "test_fused.py", "test_linear_passes.py")
ROOT = Path(__file__).parents[2]


def version(module):
    return tuple(map(int, module.__version__.split(".")[:2]))


@pytest.mark.skipif(
    version(triton) <= (3, 6) and version(numpy) >= (2, 4),
    reason="numpy 2.4 no longer converts what this interpreter has it convert",
)
def test_the_triton_kernel_passes_its_tests_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *(str(Path(__file__).with_name(name)) for name in FILES),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.skipif(
    torch.cuda.is_available() or "TRITON_INTERPRET" in os.environ, reason="Triton can run here"
)
def test_triton_without_gpu_and_interpreter_is_refused():
    logits, target = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match=r"'triton' cannot run on cpu.*TRITON_INTERPRET=1"):
        tampered_cross_entropy(logits, target, 0.25, kernel="triton")
