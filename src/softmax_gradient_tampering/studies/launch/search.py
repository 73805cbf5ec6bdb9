"""`sgt study search`: a good alpha and learning rate, by Optuna's TPE, on a hold-out.

A trial is an alpha and a learning rate, trained with every seed; its value is the mean
accuracy on the held-out part of the training set. The test set is not looked at. Trials are
runs like a study's: named by their configuration, claimed, resumable. Without a database the
sampler starts from the same seed every time, so that the same command finds its runs done,
proposes what it proposed, and goes on.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.recipes.catalogue import recipe_path
from softmax_gradient_tampering.studies.launch.launch import Launch, Runner, open_runner
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.run_study import (
    check_plan,
    end_on_interruption,
    launch_options,
)
from softmax_gradient_tampering.studies.launch.selection import METRIC
from softmax_gradient_tampering.studies.plan.design import check_seeds, shared_settings
from softmax_gradient_tampering.studies.plan.plan import TUNING, Arm, Plan, with_cells
from softmax_gradient_tampering.studies.plan.request import (
    add_shared_flags,
    check_name,
    seed_list,
    split_words,
)
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder
from softmax_gradient_tampering.terminal.parser import ArgumentParser
from softmax_gradient_tampering.training.config.arguments import parse_arguments

FORMAT = 1
_SAMPLER_SEED = 0
_DIGITS = 4  # of a proposed number: more would not be a better proposal


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is asked for; the flags of `sgt study search` say more."""

    path: Path
    num_trials: int
    alpha_range: tuple[float, float]
    lr_range: tuple[float, float]
    seeds: Sequence[int]
    holdout: float
    storage: str | None
    settings: Mapping[str, Any]


def main(argv: Sequence[str]) -> None:
    """Search, and say what was found."""
    own, training = split_words(argv)
    args = _parser().parse_args(own)
    options = _options(args, training)
    optuna = _import_optuna()
    plan = _plan(options, [_arm("trial-0", 1.0, options.settings["lr"], options.holdout)])
    starting = launch_options(args.jobs, args.threads, 1)
    is_new = _is_new(options)
    with end_on_interruption(options.path), open_runner(starting) as runner:
        search = Search(options, optuna, runner)
        if is_new:
            check_plan(plan, starting, runner)
            _make_folder(options)
        search.run()
    best = search.best()
    print(
        f"Best of {len(search.finished())}: alpha {best['alpha']:g}, lr {best['lr']:g}: "
        f"{best['mean_top1']:.2f} % on the hold-out\nTrials: {options.path / 'search.json'}\n"
        "The best of many is better by luck too; sgt study run compares it over seeds."
    )


class Search:
    """The trials of a search.

    Args:
        options: what is asked for.
        optuna: the module.
        runner: trains.
    """

    def __init__(self, options: SearchOptions, optuna: Any, runner: Runner) -> None:
        self._options = options
        self._runner = runner
        self._states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        float_range = optuna.distributions.FloatDistribution
        self._ranges = {
            "alpha": float_range(*options.alpha_range, log=True),
            "lr": float_range(*options.lr_range, log=True),
        }
        with as_user_error(f"--storage {options.storage}"):
            self._study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=_SAMPLER_SEED),
                storage=options.storage,
                study_name=options.path.name,
                load_if_exists=True,
            )
        if not self._study.trials:
            self._study.enqueue_trial(self._baseline())

    def run(self) -> None:
        """Ask for trials, train them, and tell how they went, until there are enough."""
        progress = StudyProgress("trials")
        try:
            while len(self.finished()) < self._options.num_trials:
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
                    self._options.num_trials,
                    f"alpha {alpha:g}, lr {lr:g}: {shown}",
                )
        finally:
            progress.stop()

    def finished(self) -> list[Any]:
        """The trials that have a value, of all processes."""
        return [t for t in self._study.get_trials(deepcopy=False) if t.value is not None]

    def best(self) -> dict[str, Any]:
        """The best trial, as search.json has it."""
        return _entry(max(self.finished(), key=lambda trial: trial.value))

    def _baseline(self) -> dict[str, float]:
        """The first trial: ordinary training at the rate given, where the ranges hold it."""
        wished = {"alpha": 1.0, "lr": float(self._options.settings["lr"])}
        return {
            name: min(max(value, self._ranges[name].low), self._ranges[name].high)
            for name, value in wished.items()
        }

    def _train(self, number: int, alpha: float, lr: float) -> list[float] | None:
        """The held-out accuracy of every seed; None where a run failed or diverged."""
        arm = _arm(f"trial-{number}", alpha, lr, self._options.holdout)
        folder = StudyFolder(self._options.path, _plan(self._options, [arm]))
        launch = Launch(folder, self._runner, StudyProgress(is_silent=True))
        launch.run()
        if launch.given_up or launch.invalid:
            return None
        tops = [folder.result(cell)["final"]["eval_top1"] for cell in folder.plan.cells]
        return tops if all(map(math.isfinite, tops)) else None

    def _check_failures(self) -> None:
        failed = [t for t in self._study.get_trials(deepcopy=False) if t.state.name == "FAIL"]
        if len(failed) > self._options.num_trials:
            raise UserError(
                f"{self._options.path}: more trials failed than were asked for; see the "
                "failure.json of the cells"
            )

    def _write(self) -> None:
        content = _asked(self._options) | {
            "metric": METRIC,
            "trials": [_entry(trial) for trial in self.finished()],
            "best": self.best() if self.finished() else None,
        }
        write_text(self._options.path / "search.json", json.dumps(content, indent=1) + "\n")


