"""Simulates studies that are looked at after every seed: false verdicts, power, coverage.

`python benchmarks/simulate_sequence.py` writes docs/results/2026-11-26-sequence.csv, in some
minutes on one core. Nothing is trained: the differences are drawn. What is judged is judged by
the formulas of `studies.analysis`, for many studies at once; some of them are judged by
`studies.analysis` itself, and compared.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from softmax_gradient_tampering.studies.analysis.sequence import log_e_value, width_factor
from softmax_gradient_tampering.studies.analysis.verdict import compare, judge

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

MAX_SEEDS, EARLY, LEVEL, MARGIN = 100, 30, 0.05, 0.5
NUM_STUDIES = 20_000
PART = 1000  # studies at a time, for the memory


def _accuracy(generator: np.random.Generator, size: tuple[int, ...]) -> Array:
    return generator.binomial(360, 0.95, size) / 3.6


# Of a run's accuracy. The arms of a study share the baseline's run of a seed.
RUNS: dict[str, Draw] = {
    "normal": lambda generator, size: generator.normal(size=size),
    "360 test images, 95 % right": _accuracy,
    "t, 3 degrees": lambda generator, size: generator.standard_t(3, size),
}
# Of a difference itself, mean 0 and standard deviation 1.
DIFFERENCES: dict[str, Draw] = {
    "normal": lambda generator, size: generator.normal(size=size),
    "-1, 0, 1 with 1/4, 1/2, 1/4": lambda generator, size: (
        generator.choice([-1, 0, 0, 1], size) * math.sqrt(2)
    ),
    "t, 3 degrees": lambda generator, size: generator.standard_t(3, size) / math.sqrt(3),
    "centred exponential": lambda generator, size: generator.exponential(size=size) - 1,
    "centred exponential, turned": lambda generator, size: 1 - generator.exponential(size=size),
}


class Watched:
    """Differences of many studies, (studies, seeds, arms), after 1, 2, 3 ... of their seeds."""

    def __init__(self, differences: Array) -> None:
        self.number = np.arange(1, differences.shape[1] + 1)[:, None]
        sums, squares = differences.cumsum(1), (differences**2).cumsum(1)
        self.mean = sums / self.number
        residual = np.maximum(squares - sums * self.mean, 0)
        spread = np.maximum.accumulate(differences, 1) - np.minimum.accumulate(differences, 1)
        self.has_spread = spread > 0
        self.sd = np.sqrt(residual / np.maximum(self.number - 1, 1))
        share = np.divide(sums**2, squares, where=squares > 0, out=np.zeros_like(sums, float))
        log_e = -0.5 * np.log1p(self.number)
        log_e = log_e - self.number / 2 * np.log1p(-share / (self.number + 1))
        self.log_e = np.where(squares > 0, log_e, 0.0)
        # Without any spread the sign flips decide: 2^(1 - n) where all are equal, and not 0.
        flips = np.where(squares > 0, 2.0 ** (1 - self.number), 1.0)
        self.p = np.where(self.has_spread, np.exp(-np.maximum(self.log_e, 0)), flips)

    @property
    def half_width(self) -> Array:
        factors = _factors(len(self.number), 1 - LEVEL)[:, None]
        return np.where(np.isinf(factors), np.inf, self.sd * np.nan_to_num(factors, posinf=0))


def _factors(num_seeds: int, confidence: float) -> Array:
    """Half the width of the sequence after 1, 2, 3 ... seeds, in standard deviations."""
    return np.array([width_factor(n, n - 1, confidence) / math.sqrt(n)
                     for n in range(1, num_seeds + 1)])  # fmt: skip


def holm(p: Array) -> Array:
    """Holm's corrected p values over the last axis."""
    order = np.argsort(p, -1)
    ranked = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.maximum.accumulate(ranked, -1), -1)
    return corrected


