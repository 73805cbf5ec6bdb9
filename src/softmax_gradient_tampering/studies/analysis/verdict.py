"""Verdicts: what the paired differences between two arms allow to be said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from softmax_gradient_tampering.studies.analysis.statistics import (
    LEVEL,
    MIN_EQUAL_PAIRS,
    Interval,
    PermutationTest,
    holm,
    mean_interval,
    permutation_test,
    sample_sd,
    seeds_to_settle,
    sign_test,
    t_test,
)


class Verdict(StrEnum):
    """What a comparison says of the treated arm."""

    HELPS = "helps"
    SUGGESTS_GAIN = "suggests a gain"
    HURTS = "hurts"
    SUGGESTS_HARM = "suggests harm"
    DIVERGES = "diverges"
    NO_DIFFERENCE = "no difference"
    INCONCLUSIVE = "inconclusive"


class Divergence(NamedTuple):
    """How many of an arm's runs diverged.

    Attributes:
        num_diverged: runs whose numbers stopped being finite.
        num_ended: runs that are finished or diverged.
    """

    num_diverged: int = 0
    num_ended: int = 0

    @property
    def share(self) -> float:
        return self.num_diverged / self.num_ended if self.num_ended else 0.0


NONE_ENDED = Divergence()


@dataclass(frozen=True)
class Comparison:
    """An arm against another, paired by seed: treated minus control.

    Attributes:
        num_pairs: seeds that both arms have a finite number for.
        num_left_out: seeds that both have, where a number is not finite.
        mean, half_width: of the differences' 95 % t interval; nan without enough pairs.
        sd: standard deviation of the differences.
        p_t: of the paired t test; without any spread, that of the sign-flip test.
        p_sign, p_permutation: of the exact sign test and the sign-flip permutation test.
        is_exact: whether the permutations were enumerated, not sampled.
        differences: by seed.
        divergence, reference_divergence: of the treated arm and of the control; pairs of runs
            that diverged have no difference, so that the numbers are the survivors'.
        p_holm: p_t corrected over the arms compared; nan for one that is not in the family.
        verdict: None for one that is not judged.
        seeds: pairs that would settle an inconclusive comparison, if that can be told.
    """

    num_pairs: int
    num_left_out: int
    mean: float
    half_width: float
    sd: float
    p_t: float
    p_sign: float
    p_permutation: float
    is_exact: bool
    differences: dict[int, float]
    divergence: Divergence = NONE_ENDED
    reference_divergence: Divergence = NONE_ENDED
    p_holm: float = math.nan
    verdict: Verdict | None = None
    seeds: int | None = None

    @property
    def interval(self) -> Interval:
        return Interval(self.mean, self.half_width)

    @property
    def has_interval(self) -> bool:
        """Whether the pairs have a spread, without which there is no interval to trust."""
        return self.sd > 0

    @property
    def is_borne_out(self) -> bool:
        """Whether the sign-flip test, which assumes less, agrees that there is a difference."""
        return self.p_permutation < LEVEL


def compare(
    treated: Mapping[int, float], control: Mapping[int, float], is_tested: bool = True
) -> Comparison:
    """Compare two arms' numbers, paired by seed; seeds that one of them lacks are passed over.

    Args:
        treated, control: by seed.
        is_tested: whether to test that there is no difference; else every p is nan.

    >>> compare({0: 2.0, 1: 4.0, 3: 9.0}, {0: 1.0, 1: 2.0, 2: 5.0}).differences
    {0: 1.0, 1: 2.0}
    """
    shared = sorted(treated.keys() & control.keys())
    differences = {seed: treated[seed] - control[seed] for seed in shared}
    finite = {seed: d for seed, d in differences.items() if math.isfinite(d)}
    values = list(finite.values())
    interval = mean_interval(values) if values else Interval(math.nan, math.nan)
    sd = sample_sd(values)
    is_tested = is_tested and bool(values)
    permutation = permutation_test(values) if is_tested else PermutationTest(math.nan, True)
    return Comparison(
        num_pairs=len(values),
        num_left_out=len(shared) - len(values),
        mean=interval.mean,
        half_width=interval.half_width,
        sd=sd,
        p_t=permutation.p if sd == 0 or not is_tested else t_test(values),
        p_sign=sign_test(values) if is_tested else math.nan,
        p_permutation=permutation.p,
        is_exact=permutation.is_exact,
        differences=finite,
    )


def judge(
    comparisons: Mapping[str, Comparison], margin: float, has_grown: bool = False
) -> dict[str, Comparison]:
    """Give every comparison of a family its corrected p value and its verdict.

    - helps, hurts: the Holm-corrected p of the paired t test and the p of the sign-flip test
      are below 0.05;
    - suggests a gain, suggests harm: the corrected p of the t test alone is, or both are in a
      study to which seeds were added, where they promise more than they hold;
    - diverges: more of the treated arm's runs diverged than of the control's, and the
      survivors are not worse;
    - no difference (larger than the margin): the 95 % interval lies within the margin;
    - inconclusive: neither.

    Without any spread between the pairs no interval can be trusted: the sign-flip test takes
    the t test's place, and it takes six equal pairs to say that there is no difference.

    Args:
        comparisons: by arm, of a number of which more is better.
        margin: differences within it count as none, above 0, in the number's unit.
        has_grown: whether seeds were added after the first ones had been seen.

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin {margin}: must be above 0")
    corrected = holm([comparison.p_t for comparison in comparisons.values()])
    judged = {}
    for (name, comparison), p in zip(comparisons.items(), corrected, strict=True):
        verdict = _verdict(comparison, p, margin, has_grown)
        seeds = None
        if verdict is Verdict.INCONCLUSIVE:
            seeds = seeds_to_settle(comparison.mean, comparison.sd, margin, len(comparisons))
        judged[name] = replace(comparison, p_holm=p, verdict=verdict, seeds=seeds)
    return judged


def _verdict(comparison: Comparison, p: float, margin: float, has_grown: bool) -> Verdict:
    is_sure = comparison.is_borne_out and not has_grown
    if p < LEVEL and comparison.mean < 0:
        return Verdict.HURTS if is_sure else Verdict.SUGGESTS_HARM
    if comparison.divergence.share > comparison.reference_divergence.share:
        return Verdict.DIVERGES
    if p < LEVEL:
        return Verdict.HELPS if is_sure else Verdict.SUGGESTS_GAIN
    is_within = abs(comparison.mean) + comparison.half_width < margin
    if is_within and (comparison.sd > 0 or comparison.num_pairs >= MIN_EQUAL_PAIRS):
        return Verdict.NO_DIFFERENCE
    return Verdict.INCONCLUSIVE
