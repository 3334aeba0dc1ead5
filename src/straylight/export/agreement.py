"""Whether a graph is the detector.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from straylight.export.predicted import ExportError, as_exported, innermost
from straylight.export.sessions import run

#: The largest difference that two runtimes may show, in units of the spread of the scores of ordinary rows; or, of a
#: row that is stranger, of how far its score lies from theirs: on ordinary rows, and far outside the training range,
#: where flows multiply by exponentials of large numbers.
TOLERANCE, FAR_TOLERANCE = 1e-3, 1e-2
#: The largest share of pairs of rows that the graph may rank otherwise, and of rows far outside.
MISORDERED, FAR_MISORDERED = 1e-3, 1e-2
#: What float32 rounds of a score, as a fraction of it: a difference that no graph could do without.
ROUNDING = 4 * float(np.finfo(np.float32).eps)
#: Rows of which all pairs are looked at.
PAIRED = 1000


class Finding(NamedTuple):
    """How far a graph scores some rows otherwise than the detector.

    Attributes:
        what: which rows.
        rows: how many.
        difference: the largest, see `difference`.
        misordered: the share of pairs of rows that the graph ranks otherwise, see `misordered`.
        tolerance, misordered_tolerance: what they may be.
    """

    what: str
    rows: int
    difference: float
    misordered: float
    tolerance: float
    misordered_tolerance: float


def parity(
    detector: nn.Module,
    session: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    far_tolerance: float = FAR_TOLERANCE,
    batches: Sequence[int] = (1,),
) -> float:
    """The largest difference between a detector and its graph; see `findings`.

    Args:
        detector, session, x, context, tolerance, far_tolerance, batches: see `findings`.

    Raises:
        ExportError: if they differ by more, or the graph does not run.
    """
    found = findings(detector, session, x, context, tolerance=tolerance, far_tolerance=far_tolerance, batches=batches)
    return max(one.difference for one in found)


def findings(
    detector: nn.Module,
    session: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    far_tolerance: float = FAR_TOLERANCE,
    batches: Sequence[int] = (1,),
    largest: int | None = None,
) -> list[Finding]:
    """How a graph's scores differ from the detector's, on some rows after others.

    Rows are compared as they are, in batches of several sizes, and far outside the training range: 10, 1000 and a
    million times as large, and constant. They are judged by what ranks them: the spread of the scores of ordinary rows,
    beside which what all scores have in common is nothing, and their order.

    A row that torch scores with no finite number, or with the largest, must not have a score among the ordinary ones;
    any other must have a finite score from both.

    Args:
        detector: scores in float32 on the CPU.
        session: see `straylight.export.session`; or a function of `x` and `context`.
        x, context: ordinary events in the data's own units, `(B, *shape)` and `(B, C)`.
        tolerance, far_tolerance: the largest difference, on ordinary rows and on those far outside.
        batches: further batch sizes; rows are repeated.
        largest: rows that the graph takes at once, if it does not take any number.

    Raises:
        ExportError: if they differ by more, or the graph does not run.
    """
    x = x.detach().to("cpu", torch.float32)
    context = x.flatten(1)[:, :0] if context is None else context.detach().to("cpu", torch.float32)
    found, usual, most = [], None, 0.0
    with as_exported(detector, graph=False):
        for what, rows, columns, far in _sets(x, context, batches):
            at_once = min(largest or len(rows), len(rows))
            a = torch.cat([detector(*part) for part in _parts(rows, columns, at_once)]).double().numpy()
            try:
                b = np.concatenate([run(session, *part) for part in _parts(rows, columns, at_once)]).astype(np.float64)
            except Exception as error:
                raise _differs(detector, f"no scores on {what} ({innermost(error)})") from error
            if a.shape != b.shape:
                raise _differs(detector, f"{b.shape} scores instead of {a.shape} on {what}")
            a, b = _finite(a), _finite(b)
            if not np.isfinite(b[np.isfinite(a)]).all():
                raise _differs(detector, f"a score that is not finite, where torch has one that is, on {what}")
            if usual is None:
                usual, most = Usual.of(a), float(a[np.isfinite(a)].max(initial=-np.inf))
            if (b[a == np.inf] < most).any():
                raise _differs(detector, f"an ordinary score, where torch has the largest that there is, on {what}")
            limit, share_limit = (far_tolerance, FAR_MISORDERED) if far else (tolerance, MISORDERED)
            share, off = misordered(a[:PAIRED], b[:PAIRED]), difference(a, b, usual)
            if share > share_limit:
                raise _differs(detector, f"another order of {share:.2%} of the pairs of rows, on {what}")
            if off > limit:
                raise _differs(detector, f"a difference of {off:.2g} of the scores' spread, above {limit:g}, on {what}")
            found.append(Finding(what, len(rows), off, share, limit, share_limit))
    return found


def _sets(x: Tensor, context: Tensor, batches: Sequence[int]) -> Iterator[tuple[str, Tensor, Tensor, bool]]:
    """What is compared: what it is called, events and context, and whether they are far outside."""
    yield "ordinary rows", x, context, False
    for n in batches:
        i = torch.arange(n) % len(x)
        yield f"batches of {n}", x[i], context[i], False
    for factor in (10, 1000, 1e6):
        yield f"rows {factor:g} times as large", x * factor, context, True
    largest = float(x[x.isfinite()].abs().max()) if x.isfinite().any() else 1.0
    constants = torch.tensor([0.0, 1.0, -1.0, 1e4, -1e4]).view(-1, *[1] * (x.ndim - 1)) * max(largest, 1.0)
    few = torch.arange(len(constants)) % len(x)
    yield "constant rows", constants.expand(-1, *x.shape[1:]).contiguous(), context[few], True


def _parts(x: Tensor, context: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(n), context.split(n), strict=True))


class Usual(NamedTuple):
    """Where the scores of ordinary rows lie, whatever a few of them are: their median, and their spread about it."""

    centre: float
    spread: float

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> "Usual":
        """The spread is a standard deviation, that of normal scores with these quartiles; of scores half of which are
        the same, their own; of scores all of which are, their size.

        Example:
            >>> Usual.of(np.array([1e6, 1e6 + 1.349, 1e6 + 2.698, 1e6 + 4.047, 1e30])).spread < 2.01
            True
        """
        seen = scores[np.isfinite(scores)]
        if not len(seen):
            return cls(0.0, 0.0)
        low, centre, high = np.percentile(seen, (25, 50, 75))
        return cls(float(centre), float((high - low) / 1.349 or np.std(seen) or abs(centre)))


def difference(a: NDArray[np.float64], b: NDArray[np.float64], usual: Usual) -> float:
    """The largest |a - b|, less what float32 rounds, where a is finite: as a fraction of the spread of ordinary scores,
    or, of a row that is stranger, of how far its score lies from theirs.

    Example:
        >>> difference(np.array([1e4, 1e4 + 1]), np.array([1e4, 1e4 + 1.5]), Usual(1e4, 1.0)) > 0.49
        True
    """
    seen = np.isfinite(a)
    off = np.maximum(np.abs(a[seen] - b[seen]) - ROUNDING * np.abs(a[seen]), 0)
    return _largest_ratio(off, np.maximum(np.abs(a[seen] - usual.centre), usual.spread))


def misordered(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The share of pairs of rows, of those that a tells apart by more than float32 rounds, which b ranks otherwise.

    Kendall's distance: his rank correlation is one less twice this share.

    References:
        M. G. Kendall, A new measure of rank correlation, Biometrika 30 (1938) 81, doi:10.1093/biomet/30.1-2.81

    Example:
        >>> misordered(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == 1 / 3
        True
    """
    seen = np.isfinite(a)
    a, b = a[seen], b[seen]
    margin = ROUNDING * np.abs(a)
    above = a[:, None] - a > margin[:, None] + margin
    return float((above & (b[:, None] < b)).sum() / max(1, above.sum()))


def _finite(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores, infinite where they were clamped to the largest number, as one that overflows is."""
    return np.where(np.abs(scores) < float(np.finfo(np.float32).max), scores, np.inf)


def _largest_ratio(off: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.divide(off, scale, out=np.zeros_like(off), where=off > 0).max(initial=0.0))


def _differs(detector: nn.Module, what: str) -> ExportError:
    return ExportError(f"The graph of {type(detector).__name__} is not the detector: it gives {what}.")
