"""Which runs would have been chosen without labels, and what each such choice costs on the labels of the test.

The candidates are the detectors and settings of one data set, the mean over seeds of each; what was measured on test
rows says afterwards how good a choice was, and has no part in it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from straylight.keys import key_of, named_by
from straylight.objective import CRITERIA, measure, reached
from straylight.report.leaderboard import Row, Run, grouped, interval
from straylight.report.leading import METRIC, reach
from straylight.report.sheet import Cell, Column, Sheet


class Candidate(NamedTuple):
    """A detector in one configuration on one data set.

    Attributes:
        data, name: as the leaderboard has them; `detector`: of which it is a configuration.
        runs: of all seeds.
        auroc: the mean over them, by the labels of the test; None where nothing was ranked.
        plain: whether no setting of it was typed that not all share.
    """

    data: str
    name: str
    detector: str
    runs: Sequence[Run]
    auroc: float | None
    plain: bool


class Choice(NamedTuple):
    """What a criterion chooses on a data set.

    Attributes:
        data: the data set, with those of its settings that were typed; of one detector alone, with that too.
        criterion: by name.
        chosen: of the candidates; `value`: its criterion.
        candidates: among which it was chosen; `without`: how many there are besides, that do not have it measured.
        best: the largest AUROC of a candidate, by the labels of the test; `median` the median, and `plain` the mean of
            those of which no setting was typed. None without labels.
    """

    data: str
    criterion: str
    chosen: Candidate
    value: float
    candidates: int
    without: int
    best: float | None
    median: float | None
    plain: float | None

    @property
    def regret(self) -> float | None:
        """By how much a candidate is better that only the labels of the test can tell."""
        return None if self.best is None or self.chosen.auroc is None else self.best - self.chosen.auroc


class Cost(NamedTuple):
    """What choosing by a criterion costs over data sets: means, and their 95 % intervals where there are two.

    Attributes:
        criterion: by name.
        sets: how many data sets it rests on.
        regret: see `Choice.regret`; `median`: the AUROC beyond that of the median candidate; `plain`: beyond that of
            the candidates without a setting.
    """

    criterion: str
    sets: int
    regret: Spread
    median: Spread | None
    plain: Spread | None


class Spread(NamedTuple):
    """A mean and its interval."""

    mean: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.fmean(values), interval(values)) if values else None


def measured(results: Iterable[Run]) -> list[str]:
    """The criteria that runs have measured, in the order of the table of criteria."""
    found = {name for run in results for name, value in (run.get("criteria") or {}).items() if value is not None}
    order = {name: place for place, name in enumerate(CRITERIA)}
    known = [name for name in found if "/".join(name.split("/")[:2]) in order]
    return sorted(known, key=lambda name: (order["/".join(name.split("/")[:2])], name))


def choices(results: Sequence[Run], criterion: str) -> list[Choice]:
    """What a criterion chooses on each data set, of two candidates or more.

    A candidate is judged by the mean over its seeds, of which each must have the criterion; of equal ones the first by
    name is taken. Detectors that have read the truth are none.

    Raises:
        ConfigError: if there is no such criterion, or it is measured on test rows.

    Example:
        >>> def run(detector, loss, auroc):
        ...     return {"status": "ok", "data": "blobs", "detector": detector, "variant": detector, "seed": 0,
        ...             "metrics": {"test/auroc": auroc}, "criteria": {"val/separation": loss}}
        >>> (choice,) = choices([run("knn", 0.9, 0.8), run("vae", 0.7, 0.95)], "val/separation")
        >>> choice.chosen.name, round(choice.regret, 2)
        ('knn', 0.15)
    """
    how = measure(criterion, "criterion")
    found = []
    for data, candidates in _units(results, how.within).items():
        values = {c.name: value for c in candidates if (value := _mean(c.runs, criterion)) is not None}
        judged = sorted((c for c in candidates if c.name in values), key=lambda c: c.name)
        if len(judged) < 2:
            continue
        chosen = (min if how.lower else max)(judged, key=lambda c: values[c.name])
        aurocs = [c.auroc for c in judged if c.auroc is not None]
        plain = [c.auroc for c in judged if c.auroc is not None and c.plain]
        found.append(
            Choice(
                data,
                criterion,
                chosen,
                values[chosen.name],
                len(judged),
                len(candidates) - len(judged),
                max(aurocs, default=None),
                statistics.median(aurocs) if aurocs else None,
                statistics.fmean(plain) if plain else None,
            )
        )
    return found


def costs(results: Sequence[Run]) -> list[Cost]:
    """What choosing by each criterion that runs have measured costs over data sets, the least regret first."""
    found = []
    for criterion in measured(results):
        made = [choice for choice in choices(results, criterion) if choice.regret is not None]
        if regret := Spread.of([choice.regret for choice in made if choice.regret is not None]):
            beyond = {
                name: Spread.of([(c.chosen.auroc or 0.0) - v for c in made if (v := getattr(c, name)) is not None])
                for name in ("median", "plain")
            }
            found.append(Cost(criterion, len(made), regret, beyond["median"], beyond["plain"]))
    return sorted(found, key=lambda cost: cost.regret.mean)


def _units(results: Sequence[Run], within: bool) -> dict[str, list[Candidate]]:
    """Candidates by the data set among whose they are, and by the detector too if only its own can be compared."""
    found: dict[tuple[str, ...], list[Candidate]] = {}
    groups = {key: (runs, named_by(runs[0].get("overrides") or [])) for key, runs in grouped(results).items()}
    shared = set.intersection(*(given for _, given in groups.values())) if groups else set()
    for (data, name), (runs, given) in groups.items():
        if any(run.get("truth") for run in runs):
            continue
        asked = [override for override in sorted(given) if key_of(override).startswith("data.")]
        detector = str(runs[0].get("detector"))
        unit = (data, " ".join(asked), *([detector] if within else []))
        own = all(key_of(override).startswith("data.") for override in given - shared)
        found.setdefault(unit, []).append(Candidate(data, name, detector, runs, _of_test(runs), own))
    several = Counter(data for data, _ in {unit[:2] for unit in found})
    return {
        " ".join(filter(None, [unit[0], unit[1] * (several[unit[0]] > 1), *unit[2:]])): candidates
        for unit, candidates in found.items()
    }


def _mean(runs: Sequence[Run], name: str) -> float | None:
    values = [reached(run, name) for run in runs]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _of_test(runs: Sequence[Run]) -> float | None:
    values = [run.get("metrics", {}).get(METRIC) for run in runs]
    return statistics.fmean(values) if all(value is not None for value in values) else None


def asked(results: Sequence[Run]) -> str | None:
    """The criterion that runs were to be judged by, if they have measured it."""
    there = measured(results)
    named = (name for run in results for name in (run.get("objective") or [])[:1])
    return next((name for name in named if name in there), None)


def with_choices(table: Sequence[Row], results: Sequence[Run]) -> list[Row]:
    """The rows of a leaderboard, those marked that the runs' own criterion chooses among two or more."""
    by = asked(results)
    made = {(c.chosen.data, c.chosen.name) for c in choices(results, by)} if by is not None else set()
    return [row._replace(chosen=by or "") if (row.data, row.detector) in made else row for row in table]


