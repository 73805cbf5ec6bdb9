"""Imports run downhill: the rooms' floors, and what `import` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import softmax_gradient_tampering

PACKAGE = Path(softmax_gradient_tampering.__file__).parent
NAME = "softmax_gradient_tampering"

# room: the rooms and third parties that it may import besides the standard library
ALLOWED = {
    "loss": {"torch", "triton"},
    "errors": set(),
    "models": {"torch", "timm", "errors"},
    "data": {"torch", "timm", "numpy", "PIL", "sklearn", "nvidia", "rich", "errors"},
    "training": {
        *("torch", "timm", "torchvision", "numpy", "yaml", "rich", "wandb"),
        *("errors", "loss", "models", "data"),
    },
    "recipes": {"yaml", "errors", "training"},
    "studies": {
        *("torch", "numpy", "scipy", "matplotlib", "rich", "yaml", "optuna"),
        *("errors", "loss", "recipes", "training"),
    },
    "cli": {"errors", "data", "training", "recipes", "studies", NAME},
    "__init__": {"loss"},
}
# Of training, studies see these modules alone, never the loop.
STUDIES_SEE = {"arguments", "calibration", "config", "files", "records", "run", "yaml_files"}


def imports_of(path: Path) -> set[str]:
    """Dotted names of a module's imports; `from package import name` counts as package.name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module in (NAME, f"{NAME}.training"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_room_imports_only_what_it_stands_on(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top in sys.stdlib_module_names:
            continue
        target = (rest[0] if rest else NAME) if top == NAME else top
        if target.startswith("__version__") or (target == NAME and rest == []):
            continue
        assert target == room or target in ALLOWED[room], f"{path} imports {name}"
        if room == "studies" and target == "training":
            assert rest[1] in STUDIES_SEE, name


def test_importing_the_package_loads_torch_and_nothing_else_heavy() -> None:
    heavy = ("timm", "torchvision", "nvidia.dali", "triton", "matplotlib", "scipy", "sklearn")
    code = (
        "import torch, sys; before = set(sys.modules); import softmax_gradient_tampering; "
        f"new = set(sys.modules) - before; print([m for m in {heavy!r} if m in new])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
