"""Whether a density is right: how probable it makes held-out rows, and whether its latents are normal.

`n` held-out rows, `D` features or latents. Everything is summed in float64. Distances are reported rather than
p-values, since a test of enough rows rejects every model; what chance alone makes of a distance stands beside it.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc, kolmogi, kolmogorov, ndtr, ndtri, stdtrit

from straylight.metrics.two_sample import TwoSample

Verdict = Literal["fits", "nearly", "does not fit"]

SHOWN = 64  # latents whose distances are kept one by one
#: Upper bounds, of what fits and of what nearly does, on each measure that a verdict goes by.
BOUNDS: dict[str, tuple[float, float]] = {
    "two_sample_auroc": (0.55, 0.65),
    "excess_per_dim": (0.03, 0.15),
    "ks": (0.03, 0.10),
}
LEVEL = 0.95  # of the intervals whose edges count
FEWEST = 200  # rows, fewer of which may all miss what is wrong, whatever their interval says
FEWEST_TOLD = 5000  # rows of each set, from fewer of which a classifier learns too little to tell them apart
USUALLY = 0.9  # how often as many rows as are said to do would do


class Mean(NamedTuple):
    """A mean over rows and its standard error; the error of a single row is not known, NaN."""

    value: float
    error: float


def mean(values: ArrayLike) -> Mean:
    """Mean and standard error of independent values, `(n,)`.

    Raises:
        ValueError: if there is no value, or one is NaN.

    Example:
        >>> mean([1, 2, 3, 4]).value
        2.5
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"a mean is taken of a non-empty column, not of one of shape {column.shape}")
    if nans := int(np.isnan(column).sum()):
        raise ValueError(f"{nans} of {len(column)} values are NaN and have no mean")
    if not np.isfinite(column).all():
        return Mean(float(column.sum()), math.nan)
    # a value as large as float32 has would overflow when it is squared in float32, and does not here
    error = column.std(ddof=1) / math.sqrt(len(column)) if len(column) > 1 else math.nan
    return Mean(float(column.mean()), float(error))


def nll(log_density: ArrayLike) -> Mean:
    """Negative log-likelihood per held-out row in nats, and its standard error.

    NLL = -mean log p(x). Infinite where a row has no density at all.

    Args:
        log_density: log p of held-out rows in nats, `(n,)`.

    Raises:
        ValueError: if there is no row, or a log-density is NaN.

    Example:
        >>> nll([-1.0, -2.0, -3.0]).value
        2.0
    """
    return mean(-np.asarray(log_density, dtype=np.float64))


def bits_per_dim(nats: float, dimensions: int) -> float:
    """A log-likelihood in bits per dimension, nats / (D ln 2).

    Raises:
        ValueError: if there is no dimension.

    Example:
        >>> bits_per_dim(math.log(2), 1)
        1.0
    """
    if dimensions < 1:
        raise ValueError(f"bits per dimension need one or more dimensions, not {dimensions}")
    return nats / (dimensions * math.log(2))


class Excess(NamedTuple):
    """What a density costs above the truth.

    Attributes:
        entropy: the mean of -log p_true over the rows, in nats, with its standard error.
        excess: the mean of log p_true - log p_model, row by row, which estimates KL(true || model).
        left_out: rows without a finite true log-density.
    """

    entropy: Mean
    excess: Mean
    left_out: int


def excess(log_density: ArrayLike, log_true: ArrayLike) -> Excess:
    """The entropy of the truth and the model's NLL above it, paired row by row.

    Both are taken on the same rows, so that what makes a row rare in both cancels and the error of the excess is far
    smaller than that of either. Assumes rows drawn from the truth.

    References:
        T. M. Cover, J. A. Thomas, Elements of information theory, 2nd ed., Wiley 2006, doi:10.1002/047174882X

    Args:
        log_density: log p of the model in nats, `(n,)`.
        log_true: log p of the truth in nats, `(n,)`; rows where it is not finite are counted and left out.

    Raises:
        ValueError: if the lengths differ, no row has a true log-density, or a log-density of the model is NaN.

    Example:
        >>> excess([-1.5, -2.5], [-1.0, -2.0]).excess.value
        0.5
    """
    model, true = (np.asarray(column, dtype=np.float64) for column in (log_density, log_true))
    if model.shape != true.shape:
        raise ValueError(f"log-densities of model and truth must be of the same rows, not {model.shape}, {true.shape}")
    known = np.isfinite(true)
    if not known.any():
        raise ValueError(f"none of {len(true)} rows has a finite true log-density")
    model, true = model[known], true[known]
    return Excess(mean(-true), mean(true - model), int((~known).sum()))


