"""A study's arms side by side: their numbers, and what differs between them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from softmax_gradient_tampering.studies.analysis.measurements import (
    ACCURACY,
    Measurement,
    judged_value,
    key_of_metric,
    measure,
    measured_keys,
    measurement_of,
)
from softmax_gradient_tampering.studies.analysis.sampling import sampling_half_width
from softmax_gradient_tampering.studies.analysis.statistics import (
    Interval,
    mean_interval,
    sample_sd,
)
from softmax_gradient_tampering.studies.analysis.verdict import (
    Comparison,
    Divergence,
    compare,
    judge,
)
from softmax_gradient_tampering.studies.plan.plan import DEFAULT_MARGIN, Arm, State
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun
from softmax_gradient_tampering.studies.results.study import Study

_ENOUGH_DIVERGED = 3  # runs of an arm, none with a pair: further ones diverge too


@dataclass(frozen=True)
class Spread:
    """The numbers of an arm's runs.

    Attributes:
        num_values: finite ones; `num_left_out` are infinite.
        interval: mean and 95 % t interval; nan where there are too few.
        sd: standard deviation.
    """

    num_values: int
    num_left_out: int
    interval: Interval
    sd: float


@dataclass(frozen=True)
class ArmResult:
    """An arm's runs and their numbers.

    Attributes:
        arm: of the plan.
        num_planned: cells that the plan has for it.
        runs: finished ones, by seed.
        diverged: seeds of the runs that diverged, ended by it or finished all the same.
        values: of every measurement, by seed.
        metric: the measurement that is judged.
        spreads: by measurement.
        against: comparisons with another arm, by that arm's name, by measurement.
    """

    arm: Arm
    num_planned: int
    runs: dict[int, RecordedRun]
    diverged: frozenset[int]
    values: dict[int, dict[str, float]]
    metric: str
    spreads: dict[str, Spread]
    against: dict[str, dict[str, Comparison]] = field(default_factory=dict)

    def by_seed(self, key: str) -> dict[int, float]:
        """A measurement of every run that has it; an infinite one is kept."""
        found = {seed: values.get(key, math.nan) for seed, values in self.values.items()}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    @property
    def divergence(self) -> Divergence:
        """How many of its runs diverged."""
        return Divergence(len(self.diverged), len(self.runs.keys() | self.diverged))

    def of_survivors(self, key: str) -> dict[int, float]:
        """`by_seed` of the runs that did not diverge."""
        return {seed: v for seed, v in self.by_seed(key).items() if seed not in self.diverged}

    def comparison(self, other: "ArmResult | None") -> Comparison | None:
        """The comparison with another arm by what is judged, if there is one."""
        return None if other is None else self.against.get(other.arm.name, {}).get(self.metric)


@dataclass(frozen=True)
class Results:
    """A study's arms compared.

    Attributes:
        study: what was collected.
        arms: results by the arm's name, in the plan's order, without the tuning arms.
        tuning: results of the tuning arms.
        baseline, tuned: the arms that the others are compared with, where they have runs.
        keys: measurements that at least one run has, in their order.
        margin: points of what is judged; differences within it count as none.
        metric: what is judged.
    """

    study: Study
    arms: dict[str, ArmResult]
    tuning: dict[str, ArmResult]
    baseline: ArmResult | None
    tuned: ArmResult | None
    keys: tuple[str, ...]
    margin: float
    metric: Measurement

    @property
    def everything(self) -> list[tuple[str, ArmResult]]:
        """The results of all arms by name, those of the tuning arms last."""
        return [*self.arms.items(), *self.tuning.items()]

    @property
    def judged(self) -> list[ArmResult]:
        """The arms that claim something and have runs: all but the baseline and the controls."""
        return [result for result in self.arms.values() if _claims(result)]


def compare_arms(study: Study, margin: float | None = None, only_metric: bool = False) -> Results:
    """Compare every arm with the baseline and with the tuned baseline, paired by seed.

    The plan's metric alone is tested: a p for each of twenty measurements would find something.
    Holm's correction and the verdicts are over it in the judged arms, once against the baseline
    and once against the tuned one; controls are compared, and not judged.

    Args:
        study: what was collected.
        margin: points, above 0; that of the study, or 0.5, when not given.
        only_metric: leave the other measurements out, which a verdict does not need.
    """
    if margin is None:
        margin = DEFAULT_MARGIN if study.margin is None else study.margin
    metric = measurement_of(key_of_metric(study.metric))
    everything = {arm.name: _arm_result(study, arm, only_metric) for arm in study.arms}
    arms = {name: result for name, result in everything.items() if result.arm.kind != "tuning"}
    baseline, tuned = (
        next((r for r in arms.values() if r.arm.kind == kind and r.runs), None)
        for kind in ("baseline", "tuned")
    )
    keys = measured_keys(values for r in arms.values() for values in r.values.values())
    for other in (baseline, tuned):
        if other is not None:
            _compare_with(other, arms, keys, margin, study.is_sequential)
    tuning = {name: r for name, r in everything.items() if r.arm.kind == "tuning"}
    return Results(study, arms, tuning, baseline, tuned, tuple(keys), margin, metric)


def open_arms(results: Results) -> list[str]:
    """The judged arms of which more seeds may say more.

    An arm is settled where it differs from the baseline, or its interval lies within the margin.
    One of which no pair has survived three runs is not waited for.
    """
    comparisons = {r.arm.name: r.comparison(results.baseline) for r in results.judged}
    return [
        name
        for name, comparison in comparisons.items()
        if comparison is not None and not comparison.is_settled and not _is_hopeless(comparison)
    ]


def _is_hopeless(comparison: Comparison) -> bool:
    num_ended = comparison.divergence.num_ended
    return comparison.num_pairs == 0 and num_ended >= _ENOUGH_DIVERGED


def spread(values: Mapping[int, float]) -> Spread:
    """The spread of numbers by seed; infinite ones are counted and left out."""
    finite = [value for value in values.values() if math.isfinite(value)]
    interval = mean_interval(finite) if finite else Interval(math.nan, math.nan)
    return Spread(len(finite), len(values) - len(finite), interval, sample_sd(finite))


def _arm_result(study: Study, arm: Arm, only_metric: bool) -> ArmResult:
    runs = dict(sorted(study.finished(arm).items()))
    baseline = study.first("baseline") if study.kind == "study" else None
    targets = {} if baseline is None else study.finished(baseline)
    metric, values = key_of_metric(study.metric), dict[int, dict[str, float]]()
    for seed, run in runs.items():
        values[seed] = {metric: judged_value(study.metric, run.final(ACCURACY), run.classes)}
        if not only_metric:
            target = targets[seed].final("train_acc") if seed in targets else math.nan
            values[seed] |= measure(run, target)
    cells = [each for each in study.cells if each.cell.arm == arm.name]
    diverged = {each.cell.seed for each in cells if each.state is State.DIVERGED}
    diverged |= {seed for seed, run in runs.items() if _has_diverged(run)}
    result = ArmResult(arm, len(cells), runs, frozenset(diverged), values, metric, spreads={})
    for key in measured_keys(values.values()):
        result.spreads[key] = spread(result.by_seed(key))
    return result


def _compare_with(
    other: ArmResult,
    arms: Mapping[str, ArmResult],
    keys: list[str],
    margin: float,
    is_sequential: bool,
) -> None:
    """Fill in every other arm's comparisons with one arm."""
    for result in arms.values():
        if result is not other and (result.runs or result.diverged):
            compared = {
                key: compare(
                    result.by_seed(key), other.by_seed(key), False, is_sequential=is_sequential
                )
                for key in keys
            }
            metric = result.metric
            survivors = result.of_survivors(metric), other.of_survivors(metric)
            judged = compare(*survivors, is_sequential=is_sequential)
            pairs = ((result.runs[seed], other.runs[seed]) for seed in judged.differences)
            compared[metric] = replace(
                judged,
                test_half_width=sampling_half_width(metric, pairs),
                divergence=result.divergence,
                reference_divergence=other.divergence,
            )
            result.against[other.arm.name] = compared
    family = {
        name: result.against[other.arm.name][result.metric]
        for name, result in arms.items()
        if _claims(result)
    }
    for name, comparison in judge(family, margin).items():
        arms[name].against[other.arm.name][arms[name].metric] = comparison


def _claims(result: ArmResult) -> bool:
    return result.arm.is_judged and bool(result.runs or result.diverged)


def _has_diverged(run: RecordedRun) -> bool:
    """Whether a run that is finished ended with a loss that is not finite."""
    return any(math.isinf(run.final(name)) for name in ("train_loss", "eval_loss"))


def count_states(study: Study) -> dict[State, int]:
    """How many cells are in each state, those of none left out."""
    counts = {state: sum(record.state is state for record in study.cells) for state in State}
    return {state: count for state, count in counts.items() if count}
