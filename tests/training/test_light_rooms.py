"""The rooms of training that are read by commands which answer at once load nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from softmax_gradient_tampering import training

HEAVY = ("torch", "timm", "torchvision", "numpy", "PIL", "rich", "yaml")


@pytest.mark.parametrize("room", ["config", "records"])
def test_a_light_room_loads_nothing_heavy(room: str) -> None:
    folder = Path(training.__file__).with_name(room)
    modules = [f"{training.__name__}.{room}.{path.stem}" for path in sorted(folder.glob("*.py"))]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
