"""How training went: losses, and the ranking along the way."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from straylight.report.figures.axes import logarithmic, quality
from straylight.report.figures.curves import ALL
from straylight.report.figures.style import Look, Names, beside, look, panels, rule, series


def loss_curves(losses: Mapping[str, Sequence[tuple[float, float]]]) -> Figure | None:
    """Losses against the epoch, on a linear and a logarithmic axis; None where no loss is known.

    `train/NAME` is drawn in full and `val/NAME` dashed, in one colour. Where a loss is not positive, as the negative
    log-likelihood of a density may be, the second panel shows how far each lies above its own least value.

    Args:
        losses: by name, pairs of epoch and value; values that are not finite are left out.

    Example:
        >>> figure = loss_curves({"train/loss": [(1, 3.0), (2, 1.0)], "val/loss": [(1, 2.0), (2, 1.5)]})
        >>> [axis.get_yscale() for axis in figure.axes]
        ['linear', 'log']
    """
    found = {name: np.array([p for p in pairs if np.isfinite(p[1])], np.float64) for name, pairs in losses.items()}
    found = {name: pairs for name, pairs in found.items() if len(pairs)}
    if not found:
        return None
    found = dict(sorted(found.items(), key=lambda pair: pair[0].partition("/")[0]))  # train, then val
    bare = list(dict.fromkeys(name.partition("/")[2] for name in found))
    shifted = any((pairs[:, 1] <= 0).any() for pairs in found.values())
    figure, (left, right) = panels(1, 2)
    for name, pairs in found.items():
        stage, _, what = name.partition("/")
        drawn = series(bare.index(what), name)._replace(dash="--" if stage == "val" else "-")
        style = {**drawn.line, "marker": "o" if len(pairs) < 30 else None, "ms": 3}
        left.plot(*pairs.T, label=name, **style)
        above = pairs[:, 1] - pairs[:, 1].min() if shifted else pairs[:, 1]
        right.plot(pairs[above > 0, 0], above[above > 0], **style)
    logarithmic(right.yaxis)
    left.set_ylabel("loss")
    right.set_ylabel("loss above its least value" if shifted else "loss")
    _epochs(left, right)
    return beside(figure, left)


def auroc_by_epoch(
    by_epoch: Sequence[Mapping[str, Any]], kinds: Names = (), final: float | None = None
) -> Figure | None:
    """AUROC of the test rows against the epoch, for all anomalies and each kind; None with fewer than two epochs.

    Args:
        by_epoch: of each epoch that was ranked, `epoch`, `auroc` and `auroc/KIND`, as a record has them.
        kinds: names of the labels, which give kinds their colours.
        final: AUROC of the weights that were tested, drawn as a line.

    Example:
        >>> auroc_by_epoch([{"epoch": 1, "auroc": 0.8}, {"epoch": 2, "auroc": 0.9}]).axes[0].get_xlabel()
        'epoch'
    """
    if len(by_epoch) < 2:
        return None
    names = list(dict.fromkeys(n for found in by_epoch for n in found if n == "auroc" or n.startswith("auroc/")))
    figure, (axis,) = panels(width=5.0)
    for name in names:
        drawn = _look(name.partition("/")[2], kinds)
        pairs = [(found["epoch"], found[name]) for found in by_epoch if found.get(name) is not None]
        axis.plot(*zip(*pairs, strict=True), **drawn.line, marker="o", ms=3, label=drawn.name)
    if final is not None:
        axis.axhline(final, color="black", lw=0.8, ls=":", label=f"as tested: {final:.3f}")
    values = [value for found in by_epoch for name in names if (value := found.get(name)) is not None]
    axis.set(ylabel="AUROC of test rows", ylim=quality(values if final is None else [*values, final]))
    _epochs(axis)
    return beside(figure, axis)


def _look(kind: str, kinds: Names) -> Look:
    if not kind:
        return ALL
    return look(kinds.index(kind), kinds) if kind in kinds else look(int(kind) if kind.isdigit() else 1)


def _epochs(*axes: Axes) -> None:
    rule(*axes, which="both")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
