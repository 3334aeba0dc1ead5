"""The figures of one run: what each is called and shows, and how those of its scores are drawn from what it kept.

Those that need its events or its detector are drawn by `straylight.callbacks.drawings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from straylight.report import figures
from straylight.report.kept import Kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDED = {  # what the significances of a hunt are worth, by how its events were scored
    "forward": "scored by models of earlier folds: z is as wide as it should be",
    "all": "scored by models of the other folds: without a signal z after a cut is too wide",
}


def auroc_by_epoch(run: Kept) -> Figure | None:
    final = run.measured.get("metrics", {}).get("test/auroc")
    return figures.auroc_by_epoch(run.measured.get("by_epoch", []), run.kinds, final)


def confusion(run: Kept) -> Figure | None:
    known = {name: rule for name, rule in run.rules.items() if rule.get("value") is not None or rule.get("flagged")}
    return figures.confusion({name: rule["confusion"] for name, rule in known.items() if rule.get("confusion")})


def p_values(run: Kept) -> Figure | None:
    """Of test events, by the calibration events; not across folds, whose promise is another."""
    if (found := run.p_values) is None:
        return None
    return figures.p_values(found.p, run.y, found.n, run.kinds, run.weight)


def spectrum(run: Kept) -> Figure | None:
    """What was looked for in the resonant variable, and found; what its significances are worth says the title."""
    hunt = run.bump
    note, width = FOLDED.get(hunt.get("direction", ""), ""), hunt.get("width", 1.0)
    if width != 1.0:
        note = f"z after a cut is divided by {width:g}, the width that was measured"
    return figures.spectrum(hunt.get("cuts") or [], hunt.get("resonance") or {}, note)


#: Those of scores alone, by name.
DRAWINGS: dict[str, Callable[[Kept], Figure | None]] = {
    "losses": lambda run: figures.loss_curves(run.losses),
    "auroc_by_epoch": auroc_by_epoch,
    "scores": lambda run: figures.score_histogram(run.scores, run.y, run.kinds, run.thresholds, run.weight),
    "selected": lambda run: figures.selected_fraction(
        run.scores, run.y, run.kinds, run.thresholds, run.weight, run.input_hz, run.accepted_hz
    ),
    "confusion": confusion,
    "p_values": p_values,
    "roc": lambda run: figures.roc(run.scores, run.y, run.kinds, run.weight, run.intervals),
    "precision_recall": lambda run: figures.precision_recall(run.scores, run.y, run.kinds, run.weight, run.intervals),
    "significance": lambda run: figures.significance(
        run.scores, run.y, run.kinds, run.weight, run.bump.get("optimum_curve")
    ),
    "spectrum": spectrum,
    "sculpting": lambda run: figures.sculpting(run.bump.get("sculpting") or [], run.bump.get("resonance")),
}


class Said(NamedTuple):
    """What a figure is called, and what it shows."""

    title: str
    sentence: str


#: Of every figure in `straylight.report.choice.NAMES`.
SAID: dict[str, Said] = {
    "data": Said("The events", "Where the test events lie, by kind."),
    "particles": Said(
        "Leading particles", "Momenta, directions and numbers of the particles of an event, of each kind."
    ),
    "losses": Said("Losses", "The losses of training and validation by epoch, on a linear and a logarithmic axis."),
    "auroc_by_epoch": Said("AUROC while training", "How the test events were ranked after each epoch."),
    "scores": Said(
        "Anomaly scores",
        "How the scores of each kind are distributed, in numbers of events and as densities; vertical lines are "
        "thresholds.",
    ),
    "selected": Said("What a threshold selects", "The fraction of each kind that lies above a threshold."),
    "confusion": Said(
        "Decisions", "What each threshold flags of nominal and anomalous events: numbers, and shares of a row."
    ),
    "p_values": Said(
        "Are p-values as promised?",
        "The fraction of each kind whose conformal p-value is at most a level: nominal events are to follow the "
        "diagonal within the band, anomalies to lie far above it.",
    ),
    "roc": Said(
        "ROC curve", "True-positive against false-positive rate of each kind, on a linear and a logarithmic axis."
    ),
    "precision_recall": Said(
        "Precision and recall", "Precision against recall of each kind; dotted is what chance gives."
    ),
    "significance": Said(
        "Significance improvement",
        "How many times a cut on the score raises the significance of a signal, TPR / sqrt(FPR), down to 25 nominal "
        "events.",
    ),
    "spectrum": Said(
        "Spectrum", "The resonant variable before and after each cut, with the fit to its sidebands and its residuals."
    ),
    "sculpting": Said(
        "Sculpting", "How each cut deforms the background in the resonant variable: both normalised, and their ratio."
    ),
    "plane": Said("Scores in the plane", "The score of every event where it lies, with contours."),
    "detected": Said("What is detected", "What the first threshold flags, beside what is anomalous."),
    "score_plane": Said(
        "Scores over two features", "The mean score over the two features in which the strangest differ most."
    ),
    "latent_2d": Said("Codes", "The codes of events along two directions, by kind."),
    "latent_3d": Said("Codes in three dimensions", "The codes of events along three directions, by kind."),
    "latent_normal": Said(
        "Are the codes normal?", "The codes of nominal events beside the normal law they ought to have."
    ),
    "reconstructions": Said("Reconstructions", "Events of each kind above what the detector makes of them."),
    "extremes": Said("The strangest and the most ordinary", "The events of the largest and the smallest scores."),
    "contributions": Said("Contributions", "What each feature adds to the scores of the strangest events."),
    "samples": Said("Samples", "Events that the detector makes by itself."),
    "manifold": Said("Manifold", "What the decoder makes of codes on a grid."),
}
