"""The examples run as they are, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_the_language_model_learns_alike_with_and_without_logits() -> None:
    printed = run_example("tiny_language_model.py", "--steps", "21")
    rows = [
        list(map(float, line)) for line in re.findall(r"^ *(\d+) +(\S+) +(\S+)$", printed, re.M)
    ]
    assert [step for step, *_ in rows] == [1, 11, 21]
    assert rows[-1][1] < 0.8 * rows[0][1]
    # Float32 losses of some 10, whose last places the training passes on.
    for _, without_logits, with_logits in rows:
        assert abs(without_logits - with_logits) < 2e-3
