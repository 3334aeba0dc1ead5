"""Which figures apply to a run, and what of the run each is drawn from.

Each drawing is a function of `Material` that returns a figure, or None where it does not apply: which do follows from
what the run has, labels, kinds, a plane, images, particles, codes, reconstructions, a density or a resonance. Those of
scores alone are in `straylight.report.own`.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

from straylight.callbacks.material import Material, Places
from straylight.explain import Explainer, explained_in, features_of
from straylight.report import figures, own
from straylight.report.figures.events import is_image
from straylight.report.figures.plane import CELLS
from straylight.report.figures.projection import projected
from straylight.report.figures.style import present, shown, subsampled

Drawing = Callable[[Material], Figure | None]

MOST = 100  # of the strangest, and of the most ordinary
ARROWS = 150  # of each kind, from events of a plane to their reconstructions
EXPLAINED = 10  # of the strangest
GATHERED = 1_000_000  # events that are gathered in memory
BINNED = 250_000  # of them, that hexagons count in half a second
SECONDS = 3.0  # of scoring, that a figure may take
MULTIPLICATIONS = 5e10  # that drawing samples may take: seconds on one core
SAMPLES = {"images": 64, "rows": 2000}
LATENT_AXES = 4  # of a manifold
SIDE = 15  # codes along each
PARTICLES = 57  # numbers of an event of nineteen particles


def data(run: Material) -> Figure | None:
    """Where events lie, by kind: in one dimension, in a plane, or along two principal components of a table."""
    if run.data is None or is_image(run.shape) or _particles(run):
        return None
    if run.dimensions == 1:
        values = run.events(np.arange(len(run.y))).flatten().numpy()
        return figures.line(values, run.y, run.kinds, run.features[0])
    places = shown(run.y)
    points, names = projected(run.events(places).flatten(1).numpy(), 2, standardise=True)
    names = tuple(run.features) if run.dimensions == 2 else names
    counts = [int((run.y == label).sum()) for label, _ in present(run.y)]
    return figures.scatter(points, run.y[places], run.kinds, names, counts)


def particles(run: Material) -> Figure | None:
    """Of at most a million events, evenly spaced, so that they fit the memory."""
    if not _particles(run):
        return None
    places = np.arange(0, len(run.y), -(-len(run.y) // GATHERED))
    figure = figures.leading_particles(run.events(places).numpy(), run.y[places], run.kinds)
    if len(places) < len(run.y):
        figure.suptitle(subsampled(len(run.y), len(places)))
    return figure


def plane(run: Material) -> Figure | None:
    """Scores in the plane, with contours where the detector needs nothing but a point of it, and is quick."""
    if run.dimensions != 2:
        return None
    asked = not run.module.context and CELLS**2 * run.seconds_per_event < SECONDS

    def score(points: np.ndarray) -> np.ndarray:
        return run.score(torch.from_numpy(points).float().view(-1, *run.shape))

    places = shown(run.y)
    return figures.by_score(
        run.events(places).flatten(1).numpy(),
        run.y[places],
        run.scores[places],
        score if asked else None,
        run.first_threshold,
        run.kinds,
        run.features,
    )


def detected(run: Material) -> Figure | None:
    """What the first of the thresholds finds, in the plane."""
    if run.dimensions != 2 or run.first_threshold is None:
        return None
    x = run.events(np.arange(len(run.y))).flatten(1).numpy()
    return figures.found(x, run.y, run.scores, run.first_threshold, run.kinds, run.features)


def score_plane(run: Material) -> Figure | None:
    """Of a table, the two features in which the strangest differ most from all; of 250,000 events at most."""
    if run.data is None or run.dimensions < 3 or is_image(run.shape):
        return None
    places = np.arange(0, len(run.y), -(-len(run.y) // BINNED))
    x = run.events(places).flatten(1).numpy()
    figure = figures.score_plane(x, run.scores[places], run.y[places], run.features, kinds=run.kinds)
    if len(places) < len(run.y):
        figure.suptitle(subsampled(len(run.y), len(places)))
    return figure


def _latent(run: Material, draw: Callable[..., Figure | None]) -> Figure | None:
    if not run.encodes:
        return None
    places = shown(run.y)
    classes = () if run.classes is None else (run.classes.values[places], run.classes.name)
    return draw(run.latents(places), run.y[places], run.kinds, *classes)


def latent_normal(run: Material) -> Figure | None:
    """Codes that ought to be normal: those of a flow, and of an encoder whose codes have a law."""
    ought = getattr(run.module, "density", False) or callable(getattr(run.module, "draw", None))
    if not (run.encodes and ought):
        return None
    nominal = np.flatnonzero(run.y == 0)
    nominal = nominal[shown(np.zeros(len(nominal), np.int64), 10_000)]
    return figures.latent_normal(run.latents(nominal)) if len(nominal) else None


def reconstructions(run: Material) -> Figure | None:
    """Events of each kind, drawn by seed: a few, as the network sees them; images and a plane in the data's units."""
    if run.data is None or not callable(getattr(run.module, "reconstruct", None)):
        return None
    image, plane = is_image(run.shape), run.dimensions == 2
    places = shown(run.y, ARROWS) if plane else _few_of_each(run, 10 if image else 6)
    x = run.module.scaling(run.events(places).to(run.module.device))
    out = run.module.reconstruct(x)
    if image or plane or run.module.shape != run.module.event_shape:
        x, out = (run.module.scaling.inverse(part) for part in (x, out))
    before, after = (part.float().cpu().numpy() for part in (x, out))
    called = run.called(places)
    return figures.reconstructions(before, after, run.y[places], run.scores[places], run.kinds, run.features, called)


