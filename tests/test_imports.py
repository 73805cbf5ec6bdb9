"""Imports run downhill: who may import whom, no circles, and what `import` may load."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import softmax_gradient_tampering

PACKAGE = Path(softmax_gradient_tampering.__file__).parent
NAME = "softmax_gradient_tampering"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})
MOST_FILES = 13  # of a folder, its __init__ among them

# room: the rooms and third parties that it may import besides the standard library
ALLOWED = {
    "errors": set(),
    "terminal": {"rich", "errors"},
    "files": {"yaml", "errors"},
    "loss": {"torch", "triton"},
    "models": {"torch", "timm", "errors"},
    "data": {"torch", "timm", "numpy", "PIL", "sklearn", "scipy", "nvidia", "errors", "files"},
    "training": {
        *("torch", "timm", "torchvision", "safetensors", "numpy", "yaml", "wandb"),
        *("errors", "terminal", "files", "loss", "models", "data"),
    },
    "recipes": {"yaml", "errors"},
    "studies": {
        *("torch", "numpy", "scipy", "matplotlib", "jinja2", "markupsafe", "optuna"),
        *("errors", "terminal", "files", "loss", "recipes", "training"),
    },
    "commands": {
        *("errors", "terminal", "files", "data", "training", "recipes", "studies"),
    },
    "cli": {"errors", "terminal", "commands", "training"},
    "program": {"terminal", "cli", "commands"},
    "__main__": {"program"},
    "__init__": {"loss"},
}
# Of training, studies see the configuration, the records and the entry, never the loop.
STUDIES_SEE = {"config", "records", "measure.calibration", "measure.classes", "run"}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names of a module's imports; `from room import module` counts as room.module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if _file_of(inner) else node.module)
    return frozenset(names)


def _file_of(dotted: str) -> Path | None:
    """The file of a module of this package."""
    top, *rest = dotted.split(".")
    path = PACKAGE.joinpath(*rest)
    candidates = [path / "__init__.py", path.with_suffix(".py")] if top == NAME else []
    return next((candidate for candidate in candidates if candidate.exists()), None)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_stands_on(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top in sys.stdlib_module_names:
            continue
        target = (rest[0] if rest else NAME) if top == NAME else top
        if target == NAME and room != "__init__":
            continue  # its version
        assert target == room or target in ALLOWED[room], f"{path} imports {name}"
        if room == "studies" and target == "training":
            seen = ".".join(rest[1:])
            assert any(seen == module or seen.startswith(f"{module}.") for module in STUDIES_SEE), (
                f"{path} imports {name}"
            )


def arrows_in(folder: Path) -> dict[str, set[str]]:
    """Which of a folder's files and sub-folders import which others of them, at any depth."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        if not path.is_relative_to(folder) or path == folder / "__init__.py":
            continue
        origin = path.relative_to(folder).parts[0]
        for name in imports_of(path):
            file = _file_of(name)
            if file is not None and file.is_relative_to(folder) and file.parent != folder.parent:
                target = file.relative_to(folder).parts[0]
                if target not in (origin, "__init__.py"):
                    arrows[origin].add(target)
    return arrows


def find_circle(arrows: dict[str, set[str]]) -> list[str]:
    """The names along one circle; none where there is none."""
    finished: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[list[str]]:
        if name in way:
            yield [*way[way.index(name) :], name]
        elif name not in finished:
            for target in sorted(arrows.get(name, ())):
                yield from walk(target, [*way, name])
            finished.add(name)

    return next((circle for name in sorted(arrows) for circle in walk(name, [])), [])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_no_circle_among_the_files_and_rooms_of_a_folder(folder: Path) -> None:
    assert find_circle(arrows_in(folder)) == []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_a_room_is_small_and_says_what_may_be_in_it(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert "mport" in docstring, "its __init__ says what may be in the room and what it may import"
    assert "\n\n" in docstring, "a line that names the room, and a paragraph"


HEAVY = {"torch", "timm", "torchvision", "nvidia", "triton", "numpy", "matplotlib", "scipy", "rich"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import softmax_gradient_tampering", set()),
        ("from softmax_gradient_tampering import tampered_cross_entropy", {"torch"}),
        ("from softmax_gradient_tampering import *; TamperedCrossEntropyLoss(0.5)", {"torch"}),
        ("import softmax_gradient_tampering as s; s.loss.functional", {"torch"}),
    ],
)
def test_what_importing_the_package_loads(code: str, expected: set[str]) -> None:
    """Besides what torch itself loads."""
    first = "import torch; " if expected else ""
    code = (
        f"import sys; {first}before = set(sys.modules) - {{'torch'}}; {code}; "
        f"print(*({HEAVY!r} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


def test_the_package_knows_its_public_names_and_no_other() -> None:
    assert set(softmax_gradient_tampering.__all__) <= set(dir(softmax_gradient_tampering))
    for name in softmax_gradient_tampering.__all__:
        public = getattr(softmax_gradient_tampering, name)
        assert public is getattr(softmax_gradient_tampering.loss, name)
    with pytest.raises(AttributeError, match="no attribute 'tampered_crossentropy'"):
        getattr(softmax_gradient_tampering, "tampered_crossentropy")  # noqa: B009