def _entry(trial: Any) -> dict[str, Any]:
    alpha, lr = (_rounded(trial.params[name]) for name in ("alpha", "lr"))
    return {"number": trial.number, "alpha": alpha, "lr": lr, "mean_top1": trial.value}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _arm(name: str, alpha: float, lr: float, holdout: float) -> Arm:
    overrides = {"modify_softmax": alpha, "lr": lr, "holdout": holdout}
    return Arm(name, TUNING, alpha, overrides=overrides)


def _plan(options: SearchOptions, arms: Sequence[Arm]) -> Plan:
    plan = Plan(
        name=options.path.name,
        command=(),
        arms=arms,
        seeds=(),
        tuning_seeds=options.seeds,
        config=options.settings,
        processes_per_run=1,
        cells=(),
    )
    return with_cells(plan)


def _is_new(options: SearchOptions) -> bool:
    """Whether the search is yet to begin, in a folder that is free.

    Raises:
        UserError: the folder holds another search, or something else.
    """
    path = options.path / "search.json"
    if not path.exists():
        if options.path.is_dir() and any(options.path.iterdir()):
            raise UserError(f"{options.path}: holds files, and no search; choose another --name")
        return True
    with as_user_error(f"{path}: not a search"):
        there = json.loads(path.read_text(encoding="utf-8"))
        asked = json.loads(json.dumps(_asked(options)))
        differing = [name for name, value in asked.items() if there.get(name) != value]
    if differing:
        raise UserError(
            f"{options.path} holds another search of that name, which differs in its "
            f"{differing[0].replace('_', ' ')}; choose another --name"
        )
    return False


def _make_folder(options: SearchOptions) -> None:
    try:
        (options.path / "cells").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.path}: cannot be made ({error})") from error
    write_text(options.path / "search.json", json.dumps(_asked(options), indent=1) + "\n")


def _asked(options: SearchOptions) -> dict[str, Any]:
    """What two searches of one name must agree in."""
    return {
        "format": FORMAT,
        "alpha_range": list(options.alpha_range),
        "lr_range": list(options.lr_range),
        "seeds": list(options.seeds),
        "holdout": options.holdout,
        "config": dict(options.settings),
    }


def _options(args: argparse.Namespace, training: Sequence[str]) -> SearchOptions:
    if args.name is None:
        raise UserError("--name NAME is missing, the folder of the search in --output")
    check_name(args.name)
    if args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    check_seeds("--seeds", args.seeds)
    if not 0 < args.holdout < 1:
        raise UserError(f"--holdout {args.holdout:g}: must be above 0 and below 1")
    for name in ("alpha_range", "lr_range"):
        low, high = getattr(args, name)
        if not 0 < low < high < math.inf:
            flag = f"--{name.replace('_', '-')} {low:g} {high:g}"
            raise UserError(f"{flag}: must be above 0, the smaller one first")
    settings = shared_settings(training, parse_arguments(training, find_recipe=recipe_path))
    settings["save_predictions"] = False
    return SearchOptions(
        path=Path(args.output) / args.name,
        num_trials=args.trials,
        alpha_range=tuple(args.alpha_range),
        lr_range=tuple(args.lr_range),
        seeds=args.seeds,
        holdout=args.holdout,
        storage=args.storage,
        settings=settings,
    )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="sgt study search",
        usage="sgt study search --name NAME [options] -- [training flags]",
        description="Look for the alpha and the learning rate that are best on a part of the "
        "training set held out. The first trial is ordinary training. It finds settings; "
        "whether they help is for sgt study run to say.",
        allow_abbrev=False,
    )
    add_shared_flags(parser)
    parser.add_argument("--trials", type=int, default=30, help="to have in the end (30)")
    parser.add_argument("--alpha-range", type=float, nargs=2, default=(0.05, 1.0),
                        metavar=("LOW", "HIGH"), help="of alpha (0.05 1)")  # fmt: skip
    parser.add_argument("--lr-range", type=float, nargs=2, default=(0.01, 0.5),
                        metavar=("LOW", "HIGH"), help="of the rate (0.01 0.5)")  # fmt: skip
    parser.add_argument("--seeds", type=seed_list, default=(0, 1, 2), help="of every trial (3)")
    parser.add_argument("--storage", metavar="URL", help="a database that several machines share, "
                        "as postgresql://...; without it, memory")  # fmt: skip
    parser.set_defaults(output="output/study", holdout=0.2, name=None, jobs=None, threads=None)
    return parser


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "sgt study search needs Optuna; pip install softmax-gradient-tampering[search]"
        ) from error
    return optuna
