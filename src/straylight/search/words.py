"""What a search says in the end."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial, TrialState

from straylight.objective import reached
from straylight.search.search import Search

ENDED = {
    TrialState.COMPLETE: "reached a value",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "to be gone on with",
}
FRONT = 10  # trials of a front that are named


def found(search: Search, options: Sequence[str] = ()) -> Iterator[str]:
    """How the trials ended; the best one, what it takes to train it again, and where it is; of several objectives the
    front that no trial beats in all of them.

    Args:
        search: that is over, or was interrupted.
        options: of the command, which one that trains a trial again needs, too.
    """
    trials = search.study.get_trials(deepcopy=False)
    count = Counter(ENDED.get(trial.state, "waiting") for trial in trials)
    counted = [f"{len(trials)} trial{'s' * (len(trials) != 1)}", *(f"{number} {how}" for how, number in count.items())]
    yield f"\nSearch for {', '.join(search.objectives)}: {', '.join(counted)}."
    best = search.best
    if best is not None:
        yield f"Best: {_said(search, best, options)}"
        yield from _confirmed(search)
    elif len(search.objectives) > 1 and TrialState.COMPLETE in {trial.state for trial in trials}:
        front = sorted(search.study.best_trials, key=lambda trial: trial.values)
        yield f"No trial beats {'this one' if len(front) == 1 else f'these {len(front)}'} in all objectives:"
        for trial in front[:FRONT]:
            yield f"* {_said(search, trial, options)}"


def _said(search: Search, trial: FrozenTrial, options: Sequence[str]) -> str:
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(search.objectives, trial.values, strict=True))
    place = search.folder.path / str(trial.user_attrs.get("folder", trial.number))
    command = shlex.join(["straylight", "train", *options, *search.overrides(trial)])
    return f"#{trial.number} reached {values} ({place})\n  {command}"


def _confirmed(search: Search) -> Iterator[str]:
    name = search.objectives[0]
    known = [reached(result, name) for result in search.confirmed.values() if result.get("status") == "ok"]
    values = [value for value in known if value is not None and math.isfinite(value)]
    if values:
        seeds = f"{len(values)} fresh seed{'s' * (len(values) > 1)}"
        yield f"With {seeds}: {name} {spread(values)}, which is what to report: the best of many is flattered."
    if len(values) < len(search.confirmed):
        yield f"{len(search.confirmed) - len(values)} of {len(search.confirmed)} fresh seeds reached no {name}."


def spread(values: Sequence[float]) -> str:
    """A mean with its range.

    Example:
        >>> spread([1.0, 2.0]), spread([1.0])
        ('1.5 (1 to 2)', '1')
    """
    mean = math.fsum(values) / len(values)
    return f"{mean:.6g} ({min(values):.6g} to {max(values):.6g})" if len(values) > 1 else f"{mean:.6g}"
