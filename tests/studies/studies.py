"""Studies in a test: small ones, and a runner that trains in this process."""

from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch.launch import Launch
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.plan.plan import Plan
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, create_study
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.run import run

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

    def start(self, key: str, config: Config) -> None:
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


def launch(study: StudyFolder, runner: InProcess | None = None) -> Launch:
    """Work on a study in this process until nothing is left to do."""
    work = Launch(study, runner or InProcess(), StudyProgress(is_silent=True))
    work.run()
    return work