def extremes(run: Material) -> Figure | None:
    if run.data is None or len(run.scores) < 2:
        return None
    strangest, ordinary = run.extremes(MOST)
    return figures.extremes(
        run.events(strangest).numpy(),
        run.events(ordinary).numpy(),
        (run.scores[strangest], run.scores[ordinary]),
        (run.y[strangest], run.y[ordinary]),
        run.kinds,
        run.features,
        (run.called(strangest), run.called(ordinary)),
    )


def contributions(run: Material) -> Figure | None:
    """Of the strangest events, as many as can be explained in three seconds; by features that change in training."""
    if run.data is None or run.dimensions < 2:
        return None
    features = features_of(run.shape, run.columns, run.data.recipe())
    passes = explained_in(run.module)
    n = min(EXPLAINED, len(run.scores) // 2, int(SECONDS / max(passes * run.seconds_per_event, 1e-12)))
    if n < 1:
        return None
    places, _ = run.extremes(n)
    x = run.events(places)
    rows, _ = run.data.training_sample(2000)
    same = (rows.flatten(1) == rows.flatten(1)[0]).all(0).numpy()  # the larger part of an image's rim
    constant = features.sums(~same[None]) == 0
    if constant.all():
        return None
    why = Explainer(run.module, features, lambda: run.data)(x, run.context(places))
    parts, constant = why.contributions, constant[0]
    if features.kind == "image":  # a pixel's channels share alike
        channels = run.shape[0]
        parts, constant = np.tile(parts / channels, (1, channels)), np.tile(constant, channels)
    return figures.contributions(
        x.numpy(),
        parts,
        why.score,
        run.y[places],
        run.kinds,
        features.names,
        rows=run.called(places),
        constant=constant,
    )


def samples(run: Material) -> Figure | None:
    """Events that the detector makes, if it can in a few seconds."""
    draw = getattr(run.module, "sample", None)
    if run.data is None or not callable(draw) or run.module.context:
        return None
    each = getattr(run.module, "passes", 1) * sum(p.numel() for p in run.module.parameters())
    n = min(SAMPLES["images" if is_image(run.shape) else "rows"], int(MULTIPLICATIONS / max(1, each)))
    if n < 16:
        return None
    with torch.random.fork_rng([run.module.device] if run.module.device.type == "cuda" else []):
        torch.manual_seed(0)
        try:
            made = draw(n).float().cpu().numpy()
        except ValueError:  # it has no law to draw from, or a scaling without a way back
            return None
    nominal = np.flatnonzero(run.y <= 0)[: SAMPLES["rows"]]
    return figures.samples(made, run.events(nominal).numpy(), run.features)


def manifold(run: Material) -> Figure | None:
    """What a decoder makes of codes: of a normal law up to two, else two standard deviations from the mean."""
    latent = getattr(run.module, "latent", 0)
    image, decode = is_image(run.shape), getattr(run.module, "decode", None)
    if not callable(decode) or latent < 2 or not (image or run.dimensions == 2):
        return None
    centre, spread, axes = np.zeros(latent), np.ones(latent), np.arange(min(latent, LATENT_AXES))
    note = "codes from -2 to 2" + (", the others 0" if latent > 2 else "")
    if run.encodes:
        nominal = np.flatnonzero(run.y <= 0)
        codes = run.latents(nominal[:: -(-len(nominal) // 2000)])
        axes = np.sort(np.argsort(-codes.std(0), kind="stable")[:LATENT_AXES])
        if not callable(getattr(run.module, "draw", None)):
            centre, spread = codes.mean(0), codes.std(0)
            held = ", the others at the mean" if latent > 2 else ""
            note = f"codes of nominal events: mean ± 2 standard deviations{held}"
    pairs = list(itertools.combinations(axes.tolist(), 2))
    across, up = np.meshgrid(np.linspace(-2, 2, SIDE), np.linspace(2, -2, SIDE))
    grids = []
    for i, j in pairs:
        z = np.tile(centre, (SIDE**2, 1))
        z[:, i] += across.ravel() * spread[i]
        z[:, j] += up.ravel() * spread[j]
        grids.append(decode(torch.from_numpy(z).float().to(run.module.device)).float().cpu().numpy())
    return figures.manifold(grids, pairs, note)


def _particles(run: Material) -> bool:
    return run.dimensions == PARTICLES and run.columns[:1] == ["MET pT"]


def _few_of_each(run: Material, n: int) -> Places:
    """Up to n places, as even among the kinds as can be, nominal first."""
    labels = [label for label, _ in present(run.y)]
    each = max(1, n // len(labels))
    extra = max(0, n - each * len(labels))
    generator = np.random.default_rng(0)

    def some(label: int) -> Places:
        own = np.flatnonzero(run.y == label)
        return np.sort(generator.choice(own, min(len(own), each + (extra if label == 0 else 0)), replace=False))

    return np.concatenate([some(label) for label in labels[:n]])


#: By name, in the order of being drawn.
DRAWINGS: dict[str, Drawing] = {
    "data": data,
    "particles": particles,
    **own.DRAWINGS,
    "plane": plane,
    "detected": detected,
    "score_plane": score_plane,
    "latent_2d": lambda run: _latent(run, figures.latent_2d),
    "latent_3d": lambda run: _latent(run, figures.latent_3d),
    "latent_normal": latent_normal,
    "reconstructions": reconstructions,
    "extremes": extremes,
    "contributions": contributions,
    "samples": samples,
    "manifold": manifold,
}
