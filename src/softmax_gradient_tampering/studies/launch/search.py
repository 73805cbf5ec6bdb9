"""`sgt study search`: a good alpha and learning rate, by Optuna's TPE, on a hold-out.

A trial is an alpha and a learning rate, trained with every seed; its value is the mean
accuracy, or another metric, on the held-out part of the training set. The test set is not looked
at. Trials are runs like a study's: named by their configuration, claimed, resumable. Without a
database the sampler starts from the same seed every time, so that the same command finds its runs
done, proposes what it proposed, and goes on.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.studies.analysis.measurements import judged_value, key_of_metric
from softmax_gradient_tampering.studies.launch.driver import Driver
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.run_study import end_on_interruption
from softmax_gradient_tampering.studies.launch.runner import (
    Runner,
    check_plan,
    open_runner,
    options_for_this_machine,
)
from softmax_gradient_tampering.studies.launch.selection import WHEN
from softmax_gradient_tampering.studies.plan.plan import TUNING, Arm, Plan
from softmax_gradient_tampering.studies.plan.search_request import SearchRequest
from softmax_gradient_tampering.studies.results.run_files import RunFiles
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, is_free

FORMAT = 2
_SAMPLER_SEED = 0
_DIGITS = 4  # of a proposed number: more would not be a better proposal


def run_search(request: SearchRequest) -> dict[str, Any]:
    """Search until there are enough trials.

    Returns:
        What search.json has in the end: the trials, and the best of them.

    Raises:
        UserError: the search cannot be run, or too many of its trials failed.
    """
    optuna = _import_optuna()
    plan = _plan(request, [_arm("trial-0", 1.0, request.settings["lr"], request.holdout)])
    options = options_for_this_machine(request.machine)
    is_new = _is_new(request)
    with end_on_interruption(request.path), open_runner(options) as runner:
        search = Search(request, optuna, runner)
        if is_new:
            check_plan(plan, options, runner, request.path)
            _make_folder(request)
        search.run()
    return search.content()


class Search:
    """The trials of a search.

    Args:
        request: what is asked for.
        optuna: the module.
        runner: trains.
    """

    def __init__(self, request: SearchRequest, optuna: Any, runner: Runner) -> None:
        self._request = request
        self._runner = runner
        self._states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        float_range = optuna.distributions.FloatDistribution
        self._ranges = {
            "alpha": float_range(*request.alpha_range, log=True),
            "lr": float_range(*request.lr_range, log=True),
        }
        with as_user_error(f"--storage {request.storage}"):
            self._study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=_SAMPLER_SEED),
                storage=request.storage,
                study_name=request.path.name,
                load_if_exists=True,
            )
        if not self._study.trials:
            self._study.enqueue_trial(self._baseline())

    def run(self) -> None:
        """Ask for trials, train them, and tell how they went, until there are enough."""
        progress = StudyProgress("trials")
        try:
            while len(self.finished()) < self._request.num_trials:
                trial = self._study.ask(self._ranges)
                alpha, lr = (_rounded(trial.params[name]) for name in ("alpha", "lr"))
                values = self._train(trial.number, alpha, lr)
                if values is None:
                    self._study.tell(trial, state=self._states.FAIL)
                    self._check_failures()
                else:
                    self._study.tell(trial, math.fsum(values) / len(values))
                self._write()
                shown = f"{math.fsum(values) / len(values):.2f} %" if values else "failed"
                progress.update(
                    len(self.finished()),
                    self._request.num_trials,
                    f"alpha {alpha:g}, lr {lr:g}: {shown}",
                )
        finally:
            progress.stop()

    def finished(self) -> list[Any]:
        """The trials that have a value, of all processes."""
        return [t for t in self._study.get_trials(deepcopy=False) if t.value is not None]

    def content(self) -> dict[str, Any]:
        """What search.json holds: what was asked for, the trials so far, and the best of them."""
        trials = [_entry(trial) for trial in self.finished()]
        best = max(trials, key=lambda entry: entry["mean"], default=None)
        return _asked(self._request) | {
            "metric": f"{key_of_metric(self._request.metric)} {WHEN}",
            "trials": trials,
            "best": best,
        }

    def _baseline(self) -> dict[str, float]:
        """The first trial: ordinary training at the rate given, where the ranges hold it."""
        wished = {"alpha": 1.0, "lr": float(self._request.settings["lr"])}
        return {
            name: min(max(value, self._ranges[name].low), self._ranges[name].high)
            for name, value in wished.items()
        }

    def _train(self, number: int, alpha: float, lr: float) -> list[float] | None:
        """The held-out metric of every seed; None where a run failed, diverged or lacks it."""
        arm = _arm(f"trial-{number}", alpha, lr, self._request.holdout)
        folder = StudyFolder(self._request.path, _plan(self._request, [arm]))
        driver = Driver(folder, self._runner, StudyProgress(is_silent=True))
        driver.run()
        runs = [folder.read(cell).run for cell in folder.plan.cells]
        values = [self._value(run) for run in runs if run is not None]
        return values if len(values) == len(runs) and all(map(math.isfinite, values)) else None

    def _value(self, run: RunFiles) -> float:
        return judged_value(self._request.metric, run.summary.final("eval_top1"), run.classes)

    def _check_failures(self) -> None:
        failed = [t for t in self._study.get_trials(deepcopy=False) if t.state.name == "FAIL"]
        if len(failed) > self._request.num_trials:
            raise UserError(
                f"{self._request.path}: more trials failed than were asked for; see the "
                "failure.json of the cells"
            )

    def _write(self) -> None:
        text = json.dumps(self.content(), indent=1) + "\n"
        write_text(self._request.path / "search.json", text)


def _entry(trial: Any) -> dict[str, Any]:
    alpha, lr = (_rounded(trial.params[name]) for name in ("alpha", "lr"))
    return {"number": trial.number, "alpha": alpha, "lr": lr, "mean": trial.value}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _arm(name: str, alpha: float, lr: float, holdout: float) -> Arm:
    overrides = {"modify_softmax": alpha, "lr": lr, "holdout": holdout}
    return Arm(name, TUNING, alpha, overrides=overrides)


def _plan(request: SearchRequest, arms: Sequence[Arm]) -> Plan:
    plan = Plan(
        name=request.path.name,
        command=(),
        arms=tuple(arms),
        seeds=(),
        tuning_seeds=tuple(request.seeds),
        config=request.settings,
        metric=request.metric,
    )
    return plan.with_cells()


def _is_new(request: SearchRequest) -> bool:
    """Whether the search is yet to begin, in a folder that is free.

    Raises:
        UserError: the folder holds another search, or something else.
    """
    path = request.path / "search.json"
    if not path.exists():
        if not is_free(request.path):
            raise UserError(f"{request.path}: holds files, and no search; choose another --name")
        return True
    with as_user_error(f"{path}: not a search"):
        there = json.loads(read_record(path))
        asked = json.loads(json.dumps(_asked(request)))
        differing = [name for name, value in asked.items() if there.get(name) != value]
    if differing:
        raise UserError(
            f"{request.path} holds another search of that name, which differs in its "
            f"{differing[0].replace('_', ' ')}; choose another --name"
        )
    return False


def _make_folder(request: SearchRequest) -> None:
    try:
        (request.path / "cells").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{request.path}: cannot be made ({error})") from error
    write_text(request.path / "search.json", json.dumps(_asked(request), indent=1) + "\n")


def _asked(request: SearchRequest) -> dict[str, Any]:
    """What two searches of one name must agree in."""
    return {
        "format": FORMAT,
        "alpha_range": list(request.alpha_range),
        "lr_range": list(request.lr_range),
        "seeds": list(request.seeds),
        "holdout": request.holdout,
        "judged_metric": request.metric,
        "config": dict(request.settings),
    }


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "sgt study search needs Optuna; pip install softmax-gradient-tampering[search]"
        ) from error
    return optuna