def ks_distance(cdf: ArrayLike) -> NDArray[np.float64]:
    """Kolmogorov-Smirnov distance of rows from a law, given the law's distribution function at them.

    sup |F_n - F| = max_i max(i/n - u_(i), u_(i) - (i-1)/n) with u the sorted values of F.

    References:
        A. N. Kolmogorov, Sulla determinazione empirica di una legge di distribuzione, G. Ist. Ital. Attuari 4 (1933) 83

    Args:
        cdf: F at each row, `(n,)` or `(n, D)` for D laws side by side.

    Returns:
        one distance for each column, `(D,)`, or a scalar.

    Raises:
        ValueError: if there is no row, or a value is not a probability.

    Example:
        >>> float(ks_distance([0.5]))
        0.5
    """
    u = np.sort(np.asarray(cdf, dtype=np.float64), axis=0)
    n = len(u)
    if not n:
        raise ValueError("a distance needs one or more rows")
    if not ((u >= 0) & (u <= 1)).all():
        raise ValueError("a distribution function lies between 0 and 1 at every row; a row is NaN or the law is none")
    steps = np.arange(1, n + 1).reshape(-1, *[1] * (u.ndim - 1)) / n
    return np.maximum(steps - u, u - (steps - 1 / n)).max(0)


def ks_normal(latents: ArrayLike) -> NDArray[np.float64]:
    """Distance of each latent from N(0, 1), `(n, D)` to `(D,)`.

    Raises:
        ValueError: if there is no row, or a latent is NaN.

    Example:
        >>> ks_normal([[0.0, 0.0], [0.0, 9.0]]).tolist()
        [0.5, 0.5]
    """
    return ks_distance(ndtr(np.asarray(latents, dtype=np.float64)))


def ks_radius(latents: ArrayLike) -> float:
    """Distance of the latents' squared length from chi-squared with D degrees of freedom, `(n, D)` to a number.

    It sees what no single latent shows, such as latents that are normal and depend on each other.

    Raises:
        ValueError: if there is no row, or a latent is NaN.

    Example:
        >>> round(ks_radius([[0.0, 0.0]]), 3)
        1.0
    """
    z = np.asarray(latents, dtype=np.float64)
    with np.errstate(over="ignore"):  # a latent too far out to be squared is beyond all others
        return float(ks_distance(gammainc(z.shape[1] / 2, np.square(z).sum(1) / 2)))


def ks_by_chance(n: int, laws: int = 1) -> float:
    """The largest of D independent distances of n rows from the law that they are drawn from, expected.

    sqrt(n) times one such distance follows Kolmogorov's law K, whose mean is sqrt(pi/2) ln 2 = 0.869; the largest of D
    has the mean of the integral of 1 - K(t)^D. n is corrected as by Stephens, to hold for few rows too.

    References:
        M. A. Stephens, Use of the Kolmogorov-Smirnov, Cramér-von Mises and related statistics without extensive tables,
        J. R. Stat. Soc. B 32 (1970) 115, doi:10.1111/j.2517-6161.1970.tb00821.x

    Args:
        n: rows.
        laws: D.

    Raises:
        ValueError: if there is no row or no law.

    Example:
        >>> round(ks_by_chance(10_000), 4), round(ks_by_chance(10_000, 10), 4)
        (0.0087, 0.0133)
    """
    if n < 1 or laws < 1:
        raise ValueError(f"a distance needs one or more rows and laws, not {n} and {laws}")
    t = np.linspace(0, 6, 6001)
    largest = float(np.trapezoid(1 - (1 - kolmogorov(t)) ** laws, t))
    root = math.sqrt(n)
    return min(1.0, largest / (root + 0.12 + 0.11 / root))


