"""From what is asked for to a plan: its arms, controls and grid."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.arms import (
    BASELINE,
    compared_arms,
    equivalent_arms,
    scheduled_arm,
    short,
)
from softmax_gradient_tampering.studies.plan.plan import (
    ACCURACY,
    TUNED,
    TUNING,
    Arm,
    Cell,
    Plan,
    Settling,
)
from softmax_gradient_tampering.studies.plan.settings import grid_flag
from softmax_gradient_tampering.training.config.arguments import from_mapping, given_flags
from softmax_gradient_tampering.training.config.refusals import check_config

CONTROLS = ("equivalent", "tuned")
_ALPHAS = (1.0, 0.25)  # where no arm is asked for
# Flags that leave the weights as they are: measurements, averages, those that change nothing.
_MEASURED = (
    *("logit_stats", "grad_stats", "filter_norms"),
    *("model_ema", "model_ema_decay", "model_ema_force_cpu"),
    *("pin_mem", "no_prefetcher", "use_multi_epochs_loader"),
)
# And those that decide when and by what a run is judged, which the plateau schedule alone heeds.
_EVALUATED = ("eval_metric", "eval_every", "train_continuous")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What is asked for; the flags of `sgt study run` say more.

    Attributes:
        alphas: None where they are not given: 1 and 0.25, or with other arms 1 alone.
        arms: flags and their texts, by the arm's name.
        baseline: name of the arm that the others are compared with; None for alpha 1.
    """

    name: str
    alphas: Sequence[float] | None = None
    arms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    baseline: str | None = None
    seeds: Sequence[int] = (0,)
    tuning_seeds: Sequence[int] | None = None
    controls: Sequence[str] = ()
    grid: Mapping[str, Sequence[str]] | None = None
    alpha_schedules: Sequence[str] = ()
    holdout: float = 0.2
    processes_per_run: int = 1
    settling: Settling | None = None
    metric: str = ACCURACY
    margin: float | None = None
    command: Sequence[str] = ()


def make_plan(options: StudyOptions, settings: Mapping[str, Any]) -> Plan:
    """The plan of a study.

    Args:
        options: what is asked for.
        settings: of all runs.

    Raises:
        UserError: what is asked for is no study.
    """
    check_seeds("--seeds", options.seeds)
    tuning_seeds = options.seeds if options.tuning_seeds is None else options.tuning_seeds
    check_seeds("--tuning-seeds", tuning_seeds)
    if options.processes_per_run < 1:
        raise UserError(f"--processes-per-run {options.processes_per_run}: must be at least 1")
    arms = _make_arms(options, settings)
    if options.settling is not None:
        _check_settling(options.settling, options.seeds, arms)
    plan = Plan(
        name=options.name,
        command=tuple(options.command),
        arms=tuple(arms),
        seeds=tuple(options.seeds),
        tuning_seeds=tuple(tuning_seeds) if TUNED in options.controls else (),
        config=dict(settings),
        processes_per_run=options.processes_per_run,
        settling=options.settling,
        metric=options.metric,
        margin=options.margin,
    )
    _check_arms(plan, options.arms)
    return plan.with_cells()


def check_seeds(flag: str, seeds: Sequence[int]) -> None:
    """Refuse what are no seeds.

    Raises:
        UserError: none, one below 0, or one twice.
    """
    if not seeds:
        raise UserError(f"{flag} 0: no seeds, no runs; give at least 1")
    if min(seeds) < 0:
        raise UserError(f"{flag} {min(seeds)}: must be at least 0")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{flag} {','.join(map(str, seeds))}: a seed stands there twice")


def _make_arms(options: StudyOptions, settings: Mapping[str, Any]) -> list[Arm]:
    """All arms: those that are compared, the controls, and what these are chosen from."""
    for control in options.controls:
        if control not in CONTROLS:
            raise UserError(f"--controls {control}: there are {' and '.join(CONTROLS)}")
    name = options.baseline or BASELINE
    arms = compared_arms(_alphas(options, name), options.arms, name)
    baseline = next(arm for arm in arms if arm.kind == "baseline")
    return [
        *arms,
        *(equivalent_arms(arms) if "equivalent" in options.controls else ()),
        *(scheduled_arm(text, baseline.other_flags) for text in options.alpha_schedules),
        *_tuning_arms(options, settings, baseline),
    ]


