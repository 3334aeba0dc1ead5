"""The axis that scores are drawn on: where it starts and ends, and how it is stretched where tails are long."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.style import present

CUT = 1e-3  # of each kind's events, that may lie beyond either end
FEW = 1e-2  # of them, that may where they lie far out
LONG = 20  # widths of the nominal bulk, beyond which an axis is stretched
CROWD = 0.2  # of the nominal events, that a bin of sixty may hold
SEEN_WELL = 0.25  # of the axis, that the middle 98 % of nominal events take where nobody is left out for it
SEEN = 20_000  # scores that tell
FEET = 10.0  # how much smaller than the least score the width of a logarithmic axis is
FAR = 1e30  # how much larger than that its end may be
RESOLVED = 12  # bins that hold the middle 98 % of nominal events, at least
MOST_BINS = 200


class Span(NamedTuple):
    """An axis from `low` to `high`, linear, or where `width` is given stretched: asinh((s - centre) / width) is even.

    Near the centre such an axis is linear, and logarithmic on both sides of it, so that nominal events keep their shape
    beside anomalies of a million times their score.
    """

    low: float
    high: float
    centre: float = 0.0
    width: float | None = None

    def forward(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Scores to places along the axis."""
        s = np.asarray(scores, np.float64)
        return s if self.width is None else np.arcsinh((s - self.centre) / self.width)

    def inverse(self, places: ArrayLike) -> NDArray[np.float64]:
        """Places along the axis to scores."""
        u = np.asarray(places, np.float64)
        return u if self.width is None else self.centre + self.width * np.sinh(u)

    def grid(self, steps: int) -> NDArray[np.float64]:
        """Scores at the ends of so many steps that look equally wide, `(steps + 1,)`, ascending."""
        grid = self.inverse(np.linspace(self.forward(self.low), self.forward(self.high), steps + 1))
        grid[0], grid[-1] = self.low, self.high
        return grid

    def clip(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Scores with those beyond the axis at its ends."""
        return np.clip(np.asarray(scores, np.float64), self.low, self.high)

    def histogram(
        self, scores: ArrayLike, steps: int, weights: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts, or sums of weights, `(steps,)`, between the scores of `grid`; those beyond lie in the outermost."""
        edges, clipped = self.grid(steps), self.clip(scores)
        if self.width is None:  # numpy need not look for the place of each
            counts = np.histogram(clipped, steps, (self.low, self.high), weights=weights)[0]
        else:
            counts = np.histogram(clipped, edges, weights=weights)[0]
        return counts.astype(np.float64), edges

    def bins(self, scores: ArrayLike, wanted: int) -> int:
        """So many bins, or as many more as part the middle 98 % of these scores into twelve, within 200."""
        s = np.asarray(scores, np.float64)
        s = s[np.isfinite(s)]
        if not len(s):
            return wanted
        share = self.share(s)
        return int(np.clip(RESOLVED / share if share > 0 else 0, wanted, max(wanted, MOST_BINS)))

    def share(self, scores: ArrayLike) -> float:
        """How much of the axis the middle 98 % of finite scores take."""
        inner = np.diff(self.forward(self.clip(np.quantile(np.asarray(scores, np.float64), [0.01, 0.99]))))[0]
        return float(inner / (self.forward(self.high) - self.forward(self.low)))

    @property
    def stretched(self) -> str:
        """How an axis is stretched, in words; empty where it is not."""
        if self.width is None:
            return ""
        if not self.low < self.centre < self.high and self.width < 1e-3 * (self.high - self.low):
            of = "" if self.centre == 0 else f" in the distance from {self.centre:.3g}"
            return f" (logarithmic{of})"
        return f" (linear near {self.centre:.3g}, logarithmic beyond)"

    def beyond(self, scores: ArrayLike) -> int:
        """How many scores lie beyond the ends."""
        s = np.asarray(scores)
        return int(((s < self.low) | (s > self.high)).sum())

    def left_out(self, scores: ArrayLike) -> str:
        """A line for the axis' label that says how many do, if any."""
        outside = self.beyond(scores)
        total = len(np.asarray(scores))
        return f"\nthe outermost bins hold {outside:,} of\n{total:,} events beyond the ends" if outside else ""

    def ticks(self, most: int = 7) -> NDArray[np.float64]:
        """Round scores for the ticks of a stretched axis."""
        even = self.inverse(np.linspace(self.forward(self.low), self.forward(self.high), most))
        steps = np.abs(np.diff(even))
        gaps = np.minimum(np.append(steps[:1], steps), np.append(steps, steps[-1:]))
        unit = 10.0 ** np.floor(np.log10(np.where(gaps > 0, gaps, 1.0)))
        rounded = np.unique(np.round(even / unit) * unit) + 0.0  # no -0
        return rounded[(rounded >= self.low) & (rounded <= self.high)]

    def apply(self, axis: Axes) -> None:
        """Make an axis' x this one."""
        if self.width is not None:
            axis.set_xscale("function", functions=(self.forward, self.inverse))
            axis.xaxis.set_major_locator(FixedLocator(list(self.ticks(6))))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
            axis.xaxis.set_minor_locator(FixedLocator([]))
        axis.set_xlim(self.low, self.high)


def per_unit(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of a histogram as a density, whose integral is one.

    Example:
        >>> per_unit(np.array([1.0, 3.0]), np.array([0.0, 1.0, 3.0])).tolist()
        [0.25, 0.375]
    """
    return counts / ((counts.sum() or 1.0) * np.diff(edges))


def short(value: float) -> str:
    """A number of three digits as ticks have it.

    Example:
        >>> short(150000), short(0.25), short(1200)
        ('1.5e5', '0.25', '1200')
    """
    if 1000 <= abs(value) < 10_000:
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def span(scores: ArrayLike, y: ArrayLike) -> Span:
    """The axis for these scores: every kind's 0.1 to 99.9 % quantiles lie on it, or 1 to 99 % if few lie far out.

    Of a straight axis, one stretched about the nominal median, by the middle 98 % of nominal scores or by the middle
    half, and logarithmic ones, it is the first on which no bin of sixty holds more than a fifth of the nominal scores,
    such as have one value apart. Infinite scores lie beyond it. Without a nominal event all count as nominal.

    Args:
        scores: `(N,)`.
        y: `(N,)` labels.

    Raises:
        ValueError: if there is no score, the lengths differ, or a score is NaN.

    Example:
        >>> span([0.0, 1.0, 2.0], [0, 0, 1])
        Span(low=0.0, high=2.0, centre=0.0, width=None)
    """
    s, labels = np.asarray(scores), np.asarray(y)
    if s.ndim != 1 or s.shape != labels.shape or not len(s):
        raise ValueError(f"scores and labels must be two columns of one length, not {s.shape} and {labels.shape}")
    if nans := int(np.isnan(s).sum()):
        raise ValueError(f"{nans} of {len(s)} scores are NaN and cannot be drawn")
    finite = np.isfinite(s)
    if not finite.any():
        return Span(0.0, 1.0)
    if not finite.all():
        s, labels = s[finite], labels[finite]
    ends = [np.quantile(s[labels == k].astype(np.float64), [CUT, 1 - CUT]) for k, _ in present(labels)]
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    if low == high:
        pad = abs(low) / 20 or 0.5
        return Span(low - pad, high + pad)
    if len(s) <= 2 / CUT:  # so few that a quantile between two of them would cut the outermost
        low, high = float(s.min()), float(s.max())
    bulk = np.sort((s[labels == 0] if (labels == 0).any() else s).astype(np.float64))
    found = _best(bulk, low, high)
    if found.share(bulk) < SEEN_WELL and (inner := _without_few(s, labels, low, high)) != (low, high):
        return _best(bulk, *inner)
    return found


def _best(bulk: NDArray[np.float64], low: float, high: float) -> Span:
    """The first axis on which nominal scores are not crowded, else that on which they are least."""
    best, least = None, np.inf
    for tried in _tried(bulk, low, high):
        if (share := crowded(tried, bulk)) <= CROWD:
            return tried
        if share < least:
            best, least = tried, share
    return best or Span(low, high)


def _without_few(s: NDArray[Any], labels: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """The ends without a hundredth of each kind, if that shortens the axis twentyfold: a few would squeeze all others.

    Of a kind of a hundred events or fewer none is left out.
    """
    ends = [
        (np.quantile(own, FEW, method="lower"), np.quantile(own, 1 - FEW, method="higher"))
        for own in (s[labels == k].astype(np.float64) for k, _ in present(labels))
    ]
    inner = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if not 0 < inner[1] - inner[0] < (high - low) / LONG:
        return low, high
    pad = (inner[1] - inner[0]) / 20
    return max(low, inner[0] - pad), min(high, inner[1] + pad)


def _tried(bulk: NDArray[np.float64], low: float, high: float) -> Iterator[Span]:
    """Axes between two ends for sorted nominal scores, the plainest first."""
    least, lower, middle, upper, most = np.quantile(bulk, [0.01, 0.25, 0.5, 0.75, 0.99])
    width = (most - least) / 2 or max(abs(middle), high - low) * 1e-6
    if high - low <= 2 * LONG * width:
        yield Span(low, high)
    yield Span(low, high, float(middle), float(width))
    if upper > lower:
        yield Span(low, high, float(middle), float(upper - lower) / 2)
    # logarithmic: of the scores themselves, or of how far they lie from the least or the largest
    for start, near in ((0.0, max(low, -high)), (low, float(middle - low) / FEET), (high, float(high - middle) / FEET)):
        if near > 0 and FAR * near > high - low:
            yield Span(low, high, start, near / FEET)
    if high - low > 2 * LONG * width:
        yield Span(low, high)


def crowded(axis: Span, scores: NDArray[np.float64], bins: int = 60) -> float:
    """The share of sorted scores in the fullest of so many bins, but for those of its commonest value.

    No axis parts scores that are the same.

    Example:
        >>> crowded(Span(0.0, 1.0), np.array([0.0, 0.001, 0.002, 1.0])), crowded(Span(-1.0, 1.0), np.zeros(9))
        (0.5, 0.0)
    """
    some = scores[:: -(-len(scores) // SEEN)]
    counts = axis.histogram(some, bins)[0]
    values, repeats = np.unique(axis.clip(some), return_counts=True)
    place = np.clip(np.searchsorted(axis.grid(bins), values, "right") - 1, 0, bins - 1)
    commonest = np.zeros(bins)
    np.maximum.at(commonest, place, repeats)
    return float(((counts - commonest) / len(some)).max())