def false_verdicts(draw: Draw, num_arms: int, are_runs: bool, generator: Any) -> Iterator[Any]:
    """How often a study without any effect says helps, or anything, at one of its looks."""
    helped = claimed = early = t_claimed = 0
    for _ in range(0, NUM_STUDIES, PART):
        if are_runs:
            runs = draw(generator, (PART, MAX_SEEDS, num_arms + 1))
            differences = runs[..., 1:] - runs[..., :1]
        else:
            differences = draw(generator, (PART, MAX_SEEDS, num_arms))
        watched = Watched(differences)
        is_sure = holm(watched.p) < LEVEL
        helped += (is_sure & (watched.mean > 0)).any((1, 2)).sum()
        claimed += is_sure.any((1, 2)).sum()
        early += is_sure[:, :EARLY].any((1, 2)).sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            t = watched.mean / watched.sd * np.sqrt(watched.number)
        p_t = 2 * stats.t.sf(np.abs(t), np.maximum(watched.number - 1, 1))
        p_t = np.where(watched.has_spread, p_t, watched.p)
        t_claimed += (holm(p_t) < LEVEL)[:, :EARLY].any((1, 2)).sum()
    yield "false helps of a sequence, watched", MAX_SEEDS, helped / NUM_STUDIES
    yield "false helps or hurts of a sequence, watched", MAX_SEEDS, claimed / NUM_STUDIES
    yield "false helps or hurts of a sequence, watched", EARLY, early / NUM_STUDIES
    yield "false helps or hurts of a t test, watched", EARLY, t_claimed / NUM_STUDIES


def flips_agree(differences: Array, generator: Any) -> Array:
    """Whether the p of the sign-flip test is below 0.05, of every row."""
    number = differences.shape[1]
    if number <= 10:
        signs = 1 - 2 * (np.arange(2**number)[:, None] >> np.arange(number) & 1)
    else:
        signs = generator.choice([-1.0, 1.0], (2000, number))
    sums = np.abs(differences @ signs.T.astype(float))
    seen = np.abs(differences.sum(1)) * (1 - 1e-9)
    return np.asarray((sums >= seen[:, None]).mean(1) < LEVEL)


def fixed_test(draw: Draw, effect: float, number: int, generator: Any) -> tuple[float, float]:
    """How often a plan of fixed seeds says helps, and how often its t test alone would."""
    helps = t_alone = 0
    for _ in range(0, NUM_STUDIES, PART):
        differences = draw(generator, (PART, number)) + effect
        with np.errstate(invalid="ignore", divide="ignore"):
            test = stats.ttest_1samp(differences, 0, axis=1)
        is_gain = (test.pvalue < LEVEL) & (test.statistic > 0)
        t_alone += is_gain.sum()
        helps += flips_agree(differences[is_gain], generator).sum()
    return helps / NUM_STUDIES, t_alone / NUM_STUDIES


def power(effect: float, generator: Any) -> Iterator[Any]:
    """How often a sequence says helps by 5, 10, 20, 40 seeds, beside a plan of so many seeds."""
    watched = Watched(generator.normal(effect, 1, (NUM_STUDIES, MAX_SEEDS, 1)))
    is_sure = ((watched.p < LEVEL) & (watched.mean > 0))[..., 0]
    for number in (5, 10, 20, 40):
        yield number, "sequence says helps", is_sure[:, :number].any(1).mean()
        helps, t_alone = fixed_test(RUNS["normal"], effect, number, generator)
        yield number, "fixed plan says helps", helps
        yield number, "fixed plan says helps or suggests it", t_alone
    first = np.where(is_sure.any(1), is_sure.argmax(1) + 1, MAX_SEEDS + 1)
    yield MAX_SEEDS, "median seeds until a sequence says helps", float(np.median(first))


def coverage(effect: float, max_seeds: int, generator: Any) -> Iterator[Any]:
    """How often the interval that is shown where one stops holds the true mean."""
    watched = Watched(generator.normal(effect, 1, (NUM_STUDIES, max_seeds, 1)))
    half, mean = watched.half_width[..., 0], watched.mean[..., 0]
    holds = np.abs(mean - effect) <= half
    differs = watched.p[..., 0] < LEVEL
    is_within = np.abs(mean) + half < MARGIN
    stops = {
        "when it differs from 0": differs,
        "when settled, margin half a standard deviation": differs | is_within,
    }
    for rule, is_over in stops.items():
        last = np.where(is_over.any(1), is_over.argmax(1), max_seeds - 1)
        shown = np.take_along_axis(holds, last[:, None], 1)
        yield f"interval holds the mean, stopped {rule}", shown.mean()
        yield f"median seeds, stopped {rule}", float(np.median(last + 1))
    yield "all intervals hold the mean", holds.all(1).mean()


