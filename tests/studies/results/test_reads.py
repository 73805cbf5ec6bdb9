"""How often a study's files are opened: each file of a cell at most once, by every command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.study_folder import open_study
from tests.studies.synthetic import ARMS, Size, cell_folder, write_study

COUNT = """
import json, sys
from collections import Counter
from softmax_gradient_tampering.cli import main

opened = Counter()

def count(event, args):
    if event == "open" and isinstance(args[0], str) and "/cells/" in args[0]:
        opened[args[0]] += 1

sys.addaudithook(count)
assert main(sys.argv[1:]) == 0
print(json.dumps([opened, list(sys.modules)]))
"""


def run_and_look(*words: str) -> tuple[dict[str, int], set[str]]:
    """How often the files of cells are opened by a command, and the modules that it loads."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *words], capture_output=True, text=True, check=True
    )
    opened, modules = json.loads(done.stdout.splitlines()[-1])
    return opened, set(modules)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = Size(num_epochs=3, num_samples=40, num_classes=4, num_filters=2)
    folder = write_study(tmp_path_factory.mktemp("reads") / "study", ARMS, range(3), size)
    failed = cell_folder(folder, "alpha-0.5", 0)
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text('{"attempts": 2, "error": "the disk is full"}')
    (cell_folder(folder, "alpha-0.5", 1) / "args.yaml").write_text("lr: 7\n")
    running = next(c for c in open_study(folder).plan.cells if (c.arm, c.seed) == ("tuned", 0))
    (cell_folder(folder, "tuned", 0) / "result.json").unlink()
    assert claims.claim(open_study(folder).lock_path(running))
    return folder


@pytest.mark.parametrize("command", [("study", "status"), ("report",)])
def test_each_file_of_a_cell_is_opened_once(study: Path, command: tuple[str, ...]) -> None:
    opened, modules = run_and_look(*command, str(study))
    assert set(opened.values()) == {1}
    for name in ("args.yaml", "summary.csv", "result.json", "predictions.npz"):
        # All cells but a failed, an edited and a running one.
        assert sum(Path(path).name == name for path in opened) >= len(ARMS) * 3 - 3, name
    if command == ("study", "status"):
        assert not modules & {"torch", "timm", "scipy.stats", "matplotlib"}


def test_cells_of_equal_settings_are_read_once(study: Path, tmp_path: Path) -> None:
    plan = json.loads((study / "plan.json").read_text())
    ids = {(cell["arm"], cell["seed"]): cell["id"] for cell in plan["cells"]}
    settings = {arm["name"]: arm["overrides"] for arm in plan["arms"]}
    settings["tuned"].clear()
    settings["tuned"].update(settings["baseline"])
    for cell in plan["cells"]:
        if cell["arm"] == "tuned":
            cell["id"] = ids["baseline", cell["seed"]]
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "cells").symlink_to(study / "cells")
    (shared / "plan.json").write_text(json.dumps(plan))
    for command in (("study", "status"), ("report",)):
        opened, _ = run_and_look(*command, str(shared))
        assert set(opened.values()) == {1}
        assert not any(ids["tuned", 1] in path for path in opened)
