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
from straylight.result import finished, outcome
from straylight.runtimes import BEST, shared, timing

NOT_RESOLVABLE = "n.r."  # in a table
RANKED = ("auroc", "ap")  # whose means over seeds have 95 % intervals
FPRS = ("0.1", "0.01", "0.001", "0.0001", "1e-05", "1e-06")
POINTS = tuple(f"tpr@fpr={fpr}" for fpr in FPRS)
TIMED = {"p50_us": 1, "events_per_s": 1024}  # and the batch that each is of
NUMBERS = (*RANKED, *POINTS, *TIMED, "parameters", "duration_s")
PARTS, ENDS = ("mean", "min", "max"), ("low", "high")
#: Of `leaderboard.csv`.
COLUMNS = (
    *("data", "detector", "seeds"),
    *(f"{name}_{part}" for name in NUMBERS for part in PARTS),
    *(f"{name}_{end}" for name in RANKED for end in ENDS),
    *(f"{name}_resolvable" for name in POINTS),
    *(f"{name}_runtime" for name in TIMED),
    *("shared", "truth", "chosen", "status", "reason", "overrides", "folder"),
)


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
    """One detector, in one configuration, on one data set.

    Attributes:
        intervals: of the means over seeds, where there are two.
        widths: of a metric's interval over a run's own test rows, the widest of those that are known.
        runtimes: what `p50_us` and `events_per_s` were timed in, such as `onnx`.
        shared: whether others used the machine while one of the runs was timed.
        truth: whether the detector has read which events are signal, which nobody knows of real data.
        chosen: by which criterion of validation it is chosen among those of its data set, see `report.selection`.
    """

    data: str
    detector: str
    seeds: int
    numbers: Mapping[str, Spread]
    intervals: Mapping[str, tuple[float, float]] = MappingProxyType({})
    widths: Mapping[str, float] = MappingProxyType({})
    runtimes: Mapping[str, str] = MappingProxyType({})
    shared: bool = False
    truth: bool = False
    chosen: str = ""


Run = Mapping[str, Any]
Groups = Mapping[tuple[str, str], Sequence[Run]]  # by data set and detector, the runs of all seeds


