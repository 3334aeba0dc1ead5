"""Figures: pure functions from arrays to a matplotlib figure.

What they take, where a figure does not say otherwise, of `N` events:
    x: the events, `(N, *shape)`.
    y: their labels, `(N,)`: -1 unknown, 0 nominal, 1..K the kind of anomaly.
    scores: `(N,)`, larger is stranger.
    weight: `(N,)` event weights; None is one each.
    kinds: names of the labels.
    columns: names of the features.
    thresholds: scores above which a rule flags, by its name.

Of shapes that do not fit each other all of them raise ValueError.
"""

# ruff: noqa: F401 - these are the names that others import

from straylight.report.figures.agreement import agreement
from straylight.report.figures.comparison import by_contamination, curve, heat_map, kind_bars, roc_overlay, seeds
from straylight.report.figures.contributions import contributions
from straylight.report.figures.critical import critical_difference
from straylight.report.figures.curves import precision_recall, roc
from straylight.report.figures.events import examples, extremes, manifold, reconstructions, samples
from straylight.report.figures.improvement import improvement, sic_curves, significance
from straylight.report.figures.latent import latent_2d, latent_3d, latent_normal
from straylight.report.figures.literal import boxes, literal
from straylight.report.figures.pareto import pareto
from straylight.report.figures.particles import leading_particles
from straylight.report.figures.plane import by_score, found, line, scatter
from straylight.report.figures.score_plane import score_plane
from straylight.report.figures.scores import confusion, score_histogram, selected_fraction
from straylight.report.figures.sculpting import sculpting
from straylight.report.figures.significances import significances
from straylight.report.figures.spectrum import spectrum
from straylight.report.figures.steps import by_step
from straylight.report.figures.training import auroc_by_epoch, loss_curves
from straylight.report.figures.trend import trend
from straylight.report.figures.waterfall import waterfall
