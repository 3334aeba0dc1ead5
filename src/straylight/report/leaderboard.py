"""The leaderboard: a row for each detector on each data set, mean and range over its seeds."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from straylight.atomic import replacing
from straylight.keys import named_by
from straylight.metrics.ranking import RESOLVABLE

NOT_RESOLVABLE = "n.r."
RANKED = ("auroc", "ap")  # whose means over seeds have 95 % intervals
FPRS = ("0.1", "0.01", "0.001", "0.0001", "1e-05", "1e-06")


class Spread(NamedTuple):
    """Mean, least and largest of a number over seeds; without values it is not resolvable."""

    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        known = list(values)
        if not known or any(v is None for v in known):
            return cls(None, None, None)
        numbers = [float(v) for v in known if v is not None]
        return cls(sum(numbers) / len(numbers), min(numbers), max(numbers))


class Row(NamedTuple):
    """One detector, in one configuration, on one data set; `intervals` of the means over seeds, where there are two."""

    data: str
    detector: str
    seeds: int
    numbers: Mapping[str, Spread]
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({})


Run = Mapping[str, Any]
Groups = Mapping[tuple[str, str], Sequence[Run]]  # by data set and detector, the runs of all seeds


def grouped(results: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Finished runs by data set and detector, those together whose configs differ in the seed alone.

    Runs of one detector in several configurations are told apart by the overrides that not all of them share.
    """
    groups: dict[tuple[str, str, str], dict[Any, Run]] = {}
    for result in results:
        if result["status"] == "ok":
            key = (str(result.get("data")), str(result.get("detector")), str(result.get("variant")))
            groups.setdefault(key, {})[result.get("seed")] = result  # a seed that was run twice counts once
    named = _names(groups)
    return {(key[0], named[key]): list(runs.values()) for key, runs in groups.items()}


def known(runs: Iterable[Run], metric: str) -> list[float]:
    """A metric of those runs that have it."""
    return [value for run in runs if (value := run.get("metrics", {}).get(metric)) is not None]


def means(groups: Groups, metric: str) -> dict[tuple[str, str], float]:
    """Of a metric over the seeds of each group, where all of them have it."""
    found = {key: known(runs, metric) for key, runs in groups.items()}
    return {key: sum(vs) / len(vs) for key, vs in found.items() if vs and len(vs) == len(groups[key])}


def rows(results: Iterable[Run]) -> list[Row]:
    """A row for each group of runs, see `grouped`, best mean AUROC first on each data set."""
    table = [
        Row(data, name, len(runs), _numbers(runs), _intervals(runs)) for (data, name), runs in grouped(results).items()
    ]
    return sorted(table, key=lambda row: (row.data, -(row.numbers["auroc"].mean or 0)))


def _names(groups: Mapping[tuple[str, str, str], Mapping[Any, Run]]) -> dict[tuple[str, str, str], str]:
    """A detector's name; where it was run in several configurations, with what tells them apart, alike on all data."""
    own = {key: _overrides(runs) for key, runs in groups.items()}
    several = {detector for (_, detector), n in Counter(key[:2] for key in groups).items() if n > 1}
    names = {}
    for key in groups:
        always = set.intersection(*(own[k] for k in groups if k[1] == key[1]))
        here = set.intersection(*(own[k] for k in groups if k[:2] == key[:2]))
        extra = sorted(o for o in own[key] - always if not (o.startswith("data.") and o in here))
        names[key] = f"{key[1]} {' '.join(extra) or '(default)'}" if key[1] in several else key[1]
    # equal overrides, yet another config: of the user's own folder, or of an earlier version
    count = Counter((key[0], name) for key, name in names.items())
    return {key: f"{name} [{key[2][:6]}]" if count[key[0], name] > 1 else name for key, name in names.items()}


def _overrides(runs: Mapping[Any, Run]) -> set[str]:
    return named_by(next(iter(runs.values())).get("overrides", []))


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Of the mean of several seeds by Student's t; None of fewer than two. Assumes roughly normal values.

    Example:
        >>> low, high = interval([0.8, 0.9, 1.0])
        >>> round(low, 3), round(high, 3)
        (0.652, 1.148)
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return mean - reach, mean + reach


def _intervals(runs: list[Run]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in RANKED:
        values = known(runs, f"test/{name}")
        if len(values) == len(runs) and (limits := interval(values)):
            found[name] = limits
    return found


def _numbers(runs: list[Run]) -> dict[str, Spread]:
    def over(get: Any) -> Spread:
        return Spread.of(get(run) for run in runs)

    return {
        **{name: over(lambda run, name=name: run.get("metrics", {}).get(f"test/{name}")) for name in RANKED},
        **{f"tpr@fpr={fpr}": over(lambda run, fpr=fpr: _resolved(run.get("metrics", {}), fpr)) for fpr in FPRS},
        "p50_us": over(lambda run: _timing(run, 1, "p50_us")),
        "events_per_s": over(lambda run: _timing(run, 1024, "events_per_s")),
        "parameters": over(lambda run: run.get("parameters")),
        "duration_s": over(lambda run: run.get("duration_s")),
    }


def _resolved(metrics: Mapping[str, Any], fpr: str) -> float | None:
    enough = metrics.get(f"test/nominal_above@fpr={fpr}", 0) >= RESOLVABLE
    return metrics.get(f"test/tpr@fpr={fpr}") if enough else None


def _timing(run: Run, batch: int, key: str) -> float | None:
    own = (e for e in run.get("latency", []) if e["runtime"] != "onnx" and e.get("scaling", True))
    return next((e.get(key) for e in own if e["batch"] == batch), None)


def write_csv(table: list[Row], results: Iterable[Run], path: Path) -> None:
    """`leaderboard.csv`: mean, least and largest of every number, intervals of the means of two.

    `n.r.` stands where a working point is not resolvable. Below the rows of runs that ended well, each other run has
    one with its `status`, `reason` and `folder`.
    """
    names = list(_numbers([]))
    with replacing(path, durable=False) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        spreads = [f"{name}_{part}" for name in names for part in ("mean", "min", "max")]
        intervals = [f"{name}_{end}" for name in RANKED for end in ("low", "high")]
        out.writerow(["data", "detector", "seeds", *spreads, *intervals, "status", "reason", "folder"])
        for row in table:
            ranked = row.numbers["auroc"].mean is not None
            cells = [
                (NOT_RESOLVABLE if ranked and name.startswith("tpr") else "") if value is None else repr(value)
                for name in names
                for value in row.numbers[name]
            ]
            limits = [limit for name in RANKED for limit in row.intervals.get(name, ("", ""))]
            out.writerow([row.data, row.detector, row.seeds, *cells, *limits, "ok", "", ""])
        empty = [""] * (len(spreads) + len(intervals))
        for run in results:
            if run["status"] != "ok":
                what = " ".join([str(run.get("detector")), *sorted(_overrides({0: run}))])
                inside = os.path.relpath(run["folder"], path.parent)
                out.writerow([run.get("data"), what, 0, *empty, run["status"], run.get("reason") or "", inside])