def repeating(rows: ArrayLike) -> int:
    """How many features are discrete, in that most of their values are found in another row as well.

    On such a feature a density grows without bound the better it is fitted, as on pixels, padding and constants.

    Args:
        rows: `(n, D)`.

    Example:
        >>> repeating([[0.1, 0.0], [0.2, 0.0], [0.3, 1.0], [0.4, 1.0], [0.5, 1.0]])
        1
    """
    ordered = np.sort(np.asarray(rows), axis=0)
    distinct = 1 + (np.diff(ordered, axis=0) != 0).sum(0)
    return int((2 * distinct <= len(ordered)).sum()) if len(ordered) > 1 else 0


# all of it, in one word and in one sentence


def density_check(
    log_density: ArrayLike,
    dimensions: int,
    *,
    units: Literal["data", "scaled"] = "data",
    log_true: ArrayLike | None = None,
    latents: ArrayLike | None = None,
    two_sample: TwoSample | None = None,
) -> dict[str, Any]:
    """All measures of one density on the same held-out rows, by name, with a verdict and a sentence.

    Args:
        log_density: log p of the model in nats, `(n,)`; where one is not finite, that alone is reported.
        dimensions: D.
        units: whether `log_density` is that of events in the data's own units.
        log_true: log p of the truth in nats, where it is known, `(n,)`.
        latents: `(n, D)`, where the model has some.
        two_sample: what a classifier made of rows and samples.

    Returns:
        `rows`, `dimensions`, `units`, `nll`, `nll_se`, `bits_per_dim`, `not_finite`; `entropy`, `entropy_se`, `excess`,
        `excess_se`, `true_left_out`; `latent_ks`, the distances of the first 64 latents, `latent_ks_max`, `radius_ks`
        and what chance makes of these two, `chance_ks` and `chance_radius_ks`; `two_sample_auroc`,
        `two_sample_interval`, `two_sample_rows`; `verdict`, `rows_needed` and `sentence`. What was not measured is left
        out.

    Raises:
        ValueError: if there is no row, or there are not as many of everything.

    Example:
        >>> density_check([-1.0, -2.0], 1)["bits_per_dim"]
        2.1640425613334453
    """
    model = np.asarray(log_density, dtype=np.float64)
    found: dict[str, Any] = {"rows": len(model), "dimensions": dimensions, "units": units}
    found["not_finite"] = int((~np.isfinite(model)).sum())
    if found["not_finite"]:
        found["nll"] = None
    else:
        found["nll"], found["nll_se"] = nll(model)
        found["bits_per_dim"] = bits_per_dim(found["nll"], dimensions)
        if log_true is not None:
            (found["entropy"], found["entropy_se"]), paired, found["true_left_out"] = excess(model, log_true)
            found["excess"], found["excess_se"] = paired
        if latents is not None:
            distances = ks_normal(latents)
            found["latent_ks"] = distances[:SHOWN].tolist()
            found["latent_ks_max"], found["chance_ks"] = float(distances.max()), ks_by_chance(len(model), dimensions)
            found["radius_ks"], found["chance_radius_ks"] = ks_radius(latents), ks_by_chance(len(model))
        if two_sample is not None:
            found["two_sample_auroc"], found["two_sample_interval"] = two_sample.auroc, list(two_sample.interval)
            found["two_sample_rows"] = two_sample.rows
    found["verdict"] = verdict(found)
    if needed := rows_needed(found):
        found["rows_needed"] = needed
    found["sentence"] = sentence(found)
    return found


class Edges(NamedTuple):
    """The 95 % interval of a measure, and the rows from which one that is exact would usually be told to fit."""

    low: float
    high: float
    needed: int


