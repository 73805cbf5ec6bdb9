"""The recipes of docs/integrations.md run, and the page names the versions that they run with."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integrations.run_page import PAGE
from tests.test_docs import ROOT, blocks_of

LIBRARIES = ("transformers", "accelerate", "lightning", "skorch", "torchmetrics", "keras")
MISSING = [name for name in LIBRARIES if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"needs the extra [integrations]: {', '.join(MISSING)}")
def test_every_recipe_runs(tmp_path: Path) -> None:
    """In a process of their own: some set up the process for their framework."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.run_page"],
        cwd=tmp_path,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    recipes = [block for block in blocks_of(PAGE) if block.language == "python"]
    assert re.findall(r"^ran (.*)$", done.stderr, re.MULTILINE) == [str(each) for each in recipes]


def test_the_page_names_the_versions_that_are_pinned() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for name in (*LIBRARIES, "torch", "timm", "torchvision"):
        assert f" {name} {pins[name]}" in text
