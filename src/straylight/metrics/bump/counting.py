"""How odd an observed count is, if the expected one is known only so well."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betainc, betaln, gammainc, gammaincc, gammaln, ndtri_exp

CERTAIN = 1e-9  # relative uncertainty, below which an expectation is known
TINY = 1e-280  # a probability below which its logarithm is summed
TERMS = 4096  # of a sum, at a time


class Excess(NamedTuple):
    """A count above (or below) expectation.

    Attributes:
        p: probability of as many or more; 0.0 below the smallest number there is.
        log_p: its natural logarithm.
        z: the same in standard deviations, one-sided: negative for a deficit.
    """

    p: float
    log_p: float
    z: float

    @classmethod
    def of(cls, log_p: float) -> Excess:
        """From the logarithm of a probability.

        Example:
            >>> round(Excess.of(math.log(2.8665157e-7)).z, 4)
            5.0
        """
        return cls(math.exp(log_p), log_p, -float(ndtri_exp(log_p)))

    def narrowed(self, width: float) -> Excess:
        """The same if z, without a signal, has this width in place of 1: z divided by it.

        Args:
            width: measured on pseudo-data without signal.
        """
        if width == 1:
            return self
        from scipy.special import log_ndtr

        z = self.z / width
        log_p = float(log_ndtr(-z))
        return Excess(math.exp(log_p), log_p, z)


def excess(observed: int, expected: float, uncertainty: float, *, mid: bool = False) -> Excess:
    """Poisson-gamma: the probability of as many events or more, the expectation being Gamma of this mean and deviation.

    The count is then negative binomial with variance `expected + uncertainty^2`, and P(N >= n) = I_q(n, a), an
    incomplete beta function with a = (expected / uncertainty)^2 and q = uncertainty^2 / (uncertainty^2 + expected).
    Leaving the uncertainty out doubles false alarms. Where fewer than expected are observed, z is that of the
    probability of as few or fewer, so that none observed has one, too.

    References:
        R. D. Cousins, J. T. Linnemann, J. Tucker, Evaluation of three methods for calculating statistical significance
        when incorporating a systematic uncertainty into a test of the background-only hypothesis for a Poisson process,
        Nucl. Instrum. Meth. A 595 (2008) 480, arXiv:physics/0702156

    Args:
        observed: events.
        expected: mean of the background.
        uncertainty: its standard deviation; 0 for a background that is known.
        mid: count half of the probability of just as many: without signal, uniform on average; for calibration.

    Raises:
        ValueError: if a number is negative or not finite, or the expectation zero.

    Example:
        >>> round(excess(130, 100, 0).z, 2), round(excess(130, 100, 10).z, 2)
        (2.84, 1.98)
    """
    if observed < 0 or not (0 < expected < math.inf and 0 <= uncertainty < math.inf):
        raise ValueError(
            f"a count is compared with an expectation above 0 of finite uncertainty, not {observed} with {expected} +- "
            f"{uncertainty}"
        )
    log_p = _log_upper(observed, expected, uncertainty)
    if mid:
        log_half = _log_mass(observed, expected, uncertainty) - math.log(2)
        log_p += math.log1p(-min(math.exp(log_half - log_p), 0.5))
        return Excess.of(log_p)
    if log_p > math.log(0.5):
        return Excess(math.exp(log_p), log_p, min(float(ndtri_exp(_log_lower(observed, expected, uncertainty))), 0.0))
    return Excess.of(log_p)


def global_excess(local: Excess, looks: int) -> Excess:
    """What is left of the most significant of several regions: p = 1 - (1 - p_local)^looks (Šidák).

    Exact where regions are independent, and close to `looks p_local`, which is never exceeded. Regions that overlap,
    as in a fine scan, are fewer independent looks: the true one is then smaller, and this an upper bound.

    Args:
        local: the smallest.
        looks: regions looked at.

    Raises:
        ValueError: if there is none.

    Example:
        >>> round(global_excess(Excess.of(math.log(0.001)), 10).p, 6)
        0.009955
    """
    if looks < 1:
        raise ValueError(f"a scan has one region or more, not {looks}")
    if looks == 1:
        return local
    if local.p < 1e-12:  # looks * p, in logarithms
        return Excess.of(min(local.log_p + math.log(looks), 0.0))
    p = -math.expm1(looks * math.log1p(-min(local.p, 1 - 1e-16)))
    return Excess.of(math.log(min(p, 1 - 1e-16)))


def _known(expected: float, uncertainty: float) -> bool:
    return uncertainty <= CERTAIN * expected


def _log_mass(n: int, expected: float, uncertainty: float) -> float:
    """The logarithm of the probability of just so many."""
    if _known(expected, uncertainty):
        return float(n * math.log(expected) - expected - gammaln(n + 1))
    variance = uncertainty**2
    a = expected**2 / variance
    log_none = -a * math.log1p(variance / expected)
    if n == 0:
        return log_none
    log_q = -math.log1p(expected / variance)
    return float(log_none + n * log_q - math.log(n) - betaln(n, a))


def _log_upper(n: int, expected: float, uncertainty: float) -> float:
    """The logarithm of the probability of so many or more."""
    if n == 0:
        return 0.0
    known, variance = _known(expected, uncertainty), uncertainty**2
    if known:
        p = float(gammainc(n, expected))
    else:
        p = float(betainc(n, expected**2 / variance, variance / (variance + expected)))
    if p > TINY:
        return math.log(p)
    # the sum of the masses from n on, each in units of the first
    total, factor, first = 1.0, 1.0, n
    while True:
        k = np.arange(first, first + TERMS, dtype=np.float64)
        a = 0.0 if known else expected**2 / variance
        ratio = expected / (k + 1) if known else (k + a) / (k + 1) * variance / (variance + expected)
        terms = factor * np.cumprod(ratio)
        total += float(terms.sum())
        factor, first = float(terms[-1]), first + TERMS
        if factor < 1e-17 * total:
            return _log_mass(n, expected, uncertainty) + math.log(total)


def _log_lower(n: int, expected: float, uncertainty: float) -> float:
    """The logarithm of the probability of so many or fewer."""
    known, variance = _known(expected, uncertainty), uncertainty**2
    if known:
        p = float(gammaincc(n + 1, expected))
    else:
        p = float(betainc(expected**2 / variance, n + 1, expected / (variance + expected)))
    if p > TINY:
        return math.log(p)
    k = np.arange(n, 0, -1, dtype=np.float64)  # from n down, each in units of the first
    a = 0.0 if known else expected**2 / variance
    ratio = k / expected if known else k / (k - 1 + a) * (variance + expected) / variance
    return _log_mass(n, expected, uncertainty) + math.log1p(float(np.cumprod(ratio).sum()))
