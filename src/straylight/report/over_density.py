"""What one run measured about a signal region, as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from straylight.report.sheet import Cell, Column, Sheet

Part = Sheet | str
BENT = 0.01  # of the probability of a spectrum, below which a cut is said to bend it
TRUTH_MARK, CHOSEN_MARK = "*", "+"
TRUTH = "has read which events are signal, which nobody knows of real data: a yardstick, and no search"


def marked(detector: str, truth: bool, chosen: str = "") -> str:
    """The name of a detector in a table, with a mark if it has seen the truth, or was chosen by some criterion.

    Example:
        >>> marked("supervised", True), marked("cwola", False), marked("knn", False, "val/separation")
        ('supervised *', 'cwola', 'knn +')
    """
    return f"{detector}{f' {TRUTH_MARK}' * truth}{f' {CHOSEN_MARK}' * bool(chosen)}"


def percent(efficiency: float) -> str:
    """An efficiency as it is said.

    Example:
        >>> percent(1.0), percent(0.1), percent(0.001)
        ('no cut', '10 %', '0.1 %')
    """
    return "no cut" if efficiency == 1 else f"{100 * efficiency:g} %"


def small(p: float, log_p: float | None = None) -> str:
    """A probability; one too small for a number by its logarithm.

    Example:
        >>> small(0.0312), small(2e-9), small(0.0, -1000.0)
        ('0.0312', '2e-09', '1e-434')
    """
    return f"1e{log_p / math.log(10):.0f}" if p == 0 and log_p else f"{p:.3g}"


def excesses(result: Mapping[str, Any]) -> Iterator[Part]:
    """Observed and expected events of the signal region, before and after each cut."""
    cuts: Sequence[Mapping[str, Any]] = (result.get("bump") or {}).get("cuts", [])
    if not cuts:
        return
    found = [cut for cut in cuts if "z" in cut]
    if found:
        out = _sheet("cut keeps", "events", "observed", "expected", "z", "p", "fit", "chi2 / dof")
        for cut in found:
            expected = f"{cut['expected']:,.1f} +- {cut['uncertainty']:,.1f}"
            out.add_row(
                percent(cut["efficiency"]),
                f"{cut['kept']:,}",
                f"{cut['observed']:,}",
                Cell(expected, expected.replace(" +- ", "\n+- ")),
                f"{cut['z']:.2f}",
                small(cut["p"], cut.get("log_p")),
                str(cut.get("function", "")),
                _chi2(cut),
            )
        yield out
    failed: dict[str, list[str]] = {}
    for cut in cuts:
        if "failed" in cut:
            failed.setdefault(cut["failed"], []).append(percent(cut["efficiency"]))
    for said, where in failed.items():
        yield f"{', '.join(where)}: {said}"


def over_density(result: Mapping[str, Any]) -> Iterator[Part]:
    """The optimum, the hunt, how cuts bend the background, and how to read all that."""
    bump = result.get("bump") or {}
    if not bump:
        return
    region = bump.get("resonance") or {}
    if region:
        yield f"signal region: {region['low']:g} <= {region['name']} <= {region['high']:g}"
    if result.get("truth"):
        yield f"{result.get('detector')} {TRUTH}."
    yield from _optimum(result)
    yield from excesses(result)
    yield from _sculpting(bump.get("sculpting", []))
    yield from bump.get("remarks", [])


def _optimum(result: Mapping[str, Any]) -> Iterator[str]:
    metrics, bump = result.get("metrics") or {}, result["bump"]
    if (best := metrics.get("test/max_sic")) is None:
        return
    interval = (result.get("intervals") or {}).get("test/max_sic")
    said = f"largest SIC: {best:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
    if (optimum := metrics.get("test/optimum_max_sic")) is not None:
        said += f", {metrics['test/optimum_fraction']:.2f} of the optimum, {optimum:.2f}"
    if (bias := bump.get("max_sic_bias")) is not None and bias > 0.01 * best:
        said += f"; as the largest of many it lies about {bias:.2g} too high"
    yield f"{said}."


def _sculpting(entries: Sequence[Mapping[str, Any]]) -> Iterator[Part]:
    if not entries:
        return
    out = _sheet("cut keeps", "JSD, bits", "by chance", "chi2 / dof", "p")
    for entry in entries:
        out.add_row(
            percent(entry["efficiency"]),
            f"{entry['jsd']:.2g}",
            f"{entry['chance']:.2g}" if entry.get("chance") is not None else "",
            _chi2(entry),
            small(entry["p"]) if entry["dof"] else "",
        )
    yield out
    bent = [percent(e["efficiency"]) for e in entries if e["dof"] and e["p"] < BENT]
    if bent:
        yield (
            f"The cut at {', '.join(bent)} bends the background in the resonant variable: an excess behind it may be "
            "of the cut's own making."
        )
    else:
        yield "No cut is seen to bend the background in the resonant variable."


def _chi2(entry: Mapping[str, Any]) -> str:
    return f"{entry['chi2']:.1f} / {entry['dof']}" if entry.get("dof") else ""


def _sheet(*headings: str) -> Sheet:
    return Sheet([Column(headings[0], text=True), *(Column(h, narrow=h.replace(" ", "\n")) for h in headings[1:])])
