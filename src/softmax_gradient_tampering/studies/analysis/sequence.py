"""Paired differences that are looked at again and again: an e-value, a confidence sequence.

Student's t test and interval take the number of pairs as fixed beforehand. These do not: whoever
looks after every pair, and stops whenever it pleases, is wrong at most as often as is said. What
they promise they promise of normal differences, of unknown mean and variance. Pure functions.

Under the null hypothesis the differences have mean 0. The alternative has mean delta sigma with
delta drawn from N(0, g), and sigma has the right Haar prior 1 / sigma under both. The ratio of the
two likelihoods depends on the data through their directions alone, whose distribution under the
null does not depend on sigma, and it is a martingale there that starts at 1. So, by Ville's
inequality, it ever reaches 1 / a with probability at most a, whatever the stopping rule.

Sources: H. Wang and A. Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means
with unknown variance, Sequential Analysis 44, 2025 (arXiv 2310.03722); M. Lindon, D. Ham, M.
Tingley and I. Bojinov, Anytime-valid linear models and regression adjusted causal inference in
randomized experiments, 2022 (arXiv 2210.08589); P. Grünwald, R. de Heide and W. Koolen, Safe
testing, Journal of the Royal Statistical Society B 86, 2024 (arXiv 1906.07801); M. Gönen, W.
Johnson, Y. Lu and P. Westfall, The Bayesian two-sample t test, The American Statistician 59, 2005.
"""

import math
from collections.abc import Sequence

from softmax_gradient_tampering.studies.analysis.statistics import CONFIDENCE

# g, the variance of the effect in standard deviations under the alternative. It is fixed: one
# that is chosen after a look at the data promises nothing.
PRIOR_VARIANCE = 1.0


def log_e_value(differences: Sequence[float]) -> float:
    """The logarithm of the e-value of differences: the evidence that their mean is not 0.

        log E_n = -1/2 log(1 + n g) + n/2 (log Q - log(Q - S^2 g / (1 + n g)))

    S and Q are the sums of d and of d^2. The order of the differences does not matter.

    Args:
        differences: of pairs, in any unit: E does not change where all are scaled.

    Returns:
        0 of no difference, of one, and where all are 0: nothing can be said of these. At most
        (n - 1) / 2 log(1 + n), where all are equal. nan where one is not finite.

    >>> log_e_value([0.7])
    0.0
    >>> round(math.exp(log_e_value([1.0, 2.0, 3.0])), 3)
    2.343
    >>> round(math.exp(log_e_value([1.0] * 5)), 3)  # 6 ** 2
    36.0
    """
    if not all(map(math.isfinite, differences)):
        return math.nan
    largest = max(map(abs, differences), default=0.0)
    if largest == 0:
        return 0.0
    number = len(differences)
    scaled = [difference / largest for difference in differences]
    squares = math.fsum(value * value for value in scaled)
    share = min(1.0, math.fsum(scaled) ** 2 / (number * squares))
    return log_e_of_share(share, number, number - 1)


def log_e_of_share(share: float, size: float, degrees: int) -> float:
    """The logarithm of the e-value of an estimate and its t statistic.

        log E = -1/2 log(1 + n g) - (nu + 1)/2 log(1 - R n g / (1 + n g)),  R = t^2 / (nu + t^2)

    Args:
        share: R, what the mean explains of the sum of squares, from 0 to 1.
        size: n, the variance of a difference over the variance of the estimate; of a mean of n
            differences, n.
        degrees: nu, of freedom.
    """
    spread = size * PRIOR_VARIANCE
    # 1 - R n g / (1 + n g), of which no digit is lost where R is nearly 1
    rest = (1 + spread * (1 - share)) / (1 + spread)
    return -0.5 * math.log1p(spread) - 0.5 * (degrees + 1) * math.log(rest)


def anytime_p(log_e: float) -> float:
    """A p value that holds whenever one stops: 1 / E, at most 1; nan of nan.

    >>> anytime_p(math.log(40)), anytime_p(-1.0)
    (0.025, 1.0)
    """
    return 1.0 if log_e < 0 else math.exp(-log_e)


def sequence_half_width(sd: float, num_pairs: int, confidence: float = CONFIDENCE) -> float:
    """Half the width of the confidence sequence of a mean after some pairs.

    The sequence holds every mean mu at which the e-value of d - mu is below 1 / (1 - confidence).
    All its intervals, after 1, 2, 3 ... pairs, hold the true mean at once with this confidence.
    With c = (sqrt(1 + n g) / (1 - confidence))^(2/n) and r = 1 / (1 + n g) it is

        mean +- sd / sqrt(n) * sqrt((n - 1) (c - 1) / (1 - c r))

    Args:
        sd: standard deviation of the differences, with n - 1.
        num_pairs: n.
        confidence: of the sequence, in (0, 1).

    Returns:
        inf where no mean can be left out yet, c r >= 1: below five pairs at 95 %. nan where sd
        is.

    >>> round(sequence_half_width(sd=1.0, num_pairs=10), 4)
    1.2237
    >>> sequence_half_width(sd=1.0, num_pairs=4)
    inf
    """
    factor = width_factor(num_pairs, num_pairs - 1, confidence)
    return math.inf if math.isinf(factor) else sd / math.sqrt(num_pairs) * factor


def width_factor(size: float, degrees: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors the confidence sequence of an estimate reaches to either side.

    Args:
        size, degrees: as of `log_e_of_share`, which is 1 / (1 - confidence) at this t.
        confidence: of the sequence, in (0, 1).

    Returns:
        inf where nothing can be left out yet.
    """
    if degrees < 1:
        return math.inf
    log_spread = math.log1p(size * PRIOR_VARIANCE)
    log_c = (log_spread - 2 * math.log1p(-confidence)) / (degrees + 1)
    if log_c >= log_spread:
        return math.inf
    return math.sqrt(degrees * math.expm1(log_c) / -math.expm1(log_c - log_spread))
