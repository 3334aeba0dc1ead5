"""Which runs would have been chosen without labels, and what each such choice costs on the labels of the test.

The candidates are the detectors and settings of one data set, the mean over seeds of each; what was measured on test
rows says afterwards how good a choice was, and has no part in it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from straylight.keys import key_of, named_by
from straylight.objective import CRITERIA, criterion, measure, reached
from straylight.report.leaderboard import Row, Run, grouped, interval
from straylight.report.leading import METRIC, limits
from straylight.report.sheet import Cell, Column, Sheet

SENTENCE = (
    "Each choice was made by validation rows without labels; what it reached on the test was looked up afterwards. "
    "Regret: the AUROC of the best candidate, which nobody could have chosen, less that of the chosen one."
)


class Candidate(NamedTuple):
    """A detector in one configuration on one data set.

    Attributes:
        data, name: as the leaderboard has them; `detector`: of which it is a configuration.
        unit: the data set, with those of its settings that were typed where it has several.
        runs: of all seeds.
        auroc: the mean over them, by the labels of the test; None where nothing was ranked.
        plain: whether no setting of it was typed that not all share.
    """

    data: str
    name: str
    detector: str
    unit: str
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

    def beyond(self, other: float | None) -> float | None:
        """The AUROC of the chosen one less another."""
        return None if other is None or self.chosen.auroc is None else self.chosen.auroc - other


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
    regret: Average
    median: Average | None
    plain: Average | None


class Average(NamedTuple):
    """A mean and its interval."""

    mean: float
    interval: tuple[float, float] | None


class Selection:
    """The candidates among runs, and what criteria choose of them.

    A candidate is judged by the mean over its seeds, of which each must have the criterion; of equal ones the first by
    name is taken. Detectors that have read the truth are none.

    Args:
        results: records of runs.

    Attributes:
        measured: the criteria that runs have measured, in the order of the table of criteria.
        asked: the criterion that runs were to be judged by, if they have measured it.

    Example:
        >>> def run(detector, value, auroc):
        ...     return {"status": "ok", "data": "blobs", "detector": detector, "variant": detector, "seed": 0,
        ...             "metrics": {"test/auroc": auroc}, "criteria": {"val/separation": value}}
        >>> (choice,) = Selection([run("knn", 0.9, 0.8), run("vae", 0.7, 0.95)]).choices("val/separation")
        >>> choice.chosen.name, round(choice.regret, 2)
        ('knn', 0.15)
    """

    def __init__(self, results: Sequence[Run]) -> None:
        order = {name: place for place, name in enumerate(CRITERIA)}
        found = {name for run in results for name, value in (run.get("criteria") or {}).items() if value is not None}
        known = [name for name in found if criterion(name) in order]
        self.measured = sorted(known, key=lambda name: (order[criterion(name)], name))
        named = (name for run in results for name in (run.get("objective") or [])[:1])
        self.asked = next((name for name in named if name in found), None)
        self.candidates = _candidates(results)

    def choices(self, by: str) -> list[Choice]:
        """What a criterion or a cost chooses on each data set, of two candidates or more.

        Raises:
            ConfigError: if there is no such measure, or it is of test rows.
        """
        how = measure(by, "criterion")
        units: dict[str, list[Candidate]] = {}
        for one in self.candidates:
            units.setdefault(f"{one.unit} {one.detector}" if how.within else one.unit, []).append(one)
        found = []
        for unit, candidates in units.items():
            values = {c.name: value for c in candidates if (value := _mean(c.runs, by)) is not None}
            judged = sorted((c for c in candidates if c.name in values), key=lambda c: c.name)
            if len(judged) < 2:
                continue
            chosen = (min if how.lower else max)(judged, key=lambda c: values[c.name])
            aurocs = [c.auroc for c in judged if c.auroc is not None]
            plain = [c.auroc for c in judged if c.auroc is not None and c.plain]
            found.append(
                Choice(
                    unit,
                    by,
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

    def costs(self) -> list[Cost]:
        """What choosing by each criterion costs over data sets, the least regret first.

        The unit is a data set: of several choices on one, as of the settings of several detectors, the mean counts.
        """
        found = []
        for by in self.measured:
            made = [choice for choice in self.choices(by) if choice.regret is not None]
            if made and (regret := _over(made, lambda c: c.regret)) is not None:
                beyond = (_over(made, lambda c: c.beyond(c.median)), _over(made, lambda c: c.beyond(c.plain)))
                found.append(Cost(by, len({choice.chosen.data for choice in made}), regret, *beyond))
        return sorted(found, key=lambda cost: cost.regret.mean)

    def marked(self, table: Sequence[Row]) -> list[Row]:
        """The rows of a leaderboard, those marked that the runs' own criterion chooses among two or more."""
        made = {(c.chosen.data, c.chosen.name) for c in self.choices(self.asked)} if self.asked else set()
        return [row._replace(chosen=self.asked or "") if (row.data, row.detector) in made else row for row in table]

    def parts(self) -> list[Sheet | str]:
        """What criteria chose, in words: one by one on a data set alone, by their cost over several."""
        found = self.costs()
        if not found:
            return []
        if max(cost.sets for cost in found) > 1:
            return [_of_costs(found), SENTENCE]
        return [_of_choices([choice for cost in found for choice in self.choices(cost.criterion)]), SENTENCE]


