"""A search in pictures: how it went, what mattered, where its trials lie, and the front of several objectives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from straylight.atomic import replacing
from straylight.console import say
from straylight.folder import SweepFolder
from straylight.objective import measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
FEW = 2  # trials, of which nothing is drawn
AXES = 12  # parameters of parallel coordinates
TREES = 16  # of the forest; 64 take four times as long and say the same to a percent

Draw = Callable[[Sequence[FrozenTrial], Sequence[str], Any], "Iterator[tuple[str, Figure]]"]


def draw(study: optuna.Study, objectives: Sequence[str], folder: SweepFolder) -> list[str]:
    """Write those that apply into `figures/` of a sweep's folder, and name them."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    written: list[str] = []
    if len(trials) <= FEW:
        return written
    from straylight.report.figures.literal import save

    place = folder.path / "figures"
    place.mkdir(exist_ok=True)
    for drawn in (history, importance, parallel, front):
        try:
            for name, figure in drawn(trials, objectives, study):
                with replacing(place / f"search_{name}.png", durable=False) as aside:
                    save(figure, aside, dpi=DPI, format="png")
                written.append(f"search_{name}.png")
        except Exception as error:  # what was found is in the journal all the same
            say(f"search_{drawn.__name__} was not drawn: {' '.join(str(error).split())}", error=True)
    if written:
        say(f"Drawn into {place}: {', '.join(written)}")
    return written


def history(trials: Sequence[FrozenTrial], objectives: Sequence[str], _: Any) -> Iterator[tuple[str, Figure]]:
    """What each trial reached, and the best until then."""
    from matplotlib.ticker import MaxNLocator

    from straylight.report.figures.style import beside, panels

    figure, axes = panels(1, len(objectives), ruled=True)
    numbers = np.array([trial.number for trial in trials])
    for i, (axis, name) in enumerate(zip(axes, objectives, strict=True)):
        values = np.array([trial.values[i] for trial in trials])
        best = np.minimum.accumulate(values) if measure(name).lower else np.maximum.accumulate(values)
        axis.plot(numbers, values, "o", color="#56B4E9", ms=4, label="trial")
        axis.step(numbers, best, where="post", color="#0072B2", label="best so far")
        axis.set(xlabel="trial", ylabel=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    yield "history", beside(figure, axes[0])


def importance(trials: Sequence[FrozenTrial], objectives: Sequence[str], study: Any) -> Iterator[tuple[str, Figure]]:
    """How much of the objective's variance each parameter explains, by a forest over those that all trials have.

    References:
        F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014
    """
    from straylight.report.figures.style import at_ticks, cut, panels

    shares = {}
    for i, name in enumerate(objectives):
        values = {trial.values[i] for trial in trials}
        if len(values) > 1 and shared(trials):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shares[name] = optuna.importance.get_param_importances(
                    study,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=32, seed=0),
                    target=lambda trial, i=i: trial.values[i],  # type: ignore[misc]
                )
    if not shares:
        return
    most = max(map(len, shares.values()))
    figure, axes = panels(1, len(shares), height=max(1.8, 0.8 + 0.3 * most), legend=False)
    for axis, (name, parts) in zip(axes, shares.items(), strict=True):
        keys = list(parts)[::-1]
        axis.barh(range(len(keys)), [parts[key] for key in keys], color="#0072B2")
        at_ticks(axis.yaxis, [cut(key, 40) for key in keys])
        axis.set(xlabel=f"share of the variance of {name}", xlim=(0, 1))
    yield "importance", figure