def grouped(results: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Finished runs by data set and detector, those together whose configs differ in the seed alone.

    Runs of one detector in several configurations are told apart by the overrides that not all of them share.
    """
    groups: dict[tuple[str, str, str], dict[Any, Run]] = {}
    for result in results:
        if finished(result):
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


def rows(results: Iterable[Run], runtime: str = BEST) -> list[Row]:
    """A row for each group of runs, see `grouped`, best mean AUROC first on each data set.

    Args:
        runtime: whose latency and throughput it has, one of `straylight.runtimes`; by default of each detector
            the fastest.
    """
    table = [_row(data, name, runs, runtime) for (data, name), runs in grouped(results).items()]
    return sorted(table, key=lambda row: (row.data, -(row.numbers["auroc"].mean or 0)))


def _row(data: str, name: str, runs: Sequence[Run], runtime: str) -> Row:
    timed = {key: timing(runs, batch, key, runtime) for key, batch in TIMED.items()}
    numbers = {**_numbers(runs), **{key: Spread.of(found.values) for key, found in timed.items()}}
    return Row(
        data,
        name,
        len(runs),
        {key: numbers[key] for key in NUMBERS},
        _intervals(runs),
        _widths(runs),
        {key: found.runtime for key, found in timed.items() if found.runtime},
        any(map(shared, runs)),
        any(run.get("truth") for run in runs),
    )


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


def _intervals(runs: Sequence[Run]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in RANKED:
        values = known(runs, f"test/{name}")
        if len(values) == len(runs) and (limits := interval(values)):
            found[name] = limits
    return found


def _widths(runs: Sequence[Run]) -> dict[str, float]:
    found: dict[str, float] = {}
    for run in runs:
        for name in (*RANKED, *POINTS):
            if limits := (run.get("intervals") or {}).get(f"test/{name}"):
                found[name] = max(found.get(name, 0.0), limits[1] - limits[0])
    return found


def _numbers(runs: Sequence[Run]) -> dict[str, Spread]:
    def over(get: Any) -> Spread:
        return Spread.of(get(run) for run in runs)

    return {
        **{name: over(lambda run, name=name: run.get("metrics", {}).get(f"test/{name}")) for name in RANKED},
        **{f"tpr@fpr={fpr}": over(lambda run, fpr=fpr: _resolved(run.get("metrics", {}), fpr)) for fpr in FPRS},
        "parameters": over(lambda run: run.get("parameters")),
        "duration_s": over(lambda run: run.get("duration_s")),
    }


def of_kinds(runs: Sequence[Run]) -> dict[str, dict[str, Spread]]:
    """Numbers of each kind of anomaly that all of these runs have, by kind: AUROC, AP, and TPRs that are resolvable."""
    kinds = dict.fromkeys(
        name.removeprefix("test/auroc/")
        for run in runs
        for name in run.get("metrics", {})
        if name.startswith("test/auroc/")
    )
    found = {}
    for kind in kinds:
        numbers = {
            name: Spread.of(run.get("metrics", {}).get(f"test/{name}/{kind}") for run in runs) for name in RANKED
        }
        for fpr in FPRS:
            values = (_resolved(run.get("metrics", {}), fpr, f"/{kind}") for run in runs)
            numbers[f"tpr@fpr={fpr}"] = Spread.of(values)
        found[kind] = numbers
    return found


def _resolved(metrics: Mapping[str, Any], fpr: str, kind: str = "") -> float | None:
    enough = metrics.get(f"test/nominal_above@fpr={fpr}", 0) >= RESOLVABLE
    return metrics.get(f"test/tpr@fpr={fpr}{kind}") if enough else None


def write_csv(table: list[Row], results: Iterable[Run], path: Path) -> None:
    """`leaderboard.csv`: mean, least and largest of every number, and 95 % intervals of the means of two seeds.

    A column of numbers holds numbers alone, and nothing where there is none. Beside them: `POINT_resolvable` says
    whether a working point can be resolved, `p50_us_runtime` and `events_per_s_runtime` what was timed, `shared`
    whether others used the machine meanwhile, `truth` whether the detector has read which events are signal, `chosen`
    by which criterion of validation it is chosen. Below the rows of runs that ended well, each other run has one with
    its detector and its `status`, `reason`, `overrides` and `folder`.
    """
    written: Any = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}  # a folder may have any bytes
    with replacing(path, durable=False) as aside, aside.open("w", **written) as file:
        lines = [*(_cells(row) for row in table), *(_ended(run, path) for run in results if not finished(run))]
        out = csv.DictWriter(file, COLUMNS, restval="")
        out.writeheader()
        out.writerows(lines)


def _cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {"data": row.data, "detector": row.detector, "seeds": row.seeds, "status": "ok"}
    cells |= {"truth": _said(row.truth), "chosen": row.chosen}
    for name, spread in row.numbers.items():
        for part, value in zip(PARTS, spread, strict=True):
            cells[f"{name}_{part}"] = "" if value is None else repr(value)
    for name, limits in row.intervals.items():
        cells |= {f"{name}_{end}": repr(limit) for end, limit in zip(ENDS, limits, strict=True)}
    if row.numbers["auroc"].mean is not None:
        cells |= {f"{name}_resolvable": _said(row.numbers[name].mean is not None) for name in POINTS}
    cells |= {f"{name}_runtime": runtime for name, runtime in row.runtimes.items()}
    return cells | {"shared": _said(row.shared)} if row.runtimes else cells


def _ended(run: Run, path: Path) -> dict[str, Any]:
    return {
        "data": run.get("data") or "",
        "detector": run.get("detector") or "",
        "seeds": 0,
        "status": outcome(run),
        "reason": run.get("reason") or "",
        "overrides": " ".join(sorted(_overrides({0: run}))),
        "folder": os.path.relpath(run["folder"], path.parent),
    }


def _said(it_is: bool) -> str:
    return "true" if it_is else "false"
