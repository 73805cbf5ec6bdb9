"""The declared versions of Python and torch, one after the other: `make test-versions`.

Every torch with the oldest Python at hand, and the oldest and the newest torch with the others.
Each gets an environment of its own, which is removed again; packages come from the network.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a torch of another version decides for itself.
UNPINNED = re.compile(r"(torch|torchvision|triton|nvidia-|cuda-)")
SHOW = "import platform, torch; print(platform.python_version(), 'torch', torch.__version__)"
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "tensorboard", "hatchling", "packaging")
PART = (
    *("tests/loss", "tests/models", "tests/data", "tests/recipes", "tests/training"),
    *("tests/studies", "tests/commands", "tests/terminal", "tests/files", "tests/test_imports.py"),
)


def main() -> int:
    """Try the versions; returns 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", nargs="+", help="minor versions; all that are declared")
    parser.add_argument("--python", nargs="+", help="minor versions; all that are at hand")
    parser.add_argument("--folder", type=Path, default=ROOT / ".versions", help=".versions")
    parser.add_argument("--tests", nargs="+", default=PART, help=" ".join(PART))
    args = parser.parse_args()
    pythons = {v: path for v, path in find_pythons().items() if v in (args.python or [v])}
    results = [
        try_versions(args.folder, pythons[python], torch, args.tests)
        for python, torch in combinations(list(pythons), args.torch or declared_torches())
    ]
    print("\n".join(["", *(line for _, line in results)]))
    return 0 if results and all(is_good for is_good, _ in results) else 1


def declared_torches() -> list[str]:
    """The minor versions of torch that pyproject.toml allows."""
    (requirement,) = (text for text in PROJECT["dependencies"] if text.startswith("torch"))
    allowed = SpecifierSet(requirement.removeprefix("torch"))
    return [f"2.{minor}" for minor in range(100) if f"2.{minor}.0" in allowed]


def find_pythons() -> dict[str, Path]:
    """The interpreters at hand of the minor versions that pyproject.toml allows."""
    found: dict[str, Path] = {}
    for minor in range(100):
        version = f"3.{minor}"
        if f"{version}.0" not in SpecifierSet(PROJECT["requires-python"]):
            continue
        candidates = [shutil.which(f"python{version}")]
        candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        for candidate in filter(None, candidates):
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if done.stdout.startswith(f"Python {version}."):
                found[version] = Path(candidate)
                break
    return found


def combinations(pythons: list[str], torches: list[str]) -> Iterator[tuple[str, str]]:
    """Which versions are tried together."""
    for python in pythons:
        for torch in torches:
            if python == pythons[0] or torch in (torches[0], torches[-1]):
                yield python, torch


def try_versions(folder: Path, python: Path, torch: str, tests: list[str]) -> tuple[bool, str]:
    """Run the tests in an environment of these versions; whether they pass, and a line on it."""
    inner = make_environment(folder, python, torch)
    if inner is None:
        return False, f"{python} torch {torch}: cannot be installed"
    done = subprocess.run([inner, "-c", SHOW], check=True, capture_output=True, text=True)
    name = done.stdout.strip()
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("w") as file:
        command = [str(inner), "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", *tests]
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file).returncode
    shutil.rmtree(inner.parents[1])
    line = f"{name}: {'passed' if code == 0 else f'failed, see {log}'}"
    print(line, flush=True)
    return code == 0, line


def make_environment(folder: Path, python: Path, torch: str) -> Path | None:
    """The interpreter of a new environment; None where the versions cannot be installed."""
    path = folder / "venv"
    shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in pins if not UNPINNED.match(pin)) + "\n")
    subprocess.run([python, "-m", "venv", path], check=True)
    inner = path / "bin" / "python"
    command = [str(inner), "-m", "pip", "install", "--quiet", "-c", str(constraints)]
    command += [f"torch=={torch}.*", *TOOLS, "-e", f"{ROOT}[train,study,search]"]
    return inner if subprocess.run(command).returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
