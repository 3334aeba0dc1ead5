"""A scan of signal regions: how odd the most significant of them is, given that several were looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from straylight.keys import key_of, named_by
from straylight.metrics.bump import Excess, global_excess
from straylight.report.over_density import marked, percent, small
from straylight.report.sheet import Column, Sheet

REGION = "data.signal_region"
SENTENCE = (
    "Global: the probability that any of so many independent regions looks as odd (1 - (1 - p)^regions); for regions "
    "that overlap it is an upper bound. Cuts of several efficiencies are not counted: decide on one beforehand."
)


class Scan(NamedTuple):
    """Runs that differ in the signal region alone, after a cut of one efficiency.

    Attributes:
        data, detector, seed: of the runs; `truth` whether the detector has seen what is signal.
        efficiency: of the cut; 1 before it.
        regions: looked at, those of them in which nothing could be fitted left out.
        region: the limits of that with the smallest p-value.
        z, p: of that.
        global_z, global_p: of the scan.
    """

    data: str
    detector: str
    seed: Any
    truth: bool
    efficiency: float
    regions: int
    region: tuple[float, float]
    z: float
    p: float
    global_z: float
    global_p: float


def scans(results: Iterable[Mapping[str, Any]]) -> list[Scan]:
    """The scans among finished runs: those of one data set, detector, seed and further settings, in several regions."""
    groups: dict[Any, dict[tuple[float, float], Mapping[str, Any]]] = {}
    for result in results:
        bump = result.get("bump") or {}
        if result["status"] != "ok" or not bump.get("cuts") or not (region := bump.get("resonance")):
            continue
        others = frozenset(o for o in named_by(result.get("overrides", [])) if key_of(o) != REGION)
        key = (str(result.get("data")), str(result.get("detector")), result.get("seed"), others)
        groups.setdefault(key, {})[region["low"], region["high"]] = result
    found = []
    for (data, detector, seed, others), runs in groups.items():
        if len(runs) < 2:
            continue
        shared = frozenset.intersection(*(key[3] for key in groups if key[1] == detector))
        name = " ".join([detector, *sorted(others - shared)])
        truth = any(run.get("truth") for run in runs.values())
        for efficiency, (looks, region, best) in _smallest(runs).items():
            overall = global_excess(best, looks)
            found.append(
                Scan(*(data, name, seed, truth, efficiency, looks, region), *(best.z, best.p, overall.z, overall.p))
            )
    return sorted(found, key=lambda scan: (scan.data, scan.detector, str(scan.seed), -scan.efficiency))


def _smallest(
    runs: Mapping[tuple[float, float], Mapping[str, Any]],
) -> dict[float, tuple[int, tuple[float, float], Excess]]:
    """By efficiency, the number of regions, and the one of the smallest p-value with its excess."""
    found: dict[float, tuple[int, tuple[float, float], Excess]] = {}
    for region, run in runs.items():
        for cut in run["bump"]["cuts"]:
            if "z" not in cut:
                continue
            log_p = cut.get("log_p") if cut.get("log_p") is not None else math.log(max(cut["p"], 1e-300))
            here = Excess(cut["p"], log_p, cut["z"])
            looks, best, least = found.get(cut["efficiency"], (0, region, here))
            if here.log_p < least.log_p:
                best, least = region, here
            found[cut["efficiency"]] = looks + 1, best, least
    return found


def sheet(found: Iterable[Scan]) -> Sheet:
    """A table of scans."""
    headings = ("seed", "cut keeps", "regions", "smallest p in", "p", "z", "global p", "global z")
    out = Sheet([Column("detector", text=True), *(Column(h, narrow=h.replace(" ", "\n")) for h in headings)])
    for scan in found:
        out.add_row(
            marked(scan.detector, scan.truth),
            str(scan.seed),
            percent(scan.efficiency),
            str(scan.regions),
            f"{scan.region[0]:g} to {scan.region[1]:g}",
            small(scan.p),
            f"{scan.z:.2f}",
            small(scan.global_p),
            f"{scan.global_z:.2f}",
        )
    return out