def _candidates(results: Sequence[Run]) -> list[Candidate]:
    groups = {key: (runs, named_by(runs[0].get("overrides") or [])) for key, runs in grouped(results).items()}
    shared = set.intersection(*(given for _, given in groups.values())) if groups else set()
    asked = {key: _of_data(given) for key, (_, given) in groups.items()}
    several = Counter(data for data, _ in {(key[0], of_data) for key, of_data in asked.items()})
    return [
        Candidate(
            data,
            name,
            str(runs[0].get("detector")),
            f"{data} {asked[data, name]}" if several[data] > 1 and asked[data, name] else data,
            runs,
            _of_test(runs),
            all(key_of(override).startswith("data.") for override in given - shared),
        )
        for (data, name), (runs, given) in groups.items()
        if not any(run.get("truth") for run in runs)
    ]


def _of_data(overrides: Iterable[str]) -> str:
    return " ".join(sorted(o for o in overrides if key_of(o).startswith("data.")))


def _mean(runs: Sequence[Run], name: str) -> float | None:
    values = [reached(run, name) for run in runs]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _of_test(runs: Sequence[Run]) -> float | None:
    values = [run.get("metrics", {}).get(METRIC) for run in runs]
    return statistics.fmean(values) if all(value is not None for value in values) else None


def _over(made: Sequence[Choice], value: Callable[[Choice], float | None]) -> Average | None:
    """The mean over data sets, of the mean over what was chosen on each."""
    sets: dict[str, list[float]] = {}
    for choice in made:
        if (one := value(choice)) is not None:
            sets.setdefault(choice.chosen.data, []).append(one)
    means = [statistics.fmean(values) for values in sets.values()]
    return Average(statistics.fmean(means), interval(means)) if means else None


# in words


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
        auroc = chosen.auroc
        shown = "" if auroc is None else _said(Average(auroc, limits(chosen.runs, auroc)))
        regret, median = ("" if v is None else f"{v:.4f}" for v in (choice.regret, choice.median))
        out.add_row(choice.criterion, str(choice.candidates), chosen.name, shown, regret, median)
    return out


def _said(average: Average | None) -> str | Cell:
    if average is None:
        return ""
    mean = f"{average.mean:.4f}"
    if average.interval is None:
        return mean
    low, high = (f"{limit:.4f}" for limit in average.interval)  # which may be below zero
    return Cell(f"{mean}\n[{low}, {high}]", f"{mean}\n[{low},\n{high}]")
