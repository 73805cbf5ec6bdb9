"""The check of a GPU, gone through on a CPU at small size."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(folder: Path, *sections: str, seconds: int = 500) -> tuple[int, str]:
    command = [sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--out", str(folder)]
    command += ["--seconds", str(seconds), "--sections", *sections]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def read_rows(folder: Path) -> list[dict[str, str]]:
    return [
        row
        for path in folder.glob("*.csv")
        for row in csv.DictReader(path.read_text().splitlines())
    ]


def assert_all_is_measured(folder: Path, *benchmarks: str) -> None:
    rows = read_rows(folder)
    assert {row["benchmark"] for row in rows} >= set(benchmarks)
    missing = [
        (row["subject"], row["variant"], row["metric"])
        for row in rows
        if row["p50"] == "not measured" and row["subject"] != "versions"
    ]
    assert missing == []


def test_the_sections_of_the_losses_and_the_step_go_through(tmp_path: Path) -> None:
    code, printed = check(tmp_path, "environment", "loss", "linear", "step")
    assert code == 0, printed
    assert_all_is_measured(tmp_path, "gpu-environment", "gpu-loss", "gpu-linear", "gpu-step")
    assert "float32 64x1000" in printed  # the table


@pytest.mark.slow
def test_the_sections_of_behaviour_and_whole_runs_go_through(tmp_path: Path) -> None:
    code, printed = check(tmp_path, "suite", "behaviour", "program")
    assert code == 0, printed
    assert_all_is_measured(tmp_path, "gpu-behaviour", "gpu-program")
    codes = [row for row in read_rows(tmp_path) if row["metric"] == "exit code"]
    assert [row["p50"] for row in codes] == ["0"] * len(codes)


def test_what_has_no_time_is_said_and_ends_badly(tmp_path: Path) -> None:
    code, printed = check(tmp_path, "loss", seconds=1)
    assert code == 1
    assert "loss: no time left" in printed
    assert "1 of 1 sections fell short" in printed
