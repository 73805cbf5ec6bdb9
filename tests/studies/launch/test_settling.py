"""Until settled: seeds are added where an arm is open, and nowhere else; it ends with a verdict."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
from softmax_gradient_tampering.studies.launch import runner
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.settling import add_seeds
from softmax_gradient_tampering.studies.plan.plan import Plan
from softmax_gradient_tampering.studies.report.text import results_json
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, open_study
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import COLUMNS, write_args

WORDS = ("study", "run", "--name", "small", "--output", "studies", "--jobs", "1")
TRAINING = ("--epochs", "1", "--model", "digits_mlp_plain")
PATH = Path("studies/small")


class MadeUp:
    """A runner that trains nothing: accuracies with an effect of alpha, a seed's, and noise.

    Args:
        effects: points of accuracy by alpha.
        noise: standard deviation of what is a run's own.
        diverges: alphas whose runs diverge.
        stops_after: runs, as when Ctrl-C is pressed.
    """

    def __init__(
        self,
        effects: Mapping[float, float],
        noise: float = 1.0,
        diverges: tuple[float, ...] = (),
        stops_after: int | None = None,
    ) -> None:
        self._effects = effects
        self._noise = noise
        self._diverges = diverges
        self._stops_after = stops_after
        self._ended: list[Ended] = []
        self.seeds: dict[float, list[int]] = {}

    @property
    def num_idle(self) -> int:
        return 1 - len(self._ended)

    def start(self, key: str, config: Config, is_trial: bool = False) -> None:
        alpha = config.equivalent_to or config.modify_softmax
        error = ""
        if not is_trial:
            if self._stops_after == sum(map(len, self.seeds.values())):
                raise KeyboardInterrupt
            self.seeds.setdefault(alpha, []).append(config.seed)
            if alpha in self._diverges:
                error = "epoch 1, step 2: the loss is nan"
            else:
                self._write(Path(config.output) / config.experiment, config, alpha)
        self._ended.append(Ended(key, error))

    def wait(self, timeout_s: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass

    def _write(self, folder: Path, config: Config, alpha: float) -> None:
        own = np.random.default_rng([config.seed, int(1000 * alpha)]).normal(0, self._noise)
        accuracy = 80 + config.seed % 7 + self._effects.get(alpha, 0.0) + own
        row = dict.fromkeys(COLUMNS) | {"epoch": 1, "train_loss": 0.5, "eval_top1": float(accuracy)}
        folder.mkdir(parents=True)
        write_args(folder, to_mapping(config, leave_out=NOT_RECORDED))
        values = ("" if value is None else repr(value) for value in row.values())
        (folder / "summary.csv").write_text(f"{','.join(row)}\n{','.join(values)}\n")
        result = {"status": "finished", "final": row, "seconds": 1.0}
        (folder / "result.json").write_text(json.dumps(result))


Settle = Callable[..., int]


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Settle:
    """Runs a study until it is settled; returns the exit code."""

    def run(trainer: Any, *words: str, alphas: tuple[str, ...] = ("1", "0.5", "0.25")) -> int:
        monkeypatch.setattr(runner, "WorkerPool", lambda *_, **__: trainer)
        own = (*WORDS, "--alphas", *alphas, "--until-settled", *words)
        return main([*own, "--", *TRAINING])

    return run


def seeds(plan: Plan) -> dict[str, int]:
    return {arm.name: len(plan.seeds_of(arm)) for arm in plan.arms}


def test_a_settled_arm_gets_no_more_seeds(
    settle: Settle, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = MadeUp({0.5: 30.0, 0.25: 0.4})
    assert settle(trainer, "--max-seeds", "9", "--controls", "equivalent") == 0
    plan = open_study(PATH).plan
    assert seeds(plan) == {
        "alpha-1": 9,
        "alpha-0.5": 6,
        "alpha-0.25": 9,
        "equivalent-0.5": 6,
        "equivalent-0.25": 9,
    }
    assert plan.stages == (5, 6, 7, 8)
    assert plan.is_sequential
    # An arm and its equivalent control, each once.
    assert sorted(trainer.seeds[0.5]) == sorted([*range(6), *range(6)])
    assert sorted(trainer.seeds[1.0]) == list(range(9))
    output = capsys.readouterr().out
    assert "Not settled: alpha-0.5 after 5 seeds, alpha-0.25 after 5 seeds; 5 runs more" in output
    assert "Not settled: alpha-0.25 after 6 seeds; 3 runs more" in output
    assert "Tampering helps against the baseline as configured: alpha-0.5" in output
    assert "confidence sequence" in output
    assert output.rstrip().endswith("Report:  sgt report studies/small")


def test_arms_that_differ_or_lie_within_the_margin_are_settled_at_once(settle: Settle) -> None:
    trainer = MadeUp({0.5: -20.0, 0.25: 0.0}, noise=0.01)
    assert settle(trainer, "--margin", "0.3") == 0
    # Of two arms the first to differ needs six seeds.
    assert seeds(open_study(PATH).plan) == {"alpha-1": 6, "alpha-0.5": 6, "alpha-0.25": 5}
    again = MadeUp({})
    assert settle(again, "--margin", "0.3") == 0
    assert again.seeds == {}
    report = results_json(compare_arms(collect(PATH)))
    assert report["margin"] == 0.3
    assert [arm["less_baseline"]["verdict"] for arm in report["arms"][1:]] == [
        "hurts",
        "no difference",
    ]


@pytest.mark.parametrize("stop", [3, 11, 16, 20])
def test_what_is_interrupted_goes_on_and_comes_to_the_same(settle: Settle, stop: int) -> None:
    effects = {0.5: 6.0, 0.25: 0.4}
    with pytest.raises(SystemExit):
        settle(MadeUp(effects, stops_after=stop), "--max-seeds", "8")
    before = open_study(PATH).plan
    assert settle(MadeUp(effects), "--max-seeds", "8") == 0
    after = open_study(PATH).plan
    assert set(before.cells) <= set(after.cells)
    whole = MadeUp(effects)
    PATH.rename("studies/interrupted")
    assert settle(whole, "--max-seeds", "8") == 0
    assert open_study(PATH).plan == after


def test_more_seeds_may_be_allowed_later(settle: Settle) -> None:
    effects = {0.5: 0.4, 0.25: 0.4}
    assert settle(MadeUp(effects, noise=3), "--max-seeds", "6") == 0
    assert settle(MadeUp(effects, noise=3), "--max-seeds", "8") == 0
    plan = open_study(PATH).plan
    assert set(seeds(plan).values()) == {8}
    assert plan.settling is not None
    assert plan.settling.max_seeds == 8


def test_an_arm_whose_runs_all_diverge_is_not_waited_for(
    settle: Settle, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = MadeUp({0.5: 30.0}, diverges=(0.25,))
    assert settle(trainer) == 0  # a run that diverges is a result
    assert seeds(open_study(PATH).plan) == {"alpha-1": 5, "alpha-0.5": 5, "alpha-0.25": 5}
    assert trainer.seeds[0.25] == list(range(5))  # each tried once
    assert "diverges at alpha-0.25" in capsys.readouterr().out


def test_no_seeds_are_added_where_a_run_failed(
    settle: Settle, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(MadeUp):
        def start(self, key: str, config: Config, is_trial: bool = False) -> None:
            self._ended.append(Ended(key, "" if is_trial else "the disk is full"))

    assert settle(Broken({})) == 2
    assert len(open_study(PATH).plan.seeds) == 5
    assert "the disk is full" in capsys.readouterr().err


def test_one_of_two_processes_adds_the_seeds(settle: Settle) -> None:
    assert settle(MadeUp({0.5: 0.4, 0.25: 0.4}, noise=3), "--max-seeds", "5") == 0
    first, second = (_allowing(open_study(PATH), 40) for _ in range(2))
    assert add_seeds(first, num_jobs=9).endswith("; 9 runs more")
    assert add_seeds(second, num_jobs=9) == "Seeds were added by another process"
    assert second.plan == first.plan
    assert len(first.plan.seeds) == 8
    assert not (PATH / "plan.lock").exists()


def _allowing(study: StudyFolder, max_seeds: int) -> StudyFolder:
    text = (PATH / "plan.json").read_text()
    (PATH / "plan.json").write_text(text.replace('"max_seeds": 5', f'"max_seeds": {max_seeds}'))
    study.reload()
    return study


def test_a_study_of_fixed_seeds_can_be_settled_afterwards(settle: Settle) -> None:
    effects = {0.5: 30.0, 0.25: 0.4}
    settle(MadeUp(effects), "--max-seeds", "5")
    plan = open_study(PATH).plan
    text = json.loads((PATH / "plan.json").read_text())
    del text["settling"]
    (PATH / "plan.json").write_text(json.dumps(text))
    assert not open_study(PATH).plan.is_sequential
    assert settle(MadeUp(effects), "--max-seeds", "6") == 0
    assert set(plan.cells) < set(open_study(PATH).plan.cells)


def test_an_arm_that_joins_is_settled_beside_the_others(settle: Settle) -> None:
    first = MadeUp({0.5: 30.0})
    assert settle(first, "--max-seeds", "9", alphas=("1", "0.5")) == 0
    before = open_study(PATH).plan
    arm = ("--arm", "quarter: modify-softmax=0.25 smoothing=0.1")
    joined = MadeUp({0.5: 30.0, 0.25: 0.4})
    assert settle(joined, "--max-seeds", "9", *arm, alphas=("1", "0.5")) == 0
    plan = open_study(PATH).plan
    # Of two arms the first to differ needs six seeds; of one, five were enough.
    assert (seeds(before)["alpha-0.5"], seeds(plan)["alpha-0.5"]) == (5, 6)
    assert seeds(plan) == {"alpha-1": 9, "alpha-0.5": 6, "quarter": 9}
    assert joined.seeds == {0.25: [*range(9)], 0.5: [5], 1.0: [5, 6, 7, 8]}
    assert set(before.cells) < set(plan.cells)