def edges(found: Mapping[str, Any]) -> dict[str, Edges]:
    """Of each measure that was taken, by the names of `BOUNDS`.

    The classifier's AUROC has DeLong's interval, the excess Student's. The true distance of latents from normal is at
    most the measured one and what a fraction of n rows may be off, z / (2 sqrt(n)): where the truth differs most, the
    rows do by as much less that. It is at least the measured one less Kolmogorov's quantile for the largest of D.

    Args:
        found: as for `verdict`.

    Example:
        >>> found = {"rows": 10_000, "dimensions": 1, "latent_ks_max": 0.008, "radius_ks": 0.008}
        >>> edges(found)["ks"]
        Edges(low=0.0, high=0.01784981992270027, needed=5397)
    """
    z, least = float(ndtri((1 + LEVEL) / 2)), float(ndtri(USUALLY))
    of: dict[str, Edges] = {}
    if found.get("two_sample_interval") is not None:
        # of an exact density both halves of m rows have an AUROC of 1/2, known to 1 / sqrt(6 m)
        rows = 2 * ((z + least) / (BOUNDS["two_sample_auroc"][0] - 0.5)) ** 2 / 6
        low, high = found["two_sample_interval"]
        of["two_sample_auroc"] = Edges(low, high, math.ceil(rows))
    n = found.get("rows", 0)
    if found.get("excess") is not None:
        value, error = (found[name] / found["dimensions"] for name in ("excess", "excess_se"))
        if math.isfinite(value):
            reach = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error if n > 1 and math.isfinite(error) else math.inf
            needed = ((z + least) * error / BOUNDS["excess_per_dim"][0]) ** 2 * n if math.isfinite(error) else 0
            of["excess_per_dim"] = Edges(value - reach, value + reach, math.ceil(needed))
        else:
            of["excess_per_dim"] = Edges(value, value, 0)
    if found.get("latent_ks_max") is not None:
        root = math.sqrt(n)
        above, laws = z / (2 * root) + 0.5 / n, found["dimensions"]
        chance = [_kolmogorov(n, count, (1 + LEVEL) / 2) for count in (laws, 1)]
        low = max(found["latent_ks_max"] - chance[0], found["radius_ks"] - chance[1], 0.0)
        needed = ((float(kolmogi(1 - USUALLY ** (1 / laws))) + z / 2) / BOUNDS["ks"][0]) ** 2
        of["ks"] = Edges(low, max(found["latent_ks_max"], found["radius_ks"]) + above, math.ceil(needed))
    return of


def _kolmogorov(n: int, laws: int, level: float) -> float:
    """What the largest of D distances of n rows from their own law stays below with this probability; see
    `ks_by_chance`."""
    root = math.sqrt(n)
    return float(kolmogi(1 - level ** (1 / laws))) / (root + 0.12 + 0.11 / root)


def verdict(found: Mapping[str, Any]) -> Verdict | None:
    """Whether a density `fits`, `nearly` does, or `does not fit`; `None` where the rows at hand do not tell.

    A measure counts by an edge of its 95 % interval, so that each word is a claim that the rows at hand support:

    | measure | fits | nearly |
    |---|---|---|
    | AUROC of a classifier that tells samples from rows | below 0.55 | below 0.65 |
    | NLL above the true entropy, nats per dimension | below 0.03 | below 0.15 |
    | largest KS distance, of latents or their radius | below 0.03 | below 0.10 |

    It fits, or nearly does, if the upper edge of every measure is below its bound. It does not fit if it is not near
    and the lower edge of a measure is at the bound of what fits, or beyond. A density for which the excess or a
    distance is truly at its bound or beyond is thus said to fit in at most one of forty cases, as
    `tests/test_density.py` simulates. What the classifier sees is as much as it learns from the rows: nothing fits by
    it alone from fewer than 5,000, nor by anything from fewer than 200. A density whose NLL is not finite does not
    fit. The bounds are conventions, not levels of a test.

    Args:
        found: as `density_check` returns it: `rows`, `dimensions`, `nll`, and `two_sample_interval`,
            `two_sample_rows`, `excess`, `excess_se`, `latent_ks_max`, `radius_ks`, each where it was measured.

    Example:
        >>> verdict({"nll": 2.8, "rows": 5000, "two_sample_rows": 5000, "two_sample_interval": (0.49, 0.53)})
        'fits'
        >>> verdict({"nll": math.inf})
        'does not fit'
    """
    if found.get("nll") is None or not math.isfinite(found["nll"]):
        return "does not fit"
    known = edges(found)
    if known and min(found.get("rows", 0), found.get("two_sample_rows", math.inf)) >= _fewest(known):
        # what is not below a bound, NaN included, is beyond it
        if all(edge.high < BOUNDS[name][0] for name, edge in known.items()):
            return "fits"
        if all(edge.high < BOUNDS[name][1] for name, edge in known.items()):
            return "nearly"
    if any(not edge.low < BOUNDS[name][0] for name, edge in known.items()):
        return "does not fit"
    return None


