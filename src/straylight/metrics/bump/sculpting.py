"""Does a cut on the score bend the background in the resonant variable?

`B` bins, `n` events kept of `N`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, xlogy

from straylight.metrics.bump.fitting import joined

DRAWS = 200
LARGE = 1e9  # events, of which NumPy draws none without putting them back


class Sculpting(NamedTuple):
    """How the spectrum of those kept differs from that of all.

    Attributes:
        jsd: the Jensen-Shannon divergence of both, in bits: 0 where they are alike, 1 where they do not overlap.
        chance: what it is on average where the cut knows nothing of the variable, in draws of as many events.
        chi2, dof: of the number kept in each bin; 0 degrees where there are too few events.
        p: the probability of as large a chi-squared by chance; 1 without degrees of freedom.
    """

    jsd: float
    chance: float
    chi2: float
    dof: int
    p: float

    def entry(self) -> dict[str, Any]:
        """The same in plain values, for a record."""
        return self._asdict()


def sculpting(before: ArrayLike, after: ArrayLike) -> Sculpting:
    """The spectrum of the background before and after a cut, compared.

    JSD = (KL(P | M) + KL(Q | M)) / 2 with M = (P + Q) / 2, logarithms to base 2, and no square root. It is above zero
    by chance: by about (B - 1)(1/n - 1/N) / (8 log 2) where many events are kept, and as `chance` says where few are.

    The events kept are a part of all. Where the cut knows nothing of the variable, the number kept in a bin of u events
    is hypergeometric, of mean e = u n/N and variance about e (1 - n/N), and chi2 = sum (c - e)^2 / (e (1 - n/N)) has
    B - 1 degrees of freedom. It is Pearson's of the table of kept and removed. Bins are joined until five are expected.

    References:
        J. Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991) 145,
        doi:10.1109/18.61115

    Args:
        before: events in each bin, `(B,)`.
        after: those of them that were kept, `(B,)`.

    Raises:
        ValueError: if none is kept, or more in a bin than there were.

    Example:
        >>> bent = sculpting([1000, 1000, 1000], [150, 100, 50])
        >>> round(bent.jsd, 4), round(bent.chi2, 1), bent.dof
        (0.0325, 55.6, 2)
    """
    u, c = (np.asarray(a, np.float64) for a in (before, after))
    if u.ndim != 1 or u.shape != c.shape or (c > u).any() or (c < 0).any():
        raise ValueError("the events kept in a bin are a part of those that there were, in the same bins")
    total, kept = float(u.sum()), float(c.sum())
    if not kept:
        raise ValueError("no event is kept, so that there is no spectrum to compare")
    u, c = u[u > 0], c[u > 0]
    jsd = _divergence(u / total, c / kept)
    rng = np.random.default_rng(0)
    if total < LARGE:
        drawn = rng.multivariate_hypergeometric(u.astype(np.int64), int(kept), DRAWS)
    else:
        drawn = rng.multinomial(int(kept), u / total, DRAWS)
    chance = float(np.mean([_divergence(u / total, one / kept) for one in drawn]))
    expected = u * kept / total
    at = joined(expected)
    if kept == total or at[-1] == 0:
        return Sculpting(jsd, chance, 0.0, 0, 1.0)
    there, mean = (np.bincount(at, column).astype(np.float64) for column in (c, expected))
    chi2 = float(np.sum((there - mean) ** 2 / mean)) / (1 - kept / total)
    return Sculpting(jsd, chance, chi2, len(mean) - 1, float(chdtrc(len(mean) - 1, chi2)))


def _divergence(p: Any, q: Any) -> float:
    middle = (p + q) / 2
    bits = xlogy(p, p / middle).sum() + xlogy(q, q / middle).sum()
    return min(max(float(bits) / (2 * math.log(2)), 0.0), 1.0)