# in words


def selected(results: Sequence[Run]) -> Iterator[Sheet | str]:
    """What criteria chose, one by one on a data set alone, by their cost over several."""
    found = costs(results)
    if not found:
        return
    if max(cost.sets for cost in found) > 1:
        yield _of_costs(found)
    else:
        yield _of_choices([choice for cost in found for choice in choices(results, cost.criterion)])
    yield (
        "Each choice was made by validation rows without labels; what it reached on the test was looked up afterwards. "
        "Regret: the AUROC of the best candidate, which nobody could have chosen, less that of the chosen one."
    )


def _of_costs(found: Sequence[Cost]) -> Sheet:
    out = Sheet(
        [
            Column("chosen by", text=True),
            Column("data\nsets", "data sets", 1),
            Column("regret"),
            Column("beyond\nmedian", "beyond median", 2),
            Column("beyond\ndefaults", "beyond defaults", 3),
        ]
    )
    for cost in found:
        out.add_row(cost.criterion, str(cost.sets), *(_said(s) for s in (cost.regret, cost.median, cost.plain)))
    return out


def _of_choices(made: Sequence[Choice]) -> Sheet:
    out = Sheet(
        [
            Column("chosen by", text=True),
            Column("of", "of", 2),
            Column("chosen", text=True),
            Column("AUROC"),
            Column("regret"),
            Column("median", "median", 3),
        ]
    )
    for choice in made:
        chosen = choice.chosen
        width = reach(chosen.runs)
        auroc = chosen.auroc
        limits = None if width is None or auroc is None else (max(0.0, auroc - width), min(1.0, auroc + width))
        shown = "" if auroc is None else _said(Spread(auroc, limits))
        regret, median = ("" if v is None else f"{v:.4f}" for v in (choice.regret, choice.median))
        out.add_row(choice.criterion, str(choice.candidates), chosen.name, shown, regret, median)
    return out


def _said(spread: Spread | None) -> str | Cell:
    if spread is None:
        return ""
    mean = f"{spread.mean:.4f}"
    if spread.interval is None:
        return mean
    low, high = (f"{limit:.4f}" for limit in spread.interval)  # which may be below zero
    return Cell(f"{mean}\n[{low}, {high}]", f"{mean}\n[{low},\n{high}]")
