"""Ctrl-C while the program is being loaded, sent by a module in the middle of its import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A library that goes on after anything that is raised in its import.
SLOW = """\
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10**6): pass
except BaseException:
    pass
"""
HEED = "from softmax_gradient_tampering.terminal.interruption import end_on_interrupted_import\n"
# A shell's child in the background may have it ignored.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def run(
    *words: str | Path, folder: Path, code: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with the modules of a folder in the place of others of their names."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *(["-c", code] if code else []), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_an_interrupted_import_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    done = run(folder=tmp_path, code=LISTEN + HEED + "end_on_interrupted_import(); import slow")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_elsewhere_it_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    code = (
        LISTEN + HEED + "import os; end_on_interrupted_import()\n"
        "try: os.kill(os.getpid(), signal.SIGINT); [None for _ in range(10**6)]\n"
        "except KeyboardInterrupt: print('heard')"
    )
    done = run(folder=tmp_path, code=code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


def test_where_it_is_ignored_it_stays_so(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + HEED
    done = run(folder=tmp_path, code=code + "end_on_interrupted_import(); import slow")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "softmax_gradient_tampering", "train", "--epochs", "1"),
        (ROOT / "train.py", "--epochs", "1"),
    ],
    ids=["sgt train", "train.py"],
)
def test_the_program_ends_without_a_traceback(
    tmp_path: Path, command: tuple[str | Path, ...]
) -> None:
    (tmp_path / "timm.py").write_text(SLOW)
    (tmp_path / "sitecustomize.py").write_text(LISTEN)
    done = run(*command, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
