"""A smooth background fitted to the sidebands by binned Poisson likelihood.

`B` bins, `Q` nodes of quadrature in each, `k` parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, xlogy

from straylight.metrics.bump.shapes import SHAPES
from straylight.metrics.bump.spectra import Spectrum

NODES = 8  # of Gauss-Legendre quadrature in a bin
STEPS = 200  # of Fisher scoring
HALVINGS = 40  # of a step that makes the fit worse
CLOSE = 1e-10  # the likelihood, in units of its chi-squared, that a further step would gain
EXPECTED = 5.0  # events in a bin, below which it is joined with the next for a chi-squared
SCALE = 2.0  # of the dijet function, in units of the upper end of the spectrum
LEVEL = 0.01  # of the F-test: in 3,000 toys each of 200, 630 and 4,000 events z is then 1.01 to 1.03 wide
Vector = NDArray[np.float64]


class NoFit(ValueError):
    """No function fits, and why, in a sentence without its full stop."""


class Fit(NamedTuple):
    """A background, and how well it is known.

    Attributes:
        function: its name.
        expected: background in each bin, `(B,)`, the region's included.
        error: its standard deviation, `(B,)`.
        background, uncertainty: events expected in the region, and its standard deviation.
        deviance: 2 log of the likelihood ratio to a perfect fit, over the bins of the sidebands.
        freedom: bins of the sidebands less parameters.
        chi2, dof: Pearson's, in bins joined until five events are expected in each; 0 degrees where there are too few.
    """

    function: str
    expected: Vector
    error: Vector
    background: float
    uncertainty: float
    deviance: float
    freedom: int
    chi2: float
    dof: int


def fit(spectrum: Spectrum, function: str, scale: float | None = None) -> Fit:
    """The maximum of the Poisson likelihood over the sidebands, by Fisher scoring.

    The expectation of a bin is the integral of the function over it. Parameters are near normal, and the expectation of
    the region has variance g' I^-1 g, with its gradient g and the Fisher matrix I. No event of the region is looked at.

    Args:
        spectrum: counts in bins.
        function: one of `straylight.metrics.bump.shapes.SHAPES`. None of them is made to fall.
        scale: of the dijet function; None is twice the upper end of the spectrum.

    Raises:
        NoFit: if a sideband is empty, too few bins hold an event, or the likelihood has no maximum.

    Example:
        >>> from straylight.metrics.bump import Bins
        >>> m = 3 - np.log(1 - np.linspace(0, 1, 10_001)[:-1] * (1 - np.exp(-1.5)))  # exp(-m)
        >>> found = fit(Spectrum.of(m, Bins.around((3.3, 3.7), (3.0, 4.5), 40)), "exp2")
        >>> round(found.background), round(found.uncertainty)
        (3144, 61)
    """
    bins, counts = spectrum
    if function not in SHAPES:
        raise ValueError(f"there is no function {function!r}: {', '.join(SHAPES)}")
    span = float(bins.edges[0]), float(bins.edges[-1])
    scale = SCALE * span[1] if scale is None else scale
    nodes, weight = _quadrature(bins.edges)
    columns = SHAPES[function](nodes.ravel(), span, scale)
    k = columns.shape[1]
    sidebands = ~bins.inside
    n = counts[sidebands].astype(np.float64)
    _refuse_few(spectrum, function, k)
    # parameters along orthogonal columns: the same functions, and a matrix that can be inverted
    columns = np.linalg.qr(columns)[0].reshape(*nodes.shape, k) * np.sqrt(nodes.size)
    start = _start(columns[sidebands], weight[sidebands], n)
    theta = _maximum(columns[sidebands], weight[sidebands], n, start, function)
    expected, jacobian = _expected(columns, weight, theta)
    inside, outside = jacobian[bins.inside].sum(0), jacobian[sidebands]
    fisher = outside.T @ (outside / expected[sidebands, None])
    try:
        covariance = np.linalg.inv(fisher)
    except np.linalg.LinAlgError as error:
        raise NoFit(f"{function} is not determined by the sidebands") from error
    chi2, joined = _pearson(n, expected[sidebands])
    return Fit(
        function,
        expected,
        np.sqrt(np.einsum("bk,kl,bl->b", jacobian, covariance, jacobian)),
        float(expected[bins.inside].sum()),
        float(np.sqrt(inside @ covariance @ inside)),
        _deviance(n, expected[sidebands]),
        len(n) - k,
        chi2,
        max(joined - k, 0),
    )


def chosen(spectrum: Spectrum, functions: Sequence[str], level: float = LEVEL, scale: float | None = None) -> Fit:
    """The first of nested functions that none of one more parameter improves on, by an F-test of the deviances.

    F = (D_k - D_(k+1)) / (D_(k+1) / (bins - (k + 1))) has, if the k parameters suffice, Fisher's distribution with 1
    and bins - (k + 1) degrees of freedom; a probability below `level` takes the next.

    Args:
        spectrum, scale: as `fit`.
        functions: each holds the one before it.
        level: of the test.

    Raises:
        NoFit: if the first does not fit. One of more parameters that does not fit is passed over.
    """
    best = fit(spectrum, functions[0], scale)
    for function in functions[1:]:
        try:
            more = fit(spectrum, function, scale)
        except NoFit:
            break
        if more.freedom < 1 or more.deviance <= 0:
            break
        gain = (best.deviance - more.deviance) / (best.freedom - more.freedom)
        f = max(gain, 0.0) / (more.deviance / more.freedom)
        if fdtrc(best.freedom - more.freedom, more.freedom, f) >= level:
            break
        best = more
    return best


def _quadrature(edges: Vector) -> tuple[Vector, Vector]:
    """Nodes and weights of the integral over each bin, `(B, Q)` both."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half) + half * x, half * w