def _fewest(known: Mapping[str, Edges]) -> int:
    """Rows from which on these measures can show that anything fits."""
    return FEWEST if known.keys() - {"two_sample_auroc"} else FEWEST_TOLD


def rows_needed(found: Mapping[str, Any]) -> int | None:
    """How many rows would tell whether it fits, where these do not; None where they do, or nothing was measured.

    Args:
        found: as for `verdict`, and the `verdict` itself.

    Example:
        >>> found = {"rows": 100, "dimensions": 1, "latent_ks_max": 0.08, "radius_ks": 0.08, "verdict": None}
        >>> rows_needed(found)
        5397
    """
    known = edges(found)
    if not known or found["verdict"] in ("fits", "does not fit"):
        return None
    if any(not edge.low < BOUNDS[name][0] for name, edge in known.items()):
        return None  # it is near, and no more
    needed = max(_fewest(known), *(edge.needed for edge in known.values()))
    return needed if needed > found["rows"] else None


def sentence(found: Mapping[str, Any]) -> str:
    """Did it train? The verdict and the numbers behind it, in one sentence.

    Args:
        found: as `density_check` returns it.

    Example:
        >>> sentence({"verdict": "fits", "nll": 2.84, "nll_se": 0.01, "bits_per_dim": 2.05, "units": "data",
        ...           "excess": 0.02, "excess_se": 0.01})
        'The density fits: held-out NLL 2.84 nats (2.05 bits/dim), 0.02 ± 0.01 above the true entropy.'
    """
    if found.get("not_finite"):
        return (
            f"The density does not fit: {found['not_finite']:,} of {found['rows']:,} held-out rows have no finite "
            "log-density."
        )
    opening = {"fits": "fits", "nearly": "nearly fits", "does not fit": "does not fit", None: "was measured"}
    opening[found["verdict"]] += _open(found)
    scaled = "" if found["units"] == "data" else " in scaled units"
    first = (
        f"The density {opening[found['verdict']]}: held-out NLL {_short(found['nll'])} nats{scaled} "
        f"({_short(found['bits_per_dim'])} bits/dim)"
    )
    if found.get("excess") is not None:
        side = "above" if found["excess"] >= 0 else "below"
        digits = 2 if not found["excess_se"] < 0.005 else 3
        size, error = (_short(abs(found[name]), digits) for name in ("excess", "excess_se"))
        first += f", {size} ± {error} {side} the true entropy"
    parts = [first]
    if found.get("two_sample_auroc") is not None:
        low, high = found["two_sample_interval"]
        parts.append(
            f"a classifier tells samples from events with AUROC {found['two_sample_auroc']:.2f} [{low:.2f}, {high:.2f}]"
        )
    if found.get("latent_ks_max") is not None:
        parts.append(
            f"the worst latent is {found['latent_ks_max']:.3f} from normal in KS distance ({found['chance_ks']:.3f} by "
            f"chance) and their radius {found['radius_ks']:.3f} from chi ({found['chance_radius_ks']:.3f})"
        )
    return "; ".join(parts) + "."


def _open(found: Mapping[str, Any]) -> str:
    """What the verdict leaves open."""
    needed = found.get("rows_needed")
    if found["verdict"] == "nearly":
        return f", or better: {needed:,} rows would tell, not {found['rows']:,}" if needed else ""
    if found["verdict"] is None and needed:
        return f" on {found['rows']:,} rows, too few to say whether it fits (some {needed:,} would do)"
    if found["verdict"] is None and edges(found):
        return f" on {found['rows']:,} rows, which leave open whether it fits"
    return ""


def _short(number: float, digits: int = 2) -> str:
    """So many decimals, or four digits of a number too large for them to mean anything."""
    return f"{number:.{digits}f}" if abs(number) < 1e4 else f"{number:.3e}"
