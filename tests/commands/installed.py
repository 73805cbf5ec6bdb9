"""The package as it is installed: its wheel in an environment with torch and nothing else."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


class Installed:
    """An environment of its own, in which the wheel and the named distributions are found.

    Args:
        folder: to make it in.
        distributions: those of this environment that are there too, with all that they require.
    """

    def __init__(self, folder: Path, *distributions: str) -> None:
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._packages = folder / "venv" / "lib" / version / "site-packages"
        for name in sorted({name for root in distributions for name in _required(root)}):
            self._link(metadata.distribution(name))
        with zipfile.ZipFile(_build_wheel(folder)) as wheel:
            wheel.extractall(self._packages)

    def run(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run its Python in a folder."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self.python), *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def sgt(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run `sgt`, as the script that pip writes does."""
        (package,) = metadata.distributions(
            name="softmax-gradient-tampering", path=[str(self._packages)]
        )
        (entry,) = package.entry_points.select(group="console_scripts", name="sgt")
        code = f"from {entry.module} import {entry.attr}; {entry.attr}()"
        return self.run("-c", code, *words, folder=folder)

    def _link(self, distribution: metadata.Distribution) -> None:
        """Make a distribution's packages, modules and metadata importable by links."""
        for parts in {_package(file.parts) for file in distribution.files or ()}:
            link = self._packages.joinpath(*parts)
            if ".." not in parts and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution.locate_file("/".join(parts)))))


def _package(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Of a file's path the package that is linked; several distributions share some."""
    return parts[: 2 if parts[0] in ("cuda", "nvidia") else 1]


def _required(name: str, extras: frozenset[str] = frozenset({""})) -> set[str]:
    """The distributions that one needs here, itself among them."""
    found: set[str] = set()

    def visit(name: str, extras: frozenset[str]) -> None:
        found.add(name)
        for text in metadata.distribution(name).requires or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                canonical = re.sub(r"[-_.]+", "-", needed.name).lower()
                if canonical not in found or needed.extras:
                    visit(canonical, frozenset({"", *needed.extras}))

    visit(name, extras)
    return found


def _build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
