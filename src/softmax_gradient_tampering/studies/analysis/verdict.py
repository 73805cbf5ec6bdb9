"""Verdicts: what the paired differences between two arms allow to be said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from softmax_gradient_tampering.studies.analysis.sequence import (
    anytime_p,
    log_e_value,
    sequence_half_width,
)
from softmax_gradient_tampering.studies.analysis.statistics import (
    LEVEL,
    MIN_EQUAL_PAIRS,
    Interval,
    PermutationTest,
    half_width,
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
        mean, half_width: of the differences' 95 % interval; nan without enough pairs, and
            infinite where a sequence has too few.
        sd: standard deviation of the differences.
        is_sequential: whether the number of pairs depends on what the first ones showed; the
            interval is then that of a confidence sequence, else Student's t.
        log_e: of a sequence, the logarithm of the e-value; else nan.
        p_t: of the paired t test where the number of pairs was fixed; without any spread, that
            of the sign-flip test.
        p_sign, p_permutation: of the exact sign test and the sign-flip permutation test.
        is_exact: whether the permutations were enumerated, not sampled.
        differences: by seed.
        divergence, reference_divergence: of the treated arm and of the control; pairs of runs
            that diverged have no difference, so that the numbers are the survivors'.
        p_holm: the p that claims rest on, corrected over the arms compared; nan for one that is
            not in the family.
        verdict: None for one that is not judged.
        is_settled: whether it differs from 0, or its interval lies within the margin.
        seeds: pairs that would settle an inconclusive comparison, if that can be told.
        test_half_width: half the 95 % interval over test sets like this one, the runs taken as
            they are; nan where it is not known.
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
    is_sequential: bool = False
    log_e: float = math.nan
    p_holm: float = math.nan
    verdict: Verdict | None = None
    is_settled: bool = False
    seeds: int | None = None
    test_half_width: float = math.nan

    @property
    def interval(self) -> Interval:
        return Interval(self.mean, self.half_width)

    @property
    def has_interval(self) -> bool:
        """Whether there are pairs enough, with a spread, without which no interval is to trust."""
        return self.sd > 0 and math.isfinite(self.half_width)

    @property
    def p_claim(self) -> float:
        """The p that claims rest on: of the t test, or 1 / E of a sequence.

        That of the sign-flip test without any spread. Where the number of pairs was not fixed
        it holds too: if all pairs are equal, all were when there were fewer.
        """
        return self.p_anytime if self.is_sequential and self.sd != 0 else self.p_t

    @property
    def p_anytime(self) -> float:
        """1 / E of a sequence; else nan."""
        return anytime_p(self.log_e)

    def half_width_at(self, confidence: float) -> float:
        """Half the width of the interval at another confidence than 95 %."""
        width = sequence_half_width if self.is_sequential else half_width
        return width(self.sd, self.num_pairs, confidence)

    @property
    def is_borne_out(self) -> bool:
        """Whether the sign-flip test, which assumes less, agrees that there is a difference."""
        return self.p_permutation < LEVEL


def compare(
    treated: Mapping[int, float],
    control: Mapping[int, float],
    is_tested: bool = True,
    is_sequential: bool = False,
) -> Comparison:
    """Compare two arms' numbers, paired by seed; seeds that one of them lacks are passed over.

    Args:
        treated, control: by seed.
        is_tested: whether to test that there is no difference; else every p is nan.
        is_sequential: whether the number of pairs depends on what the first ones showed.

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
    p_t = math.nan if is_sequential or not is_tested else t_test(values)
    width = sequence_half_width(sd, len(values)) if is_sequential else interval.half_width
    return Comparison(
        num_pairs=len(values),
        num_left_out=len(shared) - len(values),
        mean=interval.mean,
        half_width=width,
        sd=sd,
        is_sequential=is_sequential,
        log_e=log_e_value(values) if is_sequential and is_tested else math.nan,
        p_t=permutation.p if sd == 0 else p_t,
        p_sign=sign_test(values) if is_tested else math.nan,
        p_permutation=permutation.p,
        is_exact=permutation.is_exact,
        differences=finite,
    )


def judge(comparisons: Mapping[str, Comparison], margin: float) -> dict[str, Comparison]:
    """Give every comparison of a family its corrected p value and its verdict.

    - helps, hurts: where the number of pairs was fixed, the Holm-corrected p of the paired t
      test and the p of the sign-flip test are below 0.05; else the Holm-corrected 1 / E is;
    - suggests a gain, suggests harm: the corrected p of the t test alone is;
    - diverges: more of the treated arm's runs diverged than of the control's, and the
      survivors are not worse;
    - no difference (larger than the margin): the 95 % interval lies within the margin;
    - inconclusive: neither.

    Without any spread between the pairs no interval can be trusted: the sign-flip test takes
    the other's place, and it takes six equal pairs to say that there is no difference.

    Args:
        comparisons: by arm, of a number of which more is better.
        margin: differences within it count as none, above 0, in the number's unit.

    Sources: of Holm's correction of e-values, 1 / E in the place of p, V. Vovk and R. Wang,
    E-values: calibration, combination and applications, Annals of Statistics 49, 2021.

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin {margin}: must be above 0")
    corrected = holm([comparison.p_claim for comparison in comparisons.values()])
    judged = {}
    for (name, comparison), p in zip(comparisons.items(), corrected, strict=True):
        verdict = _verdict(comparison, p, margin)
        seeds = None
        if verdict is Verdict.INCONCLUSIVE:
            width = sequence_half_width if comparison.is_sequential else half_width
            seeds = seeds_to_settle(comparison.mean, comparison.sd, margin, len(comparisons), width)
        is_settled = p < LEVEL or _lies_within(comparison, margin)
        judged[name] = replace(
            comparison, p_holm=p, verdict=verdict, is_settled=is_settled, seeds=seeds
        )
    return judged


def _verdict(comparison: Comparison, p: float, margin: float) -> Verdict:
    is_sure = comparison.is_borne_out or comparison.is_sequential
    if p < LEVEL and comparison.mean < 0:
        return Verdict.HURTS if is_sure else Verdict.SUGGESTS_HARM
    if comparison.divergence.share > comparison.reference_divergence.share:
        return Verdict.DIVERGES
    if p < LEVEL:
        return Verdict.HELPS if is_sure else Verdict.SUGGESTS_GAIN
    return Verdict.NO_DIFFERENCE if _lies_within(comparison, margin) else Verdict.INCONCLUSIVE


def _lies_within(comparison: Comparison, margin: float) -> bool:
    is_within = abs(comparison.mean) + comparison.half_width < margin
    return is_within and (comparison.sd > 0 or comparison.num_pairs >= MIN_EQUAL_PAIRS)