def compare_with_package() -> None:
    """Hold what is simulated against `studies.analysis` itself, study by study."""
    generator = np.random.default_rng(1)
    for draw in RUNS.values():
        runs = draw(generator, (20, 25, 4))
        watched = Watched(runs[..., 1:] - runs[..., :1])
        corrected = holm(watched.p)
        for study, number in np.ndindex(20, 25):
            seeds = range(number + 1)
            baseline = {seed: float(runs[study, seed, 0]) for seed in seeds}
            arms = [{seed: float(runs[study, seed, arm]) for seed in seeds} for arm in (1, 2, 3)]
            found = judge(
                {str(n): compare(arm, baseline, is_sequential=True) for n, arm in enumerate(arms)},
                MARGIN,
            )
            for arm, judged in enumerate(found.values()):
                log_e = watched.log_e[study, number, arm]
                assert math.isclose(judged.log_e, log_e, rel_tol=1e-6, abs_tol=1e-9)
                assert math.isclose(log_e_value(list(judged.differences.values())), judged.log_e)
                assert math.isclose(judged.p_holm, min(1, corrected[study, number, arm]),
                                    rel_tol=1e-6)  # fmt: skip
                if judged.sd > 0:
                    half_width = watched.half_width[study, number, arm]
                    assert math.isclose(judged.half_width, half_width, rel_tol=1e-6)


def simulate() -> Iterator[dict[str, Any]]:
    """All rows of the table."""
    generator = np.random.default_rng(20261126)

    def row(what: str, value: float, arms: int = 1, kind: str = "normal", effect: float = 0.0,
            seeds: int = MAX_SEEDS) -> dict[str, Any]:  # fmt: skip
        is_share = not what.startswith("median")
        error = math.sqrt(value * (1 - value) / NUM_STUDIES) if is_share else math.nan
        return {
            "quantity": what, "differences": kind, "arms": arms, "effect_in_sd": effect,
            "seeds": seeds, "value": f"{value:.4f}" if is_share else f"{value:g}",
            "standard_error": f"{error:.4f}" if is_share else "", "studies": NUM_STUDIES,
        }  # fmt: skip

    for kind, draw in RUNS.items():
        for arms in (1, 3, 4):
            name = kind if kind == "normal" else f"of runs: {kind}"
            for what, seeds, value in false_verdicts(draw, arms, True, generator):
                yield row(what, value, arms, name, seeds=seeds)
    for kind, draw in DIFFERENCES.items():
        if kind != "normal":
            for what, seeds, value in false_verdicts(draw, 1, False, generator):
                yield row(what, value, 1, kind, seeds=seeds)
        for number in (10, 20):
            helps, t_alone = fixed_test(draw, 0.0, number, generator)
            yield row("false helps of a fixed plan", helps, 1, kind, seeds=number)
            yield row("false helps or suggested gain of a fixed plan", t_alone, 1, kind,
                      seeds=number)  # fmt: skip
    for effect in (0.25, 0.5, 1.0, 1.5, 2.0):
        for number, what, value in power(effect, generator):
            yield row(what, value, effect=effect, seeds=number)
    for effect in (0.0, 0.25, 0.5, 1.0):
        for max_seeds in (40, 100):
            for what, value in coverage(effect, max_seeds, generator):
                yield row(what, value, effect=effect, seeds=max_seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "docs" / "results" / "2026-11-26-sequence.csv"
    parser.add_argument("--output", type=Path, default=default, help="write this file")
    output = parser.parse_args().output
    compare_with_package()
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in simulate():
            writer = writer or csv.DictWriter(file, list(row), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(*row.values(), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
