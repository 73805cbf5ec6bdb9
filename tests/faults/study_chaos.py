"""Studies whose driver is killed or whose disk fails, as `make chaos` plays them."""

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.cli import run_command
from tests.faults.disturbed import CALLS, KINDS
from tests.faults.draws import ERRORS, MOMENTS, Fault, draw_moment, few
from tests.studies.studies import launch, states, study_of
from tests.training.children import run_children
from tests.training.runs import assert_same_run

ROWS = 3
CELLS = 4
STUDY = ("--alphas", "1", "0.25", "--seeds", "2")
TRAINING = ("--epochs", "2", "-b", "256", "--lr", "0.02", "--recovery-interval", "2")


def disturbed_study(words: Sequence[str]) -> None:
    """Work on the study of this folder, each of its runs in this process, with a fault."""
    settings = json.loads(words[0])
    KINDS[settings.pop("kind")](**settings)

    def work(_: Sequence[str]) -> int:
        study = study_of(*STUDY, training=TRAINING)
        launch(study).raise_for_failures()
        return 0

    sys.exit(run_command("sgt study", work, []))


def _draw_fault(draw: random.Random) -> Fault:
    if draw.random() < 0.7:
        moment = draw_moment(draw, tuple(name for name in MOMENTS if name != "load"))
        passes = draw.randrange(CELLS * (moment["passes"] + 1))
        return {"kind": "signal", **moment, "passes": passes, "number": int(signal.SIGKILL)}
    fault = {"kind": "disk", "call": draw.choice(CALLS), "passes": few(draw, 100)}
    return fault | {"code": draw.choice(ERRORS), "stays": draw.random() < 0.7}


def play_study(seed: int, draw: random.Random, counts: Counter[str]) -> str:
    """A study against several rows of faults; returns what failed, or nothing."""
    story = [f"seed {seed}, a study"]
    try:
        _work(Path("whole"), {"kind": "none"})
        for _ in range(ROWS):
            shutil.rmtree("broken", ignore_errors=True)
            for _ in range(draw.choice((1, 2, 3))):
                fault = _draw_fault(draw)
                story.append(f"  {fault}")
                code = _work(Path("broken"), fault)
                story.append(f"  -> {code}")
                hit = ["with effect"] if code else []
                counts.update(("faults", "of a study", *hit))
            _work(Path("broken"), {"kind": "none"})
            _compare()
    except Exception:
        return "\n".join(story) + "\n" + traceback.format_exc()
    return ""


def _work(folder: Path, fault: Fault) -> int:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        done = run_children(disturbed_study, [json.dumps(fault)])
    finally:
        os.chdir("..")
    said = f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert done.returncode in ((0, 2, -signal.SIGKILL) if fault["kind"] != "none" else (0,)), said
    assert "Traceback" not in done.stderr, said
    return done.returncode


def _compare() -> None:
    whole, broken = Path("whole/studies/small"), Path("broken/studies/small")
    os.chdir("broken")
    try:
        study = study_of(*STUDY, training=TRAINING)
        assert states(study) == ["finished"] * CELLS
    finally:
        os.chdir("..")
    assert (broken / "plan.json").read_text() == (whole / "plan.json").read_text()
    cells = {path.name for path in (whole / "cells").iterdir()}
    names = {path.name for path in (broken / "cells").iterdir() if path.name[0] != "."}
    guards = {name for name in names if name.endswith(".breaking")}  # that could not be removed
    assert names - guards == cells, names ^ cells
    for name in cells:
        assert_same_run(broken / "cells" / name, whole / "cells" / name)
