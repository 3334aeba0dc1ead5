"""Events themselves: the strangest and the most ordinary, reconstructions, samples, and a decoder's manifold.

`N` events; `D` features; images are `(C, H, W)` with one channel or three.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures import style
from straylight.report.figures.mosaic import framed, mosaic, pixels, show
from straylight.report.figures.plane import limits
from straylight.report.figures.span import per_unit, short, span
from straylight.report.figures.style import COLOURS, FEATURES, NOMINAL, Names, beside, look, panels, present, tiles

Array = NDArray[np.float64]
ACROSS = 10  # images in a row of a grid
FIRST = 3  # images that are named
NAMED = 12  # rows of a table that are
APART = 16  # pixels; smaller images of a manifold would run into each other


def is_image(shape: Sequence[int]) -> bool:
    """Whether events of this shape can be looked at as images.

    Example:
        >>> is_image((1, 28, 28)), is_image((1, 19, 3)), is_image((57,))
        (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4


def examples(x: ArrayLike, y: ArrayLike, kinds: Names = (), each: int = 12) -> Figure:
    """Images of each kind as they come, a row for each kind in frames of its colour.

    Args:
        x: `(N, C, H, W)`.
        each: how many of a kind, the first of them.

    Raises:
        ValueError: if the events are no images, there are none, or not as many labels.

    Example:
        >>> figure = examples(np.zeros((5, 1, 8, 8)), [0, 0, 0, 1, 1], each=3)
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['nominal', '1']
    """
    images, labels = np.asarray(x, np.float64), np.asarray(y)
    if not len(images) or not is_image(images.shape[1:]) or labels.shape != images.shape[:1]:
        raise ValueError(f"images (N, C, H, W) and N labels are needed, not shapes {images.shape} and {labels.shape}")
    there = present(labels, kinds)
    figure, axes = panels(len(there), 1, width=0.7 * each + 0.8, height=0.75, legend=False)
    chosen = [np.flatnonzero(labels == label)[:each] for label, _ in there]
    shades = np.split(pixels(images[np.concatenate(chosen)]), np.cumsum([len(own) for own in chosen])[:-1])
    for axis, part, (_, drawn) in zip(axes, shades, there, strict=True):
        blank = np.ones((each - len(part), *part.shape[1:]))
        frames = [drawn.colour] * len(part) + ["white"] * len(blank)
        axis.imshow(framed(np.concatenate([part, blank]), each, frames), interpolation="nearest", aspect="equal")
        style.bare(axis)
        axis.spines[:].set_visible(False)
        axis.set_ylabel(drawn.name, fontsize=9, rotation=0, ha="right", va="center")
    return figure


def extremes(
    strangest: ArrayLike,
    ordinary: ArrayLike,
    scores: tuple[ArrayLike, ArrayLike],
    labels: tuple[ArrayLike, ArrayLike],
    kinds: Names = (),
    columns: Names = (),
    names: tuple[Names, Names] | None = None,
) -> Figure:
    """The strangest and the most ordinary events: images as grids, rows as tables, each marked with its kind's colour.

    Of a table a row is an event and a column a feature; colours say how many standard deviations a value lies from the
    mean of the most ordinary events. Of more than 24 features those are shown in which the strangest differ most.

    Args:
        strangest: `(N, *shape)`, the strangest first.
        ordinary: `(N, *shape)`, the most ordinary first.
        scores: of both, `(N,)` each.
        labels: of both, `(N,)` each, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        names: of both, `(N,)` each, what the events are called; a few of them are written beside their ranks.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 3))
        >>> figure = extremes(x[:10], x[10:], (range(10), range(10)), ([1] * 10, [0] * 10))
        >>> figure.axes[0].get_title()
        'the 10 strangest, score 0 to 9'
    """
    halves = [np.asarray(strangest, np.float64), np.asarray(ordinary, np.float64)]
    both = list(zip(halves, map(np.asarray, scores), map(np.asarray, labels), strict=True))
    if any(len(x) != len(s) or len(x) != len(y) or not len(x) for x, s, y in both):
        raise ValueError("the strangest and the most ordinary events need a score and a label each")
    called = names or ((), ())
    if names and any(len(own) != len(x) for own, (x, _, _) in zip(called, both, strict=True)):
        raise ValueError("the strangest and the most ordinary events need a name each, or none")
    titles = [
        f"the {len(x):,} {what}, score {short(float(s.min()))} to {short(float(s.max()))}"
        for (x, s, _), what in zip(both, ("strangest", "most ordinary"), strict=True)
    ]
    figure, axes = panels(1, 2, width=5.0, height=5.2)
    if is_image(halves[0].shape[1:]):
        shades = pixels(np.concatenate(halves))
        parts = np.split(shades, [len(halves[0])])
        for axis, title, own, (_, _, y), part in zip(axes, titles, called, both, parts, strict=True):
            first = f"\nfirst {', '.join(style.cut(name) for name in own[:FIRST])}" if own else ""
            show(axis, framed(part, ACROSS, [look(int(label), kinds).colour for label in y]), title + first)
    else:
        _tables(figure, axes, titles, both, columns, called)
    for label, drawn in present(np.concatenate([y for _, _, y in both]), kinds):
        count = " / ".join(str(int((y == label).sum())) for _, _, y in both)
        axes[0].scatter([], [], marker="s", s=30, color=drawn.colour, label=f"{drawn.name}: {count}")
    return beside(figure, axes[0], titles=("strangest / most ordinary",))


def _tables(
    figure: Figure,
    axes: Sequence[Axes],
    titles: Sequence[str],
    both: Sequence[tuple[Array, Array, NDArray[np.int64]]],
    columns: Names,
    names: tuple[Names, Names],
) -> None:
    flat = [x.reshape(len(x), -1) for x, _, _ in both]
    mean, scale = flat[1].mean(0), flat[1].std(0)
    scale = np.where(scale > 0, scale, np.maximum(flat[0].std(0), 1e-12))
    off = [(x - mean) / scale for x in flat]
    places = style.telling(np.abs(np.nan_to_num(off[0])).mean(0))
    for axis, title, part, own, (_, _, y) in zip(axes, titles, off, names, both, strict=True):
        colours = [look(int(label)).colour for label in y]
        image = axis.imshow(part[:, places], cmap="RdBu_r", vmin=-5, vmax=5, aspect="auto", interpolation="nearest")
        at, beside_it = np.full(len(part), -0.015), axis.get_yaxis_transform()
        axis.scatter(at, range(len(part)), marker="s", s=6, c=colours, clip_on=False, lw=0, transform=beside_it)
        axis.tick_params(axis="y", pad=6)
        axis.set_title(title, fontsize=9)
        style.name_features(axis, columns, places)
        if own:
            ticks = range(0, len(own), -(-len(own) // NAMED))
            axis.set_yticks(ticks, [f"{style.cut(own[i])}  {i + 1}" for i in ticks], fontsize=7)
        axis.set_ylabel("name, rank" if own else "rank")
    figure.colorbar(image, ax=axes, label="standard deviations from ordinary events", location="left")


def reconstructions(
    x: ArrayLike,
    out: ArrayLike,
    y: ArrayLike,
    scores: ArrayLike,
    kinds: Names = (),
    columns: Names = (),
    names: Names = (),
) -> Figure:
    """Pairs of an event and its reconstruction, and their squared difference: images; a plane with lines
    from events to reconstructions; else features as points and lines.

    Args:
        x: `(N, *shape)`, as the network sees them.
        out: `(N, *shape)`, their reconstructions.
        y: `(N,)` labels, whose colours frame the events.
        scores: `(N,)`, written above each.
        names: `(N,)`, what the events are called, written there, too; points of a plane are too many.

    Example:
        >>> figure = reconstructions([[0.0, 1.0, 2.0]], [[0.1, 0.8, 2.0]], [0], [0.05])
        >>> figure.axes[0].get_title()
        'nominal, score 0.05, mean squared error 0.0167'
    """
    before, after, labels = np.asarray(x, np.float64), np.asarray(out, np.float64), np.asarray(y)
    s = np.asarray(scores, np.float64)
    if before.shape != after.shape or labels.shape != before.shape[:1] or s.shape != labels.shape or not len(s):
        raise ValueError(
            f"events, reconstructions, labels and scores are of shapes {before.shape}, {after.shape}, {labels.shape}, "
            f"{s.shape}, and must fit each other"
        )
    if names and len(names) != len(s):
        raise ValueError(f"{len(s)} events need as many names, or none, and not {len(names)}")
    if is_image(before.shape[1:]):
        return _image_pairs(before, after, labels, s, kinds, names)
    flat, back = before.reshape(len(s), -1), after.reshape(len(s), -1)
    if flat.shape[1] == 2:
        return _arrows(flat, back, labels, kinds, columns)
    errors = ((flat - back) ** 2).mean(1)
    figure, axes = tiles(len(s), 2, width=4.6, height=2.1, sharex=True)
    at = np.arange(flat.shape[1])
    for i, axis in enumerate(axes):
        drawn = look(int(labels[i]), kinds)
        axis.vlines(at, flat[i], back[i], color="0.75", lw=1)
        axis.plot(at, flat[i], "o", ms=3, color=drawn.colour, label="event, in its kind's colour")
        axis.plot(at, back[i], "_", ms=7, mew=1.5, color="black", label="reconstruction")
        who = f"{style.cut(names[i])}: " if names else ""
        axis.set_title(f"{who}{drawn.name}, score {short(s[i])}, mean squared error {short(errors[i])}", fontsize=8)
        if len(at) <= FEATURES:
            style.name_features(axis, columns, at)
        if i % 2 == 0:
            axis.set_ylabel("scaled value", fontsize=8)
    if len(at) > FEATURES:
        axes[0 if len(s) % 2 and len(s) > 1 else -1].set_xlabel("feature")
    style.rule(*axes)
    return beside(figure, axes[0])


def _arrows(x: Array, out: Array, labels: NDArray[np.int64], kinds: Names, columns: Names) -> Figure:
    figure, (axis,) = panels(width=5.0, height=4.4)
    for label, drawn in present(labels, kinds):
        own, back = x[labels == label], out[labels == label]
        error = ((own - back) ** 2).mean()
        axis.plot(*np.stack([own, back], 1).transpose(2, 1, 0), color=drawn.colour, lw=0.6, alpha=0.6)
        text = f"{drawn.name}\nmean squared error {short(float(error))}"
        axis.plot(*own.T, drawn.marker, ms=3, color=drawn.colour, mew=0, label=text)
    axis.plot(*out.T, "_", ms=4, color="black", label="reconstruction")
    limits(axis, np.concatenate([x, out]), np.zeros(2 * len(x), np.int64))
    axis.set(xlabel=style.named(columns, 0), ylabel=style.named(columns, 1))
    return beside(figure, axis)


def _image_pairs(x: Array, out: Array, labels: NDArray[np.int64], scores: Array, kinds: Names, names: Names) -> Figure:
    n = len(scores)
    error = ((x - out) ** 2).mean(1)
    figure, axes = panels(3, n, width=1.05, height=1.25)
    shades = pixels(np.concatenate([x, out]))
    most = float(error.max()) or 1.0
    for i, (above, middle, below) in enumerate(zip(axes[:n], axes[n : 2 * n], axes[2 * n :], strict=True)):
        above.imshow(shades[i], interpolation="nearest")
        middle.imshow(shades[n + i], interpolation="nearest")
        last = below.imshow(error[i], cmap="magma", vmin=0, vmax=most, interpolation="nearest")
        who = f"{style.cut(names[i], 14)}\n" if names else ""
        above.set_title(f"{who}score\n{short(scores[i])}", fontsize=7)
        below.set_xlabel(f"error\n{short(float(error[i].mean()))}", fontsize=7)
        style.bare(above, middle, below, frame=look(int(labels[i]), kinds).colour)
    for axis, name in zip(axes[::n], ("input", "reconstruction", "squared error"), strict=True):
        axis.set_ylabel(name, fontsize=8)
    for _, drawn in present(labels, kinds):
        axes[0].scatter([], [], marker="s", color=drawn.colour, label=drawn.name)
    figure.colorbar(last, ax=axes, label="squared error", shrink=0.5, location="left")
    return beside(figure, axes[0])


def samples(drawn: ArrayLike, x: ArrayLike | None = None, columns: Names = ()) -> Figure:
    """Generated samples: images as a grid; points of a plane beside events; else a histogram of each feature of both.

    Of more than 24 features those are shown whose means differ most, in standard deviations of the events. Axes hold
    the events' 0.1 to 99.9 % quantiles.

    Args:
        drawn: samples, `(M, *shape)`.
        x: nominal events, `(N, *shape)`; not needed for images.

    Raises:
        ValueError: if there are no events to compare rows with.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(2, 100, 2))
        >>> samples(z[0], z[1]).axes[0].get_xlabel()
        '0'
    """
    made = np.asarray(drawn, np.float64)
    if is_image(made.shape[1:]):
        figure, (axis,) = panels(width=5.0, height=5.0, legend=False)
        show(axis, mosaic(pixels(made), math.ceil(math.sqrt(len(made)))), f"{len(made)} samples")
        return figure
    if x is None or not len(np.asarray(x)):
        raise ValueError("samples of rows are drawn beside events, and there are none")
    events = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1)
    made = made.reshape(len(made), -1)
    if events.shape[1] == 2:
        return _sampled_plane(made, events, columns)
    scale = events.std(0)
    off = np.abs(made.mean(0) - events.mean(0)) / np.where(scale > 0, scale, 1)
    places = style.telling(np.nan_to_num(off))
    alone = len(places) == 1
    figure, axes = tiles(len(places), 4, width=4.6 if alone else 2.4, height=3.4 if alone else 1.8)
    for i, axis in zip(places.tolist(), axes, strict=True):
        axis_of = span(events[:, i], np.zeros(len(events), np.int64))
        for values, name, fill in ((events[:, i], "nominal events", True), (made[:, i], "samples", False)):
            counts, edges = axis_of.histogram(values, 40)
            colour = NOMINAL if fill else COLOURS[0]
            axis.stairs(per_unit(counts, edges), edges, fill=fill, alpha=0.5 if fill else 1, color=colour, label=name)
        axis_of.apply(axis)
        axis.set_xlabel(style.cut(style.named(columns, i), 26), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    axes[0].set_ylabel("density", fontsize=8)
    return beside(figure, axes[0])


def _sampled_plane(made: Array, events: Array, columns: Names) -> Figure:
    figure, (left, right) = panels(1, 2, width=4.2, legend=False, sharex=True, sharey=True)
    shown = ((left, events, NOMINAL, "nominal events"), (right, made, COLOURS[0], "samples"))
    for axis, points, colour, name in shown:
        axis.scatter(*points[:3000].T, s=5, lw=0, c=colour, alpha=0.7)
        axis.set(title=f"{min(len(points), 3000):,} {name}", xlabel=style.named(columns, 0))
    limits(left, events, np.zeros(len(events), np.int64))
    left.set_ylabel(style.named(columns, 1))
    return figure


def manifold(made: Sequence[ArrayLike], pairs: Sequence[tuple[int, int]], note: str = "") -> Figure:
    """What a decoder makes of a square of codes, for each pair of latent axes, the others held: images, or points.

    Args:
        made: for each pair events decoded from a grid of n x n codes, `(n * n, *shape)`: rows from the largest value of
            the second axis down, columns from the smallest of the first up. Events of two features are drawn as a net.
        pairs: numbers of the two axes, from 0.
        note: how far the squares go, and where the other axes are held.

    Raises:
        ValueError: if there is no pair, or the events are neither images nor points of a plane.

    Example:
        >>> manifold([np.zeros((9, 1, 4, 4))], [(0, 1)]).axes[0].get_title()
        'z1 across, z2 up'
    """
    grids = [np.asarray(part, np.float64) for part in made]
    if not grids or len(grids) != len(pairs):
        raise ValueError(f"{len(grids)} grids of decoded events were given for {len(pairs)} pairs of axes")
    shape = grids[0].shape[1:]
    if not is_image(shape) and math.prod(shape) != 2:
        raise ValueError(f"decoded events of shape {shape} are neither images nor points of a plane")
    figure, axes = tiles(len(pairs), 3, width=3.6, height=3.7, legend=False)
    figure.suptitle(note, fontsize=9)
    for axis, part, (i, j) in zip(axes, grids, pairs, strict=True):
        title = f"z{i + 1} across, z{j + 1} up"
        n = math.isqrt(len(part))
        if is_image(shape):
            show(axis, mosaic(pixels(part), n, gap=int(min(shape[1:]) < APART)), title)
            continue
        net = part.reshape(n, n, 2)
        axis.plot(*net.transpose(2, 0, 1), color=COLOURS[0], lw=0.7)
        axis.plot(*net.transpose(2, 1, 0), color=COLOURS[1], lw=0.7)
        axis.set(xlabel="x1", ylabel="x2")
        axis.set_title(title, fontsize=9)
    return figure
