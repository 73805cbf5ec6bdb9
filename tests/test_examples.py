"""The examples run as they are, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout


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


def test_fine_tuning_gives_the_predictions_of_its_equivalent() -> None:
    printed = run_example("fine_tune_classifier.py", "--epochs", "4")
    numbers = {
        line.split()[0]: [float(number) for number in line.split()[1:]]
        for line in printed.splitlines()
        if line.startswith(("ordinary", "tampered", "equivalent"))
    }
    assert min(row[0] for row in numbers.values()) > 90  # accuracy; a guess has 20
    # The equivalent training has the accuracy, and the calibration of softmax(alpha z).
    assert numbers["equivalent"][0] == numbers["tampered"][0]
    assert numbers["equivalent"][2] == numbers["tampered"][3] != numbers["tampered"][2]
    # Its logits are half as large, at alpha 0.5, and bit by bit alpha times the tampered ones.
    assert abs(numbers["tampered"][1] - 2 * numbers["equivalent"][1]) <= 0.2
    assert "by at most 0.0e+00." in printed


def test_the_segmentation_learns_and_its_folded_head_is_less_sure() -> None:
    printed = run_example("segmentation.py", "--steps", "40")
    rows = [list(map(float, line.split())) for line in printed.splitlines()[1:3]]
    assert [row[0] for row in rows] == [1.0, 0.5]
    for _, of_z, of_alpha_z, accuracy, iou in rows:
        assert max(of_z, of_alpha_z) < 0.4
        assert accuracy > 88  # all background has some 82
        assert iou > 40
    assert rows[0][1] == rows[0][2]
    assert rows[1][1] != rows[1][2]