def _alphas(options: StudyOptions, baseline: str) -> Sequence[float]:
    """The alphas that are asked for, ordinary training among them where it is the baseline."""
    alphas = options.alphas
    if alphas is None:
        if options.arms:
            return (1.0,) if baseline == BASELINE else ()
        return _ALPHAS
    if baseline == BASELINE and 1 not in alphas:
        raise UserError(
            f"--alphas {' '.join(short(float(alpha)) for alpha in alphas)}: 1 is missing, the "
            "ordinary training that the others are compared with; add it, or name another arm as "
            "--baseline"
        )
    return alphas


def _tuning_arms(options: StudyOptions, settings: Mapping[str, Any], baseline: Arm) -> list[Arm]:
    """The tuned arm, the baseline at other settings, and one for every point of the grid."""
    if TUNED not in options.controls:
        if options.grid:
            raise UserError("--grid belongs to the tuned baseline; add --controls tuned")
        return []
    if not options.grid:
        raise UserError(
            "--controls tuned needs --grid, the settings to choose from: "
            "--grid lr=0.05,0.1 weight_decay=5e-4,2e-2"
        )
    if not 0 < options.holdout < 1:
        raise UserError(f"--holdout {options.holdout:g}: must be above 0 and below 1")
    grid = {name: _values(name, texts) for name, texts in options.grid.items()}
    arms = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        name = "-".join([TUNING, *(f"{flag}-{short(value)}" for flag, value in point.items())])
        overrides = {**baseline.overrides, **point, "holdout": options.holdout}
        from_mapping({**settings, **overrides}, f"--grid at {name}")
        arms.append(replace(baseline, name=name, kind=TUNING, overrides=overrides))
    names = tuple(arm.name for arm in arms)
    return [replace(baseline, name=TUNED, kind=TUNED, selected_from=names), *arms]


def _values(flag: str, texts: Sequence[str]) -> list[Any]:
    """The values of a line of the grid, in the flag's own type."""
    name = grid_flag(flag)
    if not texts:
        raise UserError(f"--grid {flag}: no values; give {flag}=VALUE,VALUE")
    option = f"--{name.replace('_', '-')}"
    values = [given_flags([f"{option}={text}"])[name] for text in texts]
    if any(isinstance(value, bool | list) for value in values):
        raise UserError(f"--grid {flag}: only flags of one number or word can be in a grid")
    return values


def _check_arms(plan: Plan, named: Collection[str]) -> None:
    """Refuse arms of one name or of equal flags, and flags that no run can have."""
    names = [arm.name for arm in plan.arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None and (name := twice.removeprefix("equivalent-")) in named:
        raise UserError(
            f"--arm {name}: another arm's equivalent is {twice} too; choose another name"
        )
    if twice is not None:
        raise UserError(f"{twice} is asked for twice; once is enough")
    names_by_hash: dict[str, str] = {}
    for arm in plan.arms:
        if arm.kind in (TUNED, TUNING):
            continue
        where = f"--arm {arm.name}" if arm.name in named else arm.name
        try:
            check_config(plan.config_of(arm, 0))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        settings = plan.settings_of(Cell("", arm.name, 0))
        passed_over = (*_MEASURED, *(_EVALUATED if settings["sched"] != "plateau" else ()))
        found = plan.hash_of({name: v for name, v in settings.items() if name not in passed_over})
        other = names_by_hash.setdefault(found, arm.name)
        if other != arm.name:
            what = f"has the same flags as {other}"
            if settings != plan.settings_of(Cell("", other, 0)):
                what = f"differs from {other} in nothing that changes the weights"
            alphas = "; --alphas have the other flags of the baseline" * (len(named) > 0)
            raise UserError(f"{where}: {what}; leave one out{alphas}")


def _check_settling(settling: Settling, seeds: Sequence[int], arms: Sequence[Arm]) -> None:
    """Refuse a study in which nothing can be settled."""
    if len(seeds) > settling.max_seeds:
        raise UserError(
            f"--max-seeds {settling.max_seeds}: fewer than --seeds asks for, {len(seeds)}"
        )
    if not any(arm.is_judged for arm in arms):
        raise UserError(
            "--until-settled: no arm but the baseline, nothing to settle; add --alphas or --arm"
        )