def parallel(trials: Sequence[FrozenTrial], objectives: Sequence[str], _: Any) -> Iterator[tuple[str, Figure]]:
    """A line for each trial through the parameters that it has, the better the darker."""
    from matplotlib import colormaps

    from straylight.report.figures.style import at_ticks, cut, panels

    names = list(dict.fromkeys(name for trial in trials for name in trial.distributions))[:AXES]
    scales = {name: _Scale(name, trials) for name in names}
    values = np.array([trial.values[0] for trial in trials])
    order = np.argsort(values if not measure(objectives[0]).lower else -values)  # the best last, on top
    figure, (axis,) = panels(1, 1, width=max(5.0, 1.6 * (len(names) + 1)), height=4.0, legend=False)
    colours = colormaps["viridis_r"](np.linspace(0, 1, len(trials)))
    reach, faint = float(np.ptp(values)) or 1.0, min(1.0, max(0.25, 60 / len(trials)))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    for colour, i in zip(colours, order, strict=True):
        own = [(place, scales[name].height(trials[i])) for place, name in enumerate(names) if name in trials[i].params]
        line = np.array([*own, (len(names), (values[i] - values.min()) / reach)])
        axis.plot(*line.T, color=colour, lw=0.8, marker=".", ms=3, alpha=faint)
    for place, name in enumerate(names):
        for text, height in scales[name].ticks():
            axis.text(place, height, f" {cut(text, 14)}", fontsize=7, va="center", bbox=box)
        axis.axvline(place, color="0.7", lw=0.8, zorder=0)
    for text, height in ((f"{values.min():.4g}", 0.0), (f"{values.max():.4g}", 1.0)):
        axis.text(len(names), height, f" {text}", fontsize=7, va="center", bbox=box)
    axis.axvline(len(names), color="0.3", lw=1, zorder=0)
    at_ticks(axis.xaxis, [cut(name, 20) for name in (*names, objectives[0])], rotation=20, ha="right")
    axis.set(yticks=[], ylim=(-0.06, 1.06))
    yield "parallel", figure


def front(trials: Sequence[FrozenTrial], objectives: Sequence[str], study: Any) -> Iterator[tuple[str, Figure]]:
    """Each objective against the first, with the trials that no other beats in all of them."""
    if len(objectives) < 2:
        return
    from straylight.report.figures.style import beside, panels

    best = {trial.number for trial in study.best_trials}
    points = np.array([trial.values for trial in trials])
    chosen = np.array([trial.number in best for trial in trials])
    figure, axes = panels(1, len(objectives) - 1, ruled=True)
    for i, axis in enumerate(axes, start=1):
        axis.plot(*points[~chosen][:, [0, i]].T, "o", color="#BBBBBB", ms=4, label="trial")
        ordered = points[chosen][np.argsort(points[chosen][:, 0])]
        axis.plot(*ordered[:, [0, i]].T, "o", color="#D55E00", ms=5, label="not beaten")
        if len(objectives) == 2:
            axis.step(
                *ordered[:, [0, i]].T,
                where="post" if measure(objectives[0]).lower else "pre",
                color="#D55E00",
                lw=1,
                ls="--",
            )
        axis.set(xlabel=objectives[0], ylabel=objectives[i])
    yield "front", beside(figure, axes[0])


def shared(trials: Sequence[FrozenTrial]) -> set[str]:
    """The parameters that all trials have."""
    return set.intersection(*(set(trial.params) for trial in trials))


class _Scale:
    """Where the values of a parameter lie between 0 and 1."""

    def __init__(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        found: Mapping[Any, Any] = next(trial.distributions for trial in trials if name in trial.distributions)
        self.name, self.of = name, found[name]

    def height(self, trial: FrozenTrial) -> float:
        value = trial.params[self.name]
        if isinstance(self.of, CategoricalDistribution):
            return self.of.choices.index(value) / max(1, len(self.of.choices) - 1)
        low, high, at = self._scaled([self.of.low, self.of.high, value])
        return float((at - low) / ((high - low) or 1.0))

    def ticks(self) -> list[tuple[str, float]]:
        if isinstance(self.of, CategoricalDistribution):
            last = max(1, len(self.of.choices) - 1)
            return [(str(choice), i / last) for i, choice in enumerate(self.of.choices)]
        return [(f"{self.of.low:g}", 0.0), (f"{self.of.high:g}", 1.0)]

    def _scaled(self, values: Sequence[float]) -> NDArray[np.float64]:
        assert isinstance(self.of, FloatDistribution | IntDistribution)
        found = np.asarray(values, np.float64)
        return np.log(found) if self.of.log else found
