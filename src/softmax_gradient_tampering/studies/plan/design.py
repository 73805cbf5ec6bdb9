"""From what is asked for to a plan: the arms of alphas, controls, schedules and grid."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan import TUNED, TUNING, Arm, Plan, Settling
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.training.config.arguments import (
    FIELDS,
    from_mapping,
    given_flags,
    to_mapping,
)
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config

CONTROLS = ("equivalent", "tuned")
SCHEDULES = ("linear", "cosine")

# Flags that a study sets itself, and how it is told to.
_OF_THE_STUDY = {
    "modify_softmax": "--alphas sets it",
    "seed": "--seeds sets it",
    "equivalent_to": "--controls equivalent sets it",
    "alpha_schedule": "--alpha-schedules sets it",
    "alpha_end": "--alpha-schedules sets it",
    "holdout": "the study's own --holdout, before --, sets it",
    "output": "give the study's own --output, before --",
    "experiment": "a run's folder is named by the study",
    "resume": "a study resumes its runs by itself",
    "no_resume_opt": "a study resumes its runs by itself",
    "validate": "a study trains",
    "dry_run": "a study trains",
    "max_steps": "a run that stops early is never finished",
    "start_epoch": "a study's runs start at the beginning",
    "local_rank": "--processes-per-run starts the processes",
}
# What a report shows besides, on unless it is switched off after --.
_MEASURED = ("logit_stats", "filter_norms", "save_predictions")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What is asked for; the flags of `sgt study run` say more."""

    name: str
    alphas: Sequence[float] = (1.0,)
    seeds: Sequence[int] = (0,)
    tuning_seeds: Sequence[int] | None = None
    controls: Sequence[str] = ()
    grid: Mapping[str, Sequence[str]] | None = None
    alpha_schedules: Sequence[str] = ()
    holdout: float = 0.2
    processes_per_run: int = 1
    settling: Settling | None = None
    command: Sequence[str] = ()


def shared_settings(words: Sequence[str], config: Config) -> dict[str, Any]:
    """The settings of all runs, as plain values.

    Args:
        words: the training flags, as they were given.
        config: what they parse to.

    Raises:
        UserError: a flag among them is the study's to set.
    """
    given = given_flags(words)
    for name in given:
        if name in _OF_THE_STUDY:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} after --: not in a study; {_OF_THE_STUDY[name]}")
    default = Config()
    own = {name: getattr(default, name) for name in _OF_THE_STUDY}
    own |= {name: given.get(name, True) for name in _MEASURED}
    return to_mapping(replace(config, **own), leave_out=(*NOT_RECORDED, "seed"))


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
    arms = [
        *_alpha_arms(options.alphas),
        *_equivalent_arms(options),
        *(_scheduled_arm(text) for text in options.alpha_schedules),
        *_tuning_arms(options, settings),
    ]
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is asked for twice; once is enough")
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
    )
    return plan.with_cells()


def _check_settling(settling: Settling, seeds: Sequence[int], arms: Sequence[Arm]) -> None:
    """Refuse a study in which nothing can be settled."""
    if len(seeds) > settling.max_seeds:
        raise UserError(
            f"--max-seeds {settling.max_seeds}: fewer than --seeds asks for, {len(seeds)}"
        )
    if not any(arm.kind in ("tampered", "scheduled") for arm in arms):
        raise UserError("--until-settled: no arm but the baseline, nothing to settle; add --alphas")


def tampered_arm(alpha: float) -> Arm:
    """The arm of an alpha; of alpha 1, the baseline."""
    kind = "baseline" if alpha == 1 else "tampered"
    return Arm(f"alpha-{_short(alpha)}", kind, alpha, overrides={"modify_softmax": alpha})


def _alpha_arms(alphas: Sequence[float]) -> list[Arm]:
    for alpha in alphas:
        _check_alpha(f"--alphas {alpha:g}", alpha)
    if 1 not in alphas:
        raise UserError(
            f"--alphas {' '.join(map(_short, alphas))}: 1 is missing, the ordinary training that "
            "the others are compared with"
        )
    return [tampered_arm(float(alpha)) for alpha in alphas]


def _equivalent_arms(options: StudyOptions) -> list[Arm]:
    for control in options.controls:
        if control not in CONTROLS:
            raise UserError(f"--controls {control}: there are {' and '.join(CONTROLS)}")
    if "equivalent" not in options.controls:
        return []
    alphas = [float(alpha) for alpha in options.alphas if alpha != 1]
    if not alphas:
        raise UserError("--controls equivalent: no alpha but 1 to be equivalent to; add --alphas")
    return [
        Arm(
            f"equivalent-{_short(alpha)}",
            "equivalent",
            alpha,
            overrides={"modify_softmax": 1.0, "equivalent_to": alpha},
        )
        for alpha in alphas
    ]


def _scheduled_arm(text: str) -> Arm:
    """linear:1:0.25 as an arm."""
    way, *ends = text.split(":")
    try:
        start, end = map(float, ends)
    except ValueError:
        way = ""
    if way not in SCHEDULES:
        raise UserError(
            f"--alpha-schedules {text}: expected WAY:START:END, such as linear:1:0.25 or "
            "cosine:1:0.25"
        )
    for alpha in (start, end):
        _check_alpha(f"--alpha-schedules {text}", alpha)
    overrides = {"modify_softmax": start, "alpha_schedule": way, "alpha_end": end}
    name = f"{way}-{_short(start)}-to-{_short(end)}"
    return Arm(name, "scheduled", start, end, way, overrides)


def _tuning_arms(options: StudyOptions, settings: Mapping[str, Any]) -> list[Arm]:
    """The tuned arm, and one tuning arm for every point of the grid."""
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
        name = "-".join([TUNING, *(f"{flag}-{_short(value)}" for flag, value in point.items())])
        overrides = {"modify_softmax": 1.0, **point, "holdout": options.holdout}
        from_mapping({**settings, **overrides}, f"--grid at {name}")
        arms.append(Arm(name, TUNING, overrides=overrides))
    tuned = Arm(
        TUNED,
        TUNED,
        overrides={"modify_softmax": 1.0},
        selected_from=tuple(arm.name for arm in arms),
    )
    return [tuned, *arms]


def _values(flag: str, texts: Sequence[str]) -> list[Any]:
    """The values of a line of the grid, in the flag's own type."""
    name = flag.replace("-", "_")
    if name not in FIELDS:
        raise UserError(f"--grid {flag}: there is no such flag{nearest(name, FIELDS)}")
    if name in _OF_THE_STUDY:
        raise UserError(f"--grid {flag}: not in a grid; {_OF_THE_STUDY[name]}")
    if not texts:
        raise UserError(f"--grid {flag}: no values; give {flag}=VALUE,VALUE")
    option = f"--{name.replace('_', '-')}"
    values = [given_flags([f"{option}={text}"])[name] for text in texts]
    if any(isinstance(value, bool | list) for value in values):
        raise UserError(f"--grid {flag}: only flags of one number or word can be in a grid")
    return values


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


def _check_alpha(what: str, alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"{what}: must be a finite number above 0; 1 is ordinary training")


def _short(value: Any) -> str:
    """A number as short as it can be said without loss; other values as they are."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
