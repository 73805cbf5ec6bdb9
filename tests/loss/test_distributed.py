"""Logits that lie on two processes: DTensor in every layout, FSDP2, tensor parallel."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

LAYOUTS = ("whole", "by rows", "by classes")
NAMES = (
    *(
        f"{loss}, {layout}"
        for loss in ("function", "alpha as a tensor", "none", "module", "binary")
        for layout in (*LAYOUTS, "by classes, loss_parallel")
    ),
    *(f"linear, {layout}" for layout in LAYOUTS),
    *("FSDP2", "tensor parallel", "tensor parallel, loss_parallel"),
)


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What differed from one process, by name; empty where nothing did."""
    result = tmp_path_factory.mktemp("two processes") / "found.json"
    script = Path(__file__).with_name("distributed_losses.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, script, result], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo")
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_loss_and_gradients_of_one(name, differences):
    if name.startswith("binary") and name not in differences:
        pytest.skip("torch's own binary cross-entropy takes no DTensor here")
    assert differences[name] == ""
    assert {*differences} >= {name for name in NAMES if not name.startswith("binary")}
