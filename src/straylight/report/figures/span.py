"""The axis that scores are drawn on: where it starts and ends, and how it is stretched where tails are long."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.style import present

CUT = 1e-3  # of each kind's events, that may lie beyond either end
LONG = 20  # widths of the nominal bulk, beyond which an axis is stretched


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

    def beyond(self, scores: ArrayLike) -> int:
        """How many scores lie beyond the ends."""
        s = np.asarray(scores)
        return int(((s < self.low) | (s > self.high)).sum())

    def left_out(self, scores: ArrayLike) -> str:
        """A line for the axis' label that says how many do, if any."""
        outside = self.beyond(scores)
        return f"\n{outside:,} of {len(np.asarray(scores)):,} events beyond the ends" if outside else ""

    def ticks(self, most: int = 7) -> NDArray[np.float64]:
        """Round scores for the ticks of a stretched axis."""
        even = self.inverse(np.linspace(self.forward(self.low), self.forward(self.high), most))
        steps = np.abs(np.diff(even))
        gaps = np.minimum(np.append(steps[:1], steps), np.append(steps, steps[-1:]))
        unit = 10.0 ** np.floor(np.log10(np.where(gaps > 0, gaps, 1.0)))
        rounded = np.unique(np.round(even / unit) * unit)
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
    """The axis for these scores: every kind's 0.1 to 99.9 % quantiles lie on it.

    It is stretched about the nominal median if it is more than 20 times as wide as the middle 98 % of nominal scores.
    Infinite scores lie beyond it. Without a nominal event all count as nominal.

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
    bulk = (s[labels == 0] if (labels == 0).any() else s).astype(np.float64)
    least, middle, most = np.quantile(bulk, [0.01, 0.5, 0.99])
    width = (most - least) / 2 or max(abs(middle), high - low) * 1e-6
    if high - low <= 2 * LONG * width:
        return Span(low, high)
    return Span(low, high, float(middle), float(width))
