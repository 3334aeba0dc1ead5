"""A run as a notebook shows it: what it is, what it reached, and its strangest rows, in light and in dark."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from straylight.folder import RunFolder
from straylight.report.details import Part, large, latency, overview, thresholds
from straylight.report.over_density import over_density
from straylight.report.sheet import Column, Sheet

STRANGEST = 5  # rows that are shown
WIDEST = 12  # columns of theirs
TEXTS = frozenset({"kind", "file"})  # columns of words


def _latency(result: Mapping[str, Any]) -> Iterator[Part]:
    """Of events in the data's own units, as they come."""
    entries = [entry for entry in result.get("latency", []) if entry.get("scaling", True)]
    yield from latency({**result, "latency": entries})


SECTIONS = {
    "Ranking of test rows": overview,
    "Signal region": over_density,
    "Thresholds": thresholds,
    "Latency": _latency,
}


def of_folder(folder: str | Path) -> str:
    """The card of a run, from what its folder says.

    Example: `of_folder("outputs/runs/2026-11-23_10-00-00-000000")`.
    """
    place = RunFolder(folder)
    listed = place.figures / "extremes.csv"
    rows = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    return card(place.read() or {}, rows, str(place.path))


def card(result: Mapping[str, Any], extremes: str = "", folder: str = "") -> str:
    """HTML of a run, in which nothing that a run says is taken for markup.

    Args:
        result: what `result.json` says.
        extremes: what `extremes.csv` says; empty where rows have no columns.
        folder: of the run, if it has one.

    Example:
        >>> html = card({"status": "ok", "detector": "<b>vae</b>", "data": "mine", "seed": 1})
        >>> "&lt;b&gt;vae&lt;/b&gt; on mine, seed 1" in html
        True
    """
    status = str(result.get("status", "without a result"))
    what = named(result)
    sections = [(heading, parts) for heading, of in SECTIONS.items() if (parts := [*of(result)])]
    if rows := [*_strangest(extremes)]:
        sections.append((f"The {STRANGEST} strangest test rows", rows))
    return _template().render(
        title=f"{what}, seed {result['seed']}" if result.get("seed") is not None else what,
        status=status,
        facts=[*facts(result)],
        folder=folder,
        sections=sections,
        notices=[*filter(None, [result.get("reason")]), *(result.get("notices") or [])],
    )


def named(result: Mapping[str, Any]) -> str:
    """A run by its detector and its data set."""
    return f"{result.get('detector') or 'A run'} on {result.get('data') or 'its data'}"


def facts(result: Mapping[str, Any]) -> Iterator[str]:
    """What a run is, in a few words each."""
    metrics = result.get("metrics") or {}
    for key, what in (("test/nominal", "nominal"), ("test/anomalous", "anomalous")):
        if metrics.get(key) is not None:
            yield f"{large(metrics[key])} {what} test rows"
    if result.get("parameters"):
        yield f"{large(result['parameters'])} parameters"
    if (best := result.get("best_epoch")) is not None and best >= 0 and result.get("epochs"):
        yield f"epoch {best} of {result['epochs']}"
    elif result.get("epochs"):
        yield f"{result['epochs']} epochs"
    if result.get("duration_s") is not None:
        yield f"{result['duration_s']:.1f} s"
    if result.get("device"):
        yield str(result["device"])


def _strangest(extremes: str) -> Iterator[Part]:
    """The first rows of `extremes.csv`, with as many of their columns as have room."""
    lines = [line for line in csv.DictReader(extremes.splitlines()) if line.get("end") == "strangest"][:STRANGEST]
    if not lines:
        return
    names = [name for name in lines[0] if name not in ("end", "rank")]
    shown = names[:WIDEST]
    sheet = Sheet([Column(name, text=name in TEXTS) for name in shown])
    for line in lines:
        sheet.add_row(*(_short(line[name]) for name in shown))
    yield sheet
    if names[WIDEST:]:
        yield f"and {len(names) - WIDEST:,} more columns"


def _short(text: str | None) -> str:
    """A number to six digits; other texts as they are."""
    if not text:
        return ""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.6g}"
    except ValueError:
        return text


@cache
def _template() -> Any:
    from jinja2 import Environment

    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(files(__package__).joinpath("card.html").read_text(encoding="utf-8"))