def _refuse_few(spectrum: Spectrum, function: str, parameters: int) -> None:
    bins, counts = spectrum
    first, last = np.flatnonzero(bins.inside)[[0, -1]]
    for side, part in (("below", counts[:first]), ("above", counts[last + 1 :])):
        if not part.sum():
            raise NoFit(f"no event is left in the sideband {side} the signal region")
    sidebands = counts[~bins.inside]
    if (filled := int((sidebands > 0).sum())) <= parameters:
        raise NoFit(
            f"the {int(sidebands.sum()):,} events of the sidebands fill {filled} of their bins, and {function} has "
            f"{parameters} parameters"
        )


def _start(columns: Vector, weight: Vector, n: Vector) -> Vector:
    """Least squares to the logarithm of the counts, half an event added to each."""
    middle = columns.mean(1)
    log_height = np.log((n + 0.5) / weight.sum(1))
    root = np.sqrt(n + 0.5)
    found: Vector = np.linalg.lstsq(middle * root[:, None], log_height * root, rcond=None)[0]
    return found


def _expected(columns: Vector, weight: Vector, theta: Vector) -> tuple[Vector, Vector]:
    """Of each bin, and its derivatives, `(B,)` and `(B, k)`."""
    with np.errstate(over="ignore", under="ignore"):
        height = weight * np.exp(columns @ theta)
    return height.sum(1), np.einsum("bq,bqk->bk", height, columns)


def _deviance(n: Vector, expected: Vector) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(2 * np.sum(expected - n + xlogy(n, n) - xlogy(n, expected)))


def _maximum(columns: Vector, weight: Vector, n: Vector, theta: Vector, function: str) -> Vector:
    """The parameters of the largest likelihood."""
    expected, jacobian = _expected(columns, weight, theta)
    deviance = _deviance(n, expected)
    for _ in range(STEPS):
        if not np.isfinite(deviance) or not (expected > 0).all():
            break
        gradient = jacobian.T @ (n / expected - 1)
        fisher = jacobian.T @ (jacobian / expected[:, None])
        try:
            step = np.linalg.solve(fisher, gradient)
        except np.linalg.LinAlgError:
            break
        if gradient @ step < CLOSE:
            return theta
        for halved in range(HALVINGS):
            there = theta + step / 2**halved
            expected, jacobian = _expected(columns, weight, there)
            if (reached := _deviance(n, expected)) < deviance:
                break
        else:
            if gradient @ step < CLOSE * max(1.0, n.sum()) * 1e-2:  # no better in this precision
                return theta
            break
        theta, deviance = there, reached
    raise NoFit(f"the fit of {function} to the {n.sum():,.0f} events of the sidebands does not converge")


def _pearson(n: Vector, expected: Vector) -> tuple[float, int]:
    """Chi-squared, and the number of joined bins that it is summed over."""
    at = joined(expected)
    observed, mean = (np.bincount(at, column).astype(np.float64) for column in (n, expected))
    return float(np.sum((observed - mean) ** 2 / mean)), len(mean)


def joined(expected: Vector, least: float = EXPECTED) -> NDArray[np.intp]:
    """The number of the joined bin of each, `(B,)`: neighbours are joined until so many events are expected in each.

    Example:
        >>> joined(np.array([6.0, 3.0, 1.0, 2.0, 9.0, 1.0]), 5).tolist()
        [0, 1, 1, 1, 2, 2]
    """
    at, number, held = np.zeros(len(expected), np.intp), 0, 0.0
    for i, more in enumerate(expected.tolist()):
        at[i] = number
        held += more
        if held >= least:
            number, held = number + 1, 0.0
    if held and number:  # what is left goes to the last
        at[at == number] = number - 1
    return at
