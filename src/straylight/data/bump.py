"""A narrow signal among a falling background: an over-density whose best classifier is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.data.steps.regions import Region, chosen, inside, limits
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.resonance import Resonance, Truth

LOW, HIGH = 3.0, 4.5  # of m
NARROW = (3.3, 3.7)  # where the signal is, whatever region is looked at
MASS, WIDTH = 3.5, 0.08
DISTANCE = abs(np.subtract.outer(range(4), range(4)))
MIXED = (  # the background: share, mean and covariance of each Gaussian
    (0.7, np.zeros(4), 0.6**DISTANCE),
    (0.3, np.array([1.5, 0.5, 1.5, 0.5]), 1.69 * (-0.4) ** DISTANCE),
)
SHIFT = np.array([1.0, 1.0, 0.0, 0.0])  # of the background, by correlation * (m - MASS)
CENTRE, SPREAD = np.array([2.0, 0.0, 2.0, 0.0]), 0.33  # of the signal
RESERVED = 10_000  # events of signal
TRUTH = 64_000  # events of each class, at least
CHUNK = 8192  # rows whose density is computed together

Pieces = Sequence[tuple[float, float]]


class Bump(AnomalyDataModule):
    r"""Background that falls in m, and a narrow signal in it that lies where background lies in all features, too.

    .. math::
        m &\sim e^{-m} \text{ in } [3, 4.5], & x &= z + c\,(m - 3.5)\,(1, 1, 0, 0), &
        z &\sim 0.7\,N(0, A) + 0.3\,N((1.5, 0.5, 1.5, 0.5), B) \\
        m &\sim N(3.5, 0.08^2) \text{ in } [3.3, 3.7], & x &\sim N((2, 0, 2, 0), 0.33^2)

    of background and of signal; A is 0.6^|i-j|, B 1.69 (-0.4)^|i-j|, c the correlation. m is the context and no
    feature. Training rows are as nature has them: `events` of background in all of m, and signal, of which
    `signal_fraction` says how much there is for the background expected in 3.3 to 3.7; `contamination=0` takes it out.
    `region` chooses among them. A signal region elsewhere changes nothing of nature, only what is looked at.

    Validation rows are further ones as found, `val_fraction` as many as training rows; of the signal region, as the
    tested rows are, or of the sidebands where these alone train. Tested are events of the signal region that were made
    for it, so many of each kind, whatever trains; if nature has no signal there, it is placed in the middle.

    `log_ratio` is the best score there is of the features alone; no classifier sees m.

    Args:
        events: of background, over all of m.
        signal_fraction: events of signal, relative to the background expected in 3.3 to 3.7.
        signal_region: limits in m.
        region: where training rows are from: `signal`, `sidebands`, or `both`.
        correlation: by which the first two features of background move with m.
        noise_features: further ones from N(0, 1), in signal and background.
        test_background, test_signal: events that are tested.
        common: see `AnomalyDataModule`; `seed` draws the events too, those of each split by themselves. The other
            fractions have no use here.

    Raises:
        DataError: if a number is out of its range, or a region holds no events.

    Example:
        >>> data = Bump(events=10_000, test_background=1000, test_signal=100)
        >>> data.setup()
        >>> data.shape, data.context, [len(part) for part in data.splits], int(data.splits.train.y.sum())
        ((4,), 1, [10031, 1003, 1100, 10000], 31)
        >>> ratio = data.log_ratio(torch.tensor([[2.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), torch.zeros(2, 1))
        >>> [round(value, 1) for value in ratio.tolist()]
        [6.6, -32.6]
    """

    kinds = ("nominal", "signal")

    def __init__(
        self,
        *,
        events: int = 200_000,
        signal_fraction: float = 0.01,
        signal_region: Sequence[float] = NARROW,
        region: Region = "both",
        correlation: float = 0.0,
        noise_features: int = 0,
        test_background: int = 200_000,
        test_signal: int = 20_000,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        checks.counts("data", events=events, test_background=test_background, test_signal=test_signal)
        checks.counts("data", 0, noise_features=noise_features)
        checks.between("data", 0, 1, signal_fraction=signal_fraction)
        checks.between("data", -100, 100, correlation=correlation)
        checks.one_of("data", Region, region=region)
        self.events, self.signal_fraction, self.region = events, signal_fraction, region
        self.correlation, self.noise_features = correlation, noise_features
        self.tested = test_background, test_signal
        self.resonance: Resonance = Resonance.within(signal_region, "m")
        self.columns = [f"x{i}" for i in range(1, 5)] + [f"noise{i}" for i in range(1, noise_features + 1)]

    def load(self) -> Splits:
        training, validating, tested, reserved = self._seeds()[:4]
        signal = round(self.signal_fraction * self.events * BACKGROUND.share([NARROW]))
        train = self._drawn(training, self.events, signal, [(LOW, HIGH)])
        train = train.take(chosen(inside(train.context, self.resonance, self.region, self.name), self.region))
        pieces = self._sidebands if self.region == "sidebands" else self._signal_region
        background, strange = self.events * BACKGROUND.share(pieces), signal * SIGNAL.share(pieces)
        rows = round(self.validating(len(train)) * len(train))
        found = round(rows * strange / (background + strange))
        if not SIGNAL.share(self._signal_region):
            self.notice(
                f"nature has no signal in data.signal_region={limits(self.resonance)}; that of the test is placed in "
                "its middle."
            )
        return Splits(
            train,
            self._drawn(validating, rows - found, found, pieces),
            self._drawn(tested, *self.tested, self._signal_region),
            self._drawn(reserved, 0, RESERVED, [NARROW]),
        )

    def truth(self) -> Truth:
        """Events that no split has: four times what is expected of background in the region, and as many of signal.

        There are 64,000 of each at least.
        """
        self.splits  # noqa: B018, which refuses a region without events
        n = max(TRUTH, round(4 * self.events * BACKGROUND.share(self._signal_region)))
        background, signal = self._seeds()[4:]
        return Truth(self._drawn(background, n, 0, self._signal_region), self._drawn(signal, 0, n, self._signal_region))

    def log_ratio(self, x: Tensor, context: Tensor) -> Tensor:
        """Log-ratio of the densities of signal and background in the signal region, `(B, D)` to `(B,)`.

        In the region the background is a mixture over m, a sum by Gauss-Legendre; the noise cancels. Computed in
        float64, returned as `x` is.

        Args:
            x: events.
            context: is not looked at.

        Raises:
            DataError: if events have not D features.
        """
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise DataError(f"bump: rows must be of shape (B, {len(self.columns)}), not {tuple(x.shape)}.")
        shift, weight = map(torch.from_numpy, self._shifts())
        rows = x.detach().cpu()[:, :4].double()
        return torch.cat([_log_ratio(chunk, shift, weight) for chunk in rows.split(CHUNK)]).to(x)

    # parts

    def _seeds(self) -> list[np.random.SeedSequence]:
        """Of training, validation, test, reserve, and of background and signal of the truth."""
        return np.random.SeedSequence(self.seed).spawn(6)

    @property
    def _signal_region(self) -> Pieces:
        low, high = np.array([self.resonance.low, self.resonance.high], np.float32)  # as `Resonance.holds` has them
        return [(max(LOW, float(low)), min(HIGH, float(high)))]

    @property
    def _sidebands(self) -> Pieces:
        """The rest in single precision, in which the limits themselves belong to the signal region."""
        ends = np.array(self._signal_region[0], np.float32)
        below, above = np.nextafter(ends, np.array([-np.inf, np.inf], np.float32))
        return [(LOW, float(below)), (float(above), HIGH)]

    def _drawn(self, seed: np.random.SeedSequence, background: int, signal: int, pieces: Pieces) -> Events:
        """So many events of both kinds with m in these pieces, in a random order."""
        # each its own generator, so that what is drawn of one does not hang on the other
        first, second, noise, order = map(np.random.default_rng, seed.spawn(4))
        m = BACKGROUND.draw(first, background, pieces)
        x = np.empty((background + signal, len(self.columns)), np.float32)
        x[:background, :4] = _mixed(first, background)
        if self.correlation:
            x[:background, :4] += np.outer(self.correlation * (m - MASS), SHIFT)
        x[background:, :4] = CENTRE + SPREAD * second.standard_normal((signal, 4), np.float32)
        x[:, 4:] = noise.standard_normal((len(x), self.noise_features), np.float32)
        law = SIGNAL if not signal or SIGNAL.share(pieces) else _normal(sum(pieces[0]) / 2, *pieces[0])
        m = np.concatenate([m, law.draw(second, signal, pieces)]).astype(np.float32)
        y = np.repeat([0, 1], [background, signal])
        mixed = order.permutation(len(x)) if background and signal else slice(None)
        return Events.of(x[mixed], y[mixed], m[mixed, None])

    def _shifts(self) -> tuple[NDArray, NDArray]:
        """By how much the background of the signal region is shifted, `(K,)`, and how often, `(K,)`."""
        if not self.correlation:
            return np.zeros(1), np.ones(1)
        ((low, high),) = self._signal_region
        narrowest = 1 / math.sqrt(max(SHIFT @ np.linalg.solve(cov, SHIFT) for _, _, cov in MIXED))
        place, weight = np.polynomial.legendre.leggauss(
            24 + math.ceil(4 * abs(self.correlation) * (high - low) / narrowest)
        )
        m = low + (place + 1) / 2 * (high - low)
        weight = weight * np.exp(low - m)
        return self.correlation * (m - MASS), weight / weight.sum()


class Law(NamedTuple):
    """A law of m within limits, by its distribution function and the inverse of it; the scale of both is free."""

    low: float
    high: float
    below: Callable[[Any], Any]
    inverse: Callable[[Any], Any]

    def _ends(self, pieces: Pieces) -> NDArray:
        return self.below(np.clip(np.array(pieces, dtype=np.float64), self.low, self.high))

    def share(self, pieces: Pieces) -> float:
        """The probability of these pieces of the line together."""
        return float(np.diff(self._ends(pieces)).sum() / np.diff(self._ends([(self.low, self.high)])).item())

    def draw(self, rng: np.random.Generator, n: int, pieces: Pieces) -> NDArray:
        """So many values within these pieces, `(n,)`."""
        if not n:
            return np.empty(0)
        ends = self._ends(pieces)
        above = np.cumsum(np.diff(ends).ravel())
        u = rng.random(n) * above[-1]
        piece = np.searchsorted(above[:-1], u, side="right")
        return self.inverse(ends[piece, 1] - (above[piece] - u))


def _normal(mean: float, low: float, high: float) -> Law:
    return Law(low, high, lambda m: ndtr((m - mean) / WIDTH), lambda p: mean + WIDTH * ndtri(p))


BACKGROUND = Law(LOW, HIGH, lambda m: -np.exp(-m), lambda p: -np.log(-p))
SIGNAL = _normal(MASS, *NARROW)


def _mixed(rng: np.random.Generator, n: int) -> NDArray:
    """Features of background at m = 3.5, `(n, 4)` float32."""
    which = rng.random(n, np.float32) < MIXED[1][0]
    z = rng.standard_normal((n, 4), np.float32)
    for rows, (_, mean, covariance) in zip((~which, which), MIXED, strict=True):
        z[rows] = (z[rows] @ np.linalg.cholesky(covariance).T.astype(np.float32)) + mean.astype(np.float32)
    return z


def _log_ratio(x: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """As `Bump.log_ratio` of features `(B, 4)`, where background is shifted by `(K,)` as often as `(K,)` says."""
    along = torch.from_numpy(SHIFT)
    terms = []
    for share, mean, covariance in MIXED:
        precision = torch.from_numpy(np.linalg.inv(covariance))
        off = x - torch.from_numpy(mean)
        pulled = off @ precision
        square = (pulled * off).sum(1, keepdim=True) - 2 * shift * (pulled @ along)[:, None]
        square = square + shift**2 * (along @ precision @ along)
        terms.append(math.log(share) - np.linalg.slogdet(covariance)[1] / 2 - square / 2)
    background = torch.logsumexp(torch.cat(terms, 1) + weight.log().repeat(len(MIXED)), 1)
    away = ((x - torch.from_numpy(CENTRE)) ** 2).sum(1)
    return -away / (2 * SPREAD**2) - 4 * math.log(SPREAD) - background
