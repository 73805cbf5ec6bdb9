"""Builds the sdist and the wheel, and checks what is in them and that the wheel works alone.

usage: make dist
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "softmax_gradient_tampering"
CODE_SUFFIXES = {".py", ".typed", ".yaml", ".cpp", ".h", ".css", ".html", ".svg"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", metavar="DIR", help="of both files (dist)"
    )
    out: Path = parser.parse_args().out
    for path in [*out.glob("*.whl"), *out.glob("*.tar.gz")]:
        path.unlink()
    _run("-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT))
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    _run("-m", "twine", "check", "--strict", str(wheel), str(sdist))
    check_installed(wheel)
    print(f"{wheel}\n{sdist}")


def check_wheel(path: Path) -> None:
    """The package whole, and nothing else."""
    names = {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    expected = {
        file.relative_to(source).as_posix()
        for file in (source / PACKAGE).rglob("*")
        if file.suffix in CODE_SUFFIXES
    }
    _say_difference(path, names, expected)


def check_sdist(path: Path) -> None:
    """What git keeps; a new file is added to git first."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    _say_difference(path, names - {"PKG-INFO"}, set(kept))


def check_installed(wheel: Path) -> None:
    """The program starts from the wheel alone, in a folder that holds nothing of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        _run("-m", "pip", "install", "-q", "--no-deps", "--target", folder, str(wheel))
        program = f"import {PACKAGE}; print({PACKAGE}.__file__); " + (
            f"from {PACKAGE}.program import sgt; sgt()"
        )
        for words in (["--version"], ["recipes"]):
            done = subprocess.run(
                [sys.executable, "-c", program, *words],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": folder},
                capture_output=True,
                text=True,
            )
            if done.returncode or not done.stdout.startswith(folder):
                raise SystemExit(f"sgt {' '.join(words)}, installed:\n{done.stdout}{done.stderr}")


def _say_difference(path: Path, found: set[str], expected: set[str]) -> None:
    if found != expected:
        lacking, more = sorted(expected - found), sorted(found - expected)
        raise SystemExit(f"{path.name} lacks {lacking} and has too much {more}")


def _run(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
