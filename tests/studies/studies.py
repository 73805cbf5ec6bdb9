"""Studies in a test: small ones, and a runner that trains in this process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.driver import Driver
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.plan.plan import Cell, Plan, State
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, create_study
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.run import run

EVERYTHING = (
    *("--alphas", "1", "0.25", "0.3", "--seeds", "3,5", "--controls", "equivalent", "tuned"),
    *("--grid", "lr=0.05,0.1", "weight_decay=5e-4,2e-2", "--tuning-seeds", "1"),
    *("--alpha-schedules", "linear:1:0.25", "cosine:0.5:0.1", "--holdout", "0.3"),
)
TRAINING = ("--epochs", "1", "-b", "256", "--model", "digits_mlp_plain", "--lr", "0.02")


def plan_of(*words: str, training: tuple[str, ...] = TRAINING) -> Plan:
    """The plan of a command line."""
    return parse_run(["--name", "small", *words, "--", *training]).plan


def study_of(*words: str, training: tuple[str, ...] = TRAINING) -> StudyFolder:
    """A study on disk, none of it run."""
    return create_study(Path("studies/small"), plan_of(*words, training=training))


class InProcess:
    """Trains one run after another in this process, and remembers which.

    Args:
        fails: ids of cells, and how often each of them fails first.
    """

    def __init__(self, fails: dict[str, int] | None = None) -> None:
        self.fails = dict(fails or {})
        self.started: list[str] = []
        self._waiting: list[tuple[str, Config]] = []

    @property
    def num_idle(self) -> int:
        return 1 - len(self._waiting)

    def start(self, key: str, config: Config, is_trial: bool = False) -> None:
        if is_trial:
            config = replace(config, dry_run=True)
        self.started.append(key)
        self._waiting.append((key, config))

    def wait(self, timeout_s: float) -> list[Ended]:
        if not self._waiting:
            return []
        key, config = self._waiting.pop()
        if self.fails.get(key, 0) > 0:
            self.fails[key] -= 1
            return [Ended(key, "the disk is full")]
        try:
            run(config, is_silent=True)
        except UserError as error:
            return [Ended(key, str(error))]
        return [Ended(key)]

    def stop(self) -> None:
        pass


def launch(study: StudyFolder, runner: InProcess | None = None) -> Driver:
    """Work on a study in this process until nothing is left to do."""
    driver = Driver(study, runner or InProcess(), StudyProgress(is_silent=True))
    driver.run()
    return driver


def states(study: StudyFolder) -> list[State]:
    """What has become of the cells, in the plan's order."""
    return [study.read(cell).state for cell in study.plan.cells]


def result_of(study: StudyFolder, cell: Cell) -> dict[str, Any]:
    """The result.json of a finished cell."""
    run = study.read(cell).run
    assert run is not None
    return dict(run.result)
