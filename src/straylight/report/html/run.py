"""The page of one run: what it reached, a slider over its threshold, its figures, its strangest events, its config."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from straylight.documents import read_yaml
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.report import details, own
from straylight.report.card import facts, named
from straylight.report.choice import NAMES
from straylight.report.html.dial import as_data, dial, marks
from straylight.report.html.drawn import Drawn, drawn, picture
from straylight.report.html.page import write
from straylight.report.html.sweep import conditions
from straylight.report.html.tables import Table, of
from straylight.report.kept import Kept
from straylight.report.over_density import over_density
from straylight.report.strangest import strangest

LISTED = 25  # of the strangest events
ROOM = 4_000_000  # bytes of pictures
COUNTED = "All of {} events are counted."
THINNED = "Of {} events; at most 800 points along each axis are drawn, all of them of the curve itself."
NOTES = {"scores": COUNTED, "roc": THINNED, "precision_recall": THINNED, "significance": THINNED, "p_values": THINNED}
MANY = 5_000  # events, from which on that is said
Numbers = Mapping[str, Any]


class Setting(NamedTuple):
    """A key of the config, its value, and the default where it is another."""

    key: str
    value: str
    default: str | None


class RunPage:
    """The page of a run's folder.

    Args:
        folder: of the run.
        path: of the page.
        defaults: the config as it would be without overrides; None where that is not known.
    """

    def __init__(self, folder: Path, path: Path, defaults: Numbers | None = None) -> None:
        self.place, self.path, self.defaults = RunFolder(folder), path, defaults
        self.result: Any = self.place.read() or {"status": "without a result"}
        self.missing: list[str] = []

    def write(self) -> None:
        """Write it; what cannot be shown is named on it."""
        kept = self._try("the scores", self._kept)
        shown = None if kept is None else self._try("the slider", lambda: dial(kept))
        figures, lines = self._figures(kept, shown)
        listed = self._try("the strangest events", lambda: [*of(strangest(self.place.path, LISTED))]) or []
        settings = self._try("the config", self._settings) or []
        sections = {
            "reached": "What it reached",
            "thresholds": "Thresholds",
            "figures": "Figures",
            "strangest": "The strangest events",
            "cost": "Speed and cost",
            "config": "Config",
            "made-by": "How it was made",
        }
        there = {
            "thresholds": bool(self.result.get("thresholds")) or shown is not None,
            "figures": bool(figures),
            "strangest": bool(listed),
            "config": bool(settings),
        }
        data = {} if shown is None or kept is None else as_data(shown, lines, _largest(kept))
        write(
            self.path,
            "run.html",
            f"{named(self.result)}, seed {self.result.get('seed')}",
            {
                "facts": [str(self.result["status"]), *facts(self.result)],
                "sections": [(key, heading) for key, heading in sections.items() if there.get(key, True)],
                "reason": self.result.get("reason"),
                "notices": self.result.get("notices") or [],
                "reached": self._parts(
                    details.ranking, over_density, details.by_epoch, details.density, details.criteria
                ),
                "thresholds": self._parts(details.thresholds, details.decisions),
                "dial": shown,
                "figures": figures,
                "drawn": any(shown.is_picture for shown in figures),
                "strangest": listed,
                "cost": self._parts(details.latency, details.cost, details.layers),
                "settings": [setting for setting in settings if setting.default is None],
                "changed": [setting for setting in settings if setting.default is not None],
                "compared": self.defaults is not None,
                "command": str(self.result.get("command") or ""),
                "folder": self.place.path.resolve().name,
                "conditions": [*conditions([self.result])],
                "missing": self.missing,
                "data": _script(data),
            },
        )

    def _kept(self) -> Kept | None:
        return Kept.of(self.place, self.result) if self.place.scores.is_file() else None

    def _parts(self, *parts: Callable[[Numbers], Iterator[details.Part]]) -> list[Table | str]:
        """Tables and sentences of the console; one that cannot be made costs no other."""
        found: list[Table | str] = []
        for part in parts:
            self._try(part.__name__.replace("_", " "), lambda part=part: found.extend(of(part(self.result))))  # type: ignore[misc]
        return found

    def _figures(self, kept: Kept | None, shown: Any) -> tuple[list[Drawn], list[Any]]:
        """Those of scores drawn, those of events as the run has drawn them, and where thresholds stand in one."""
        found: list[Drawn] = []
        lines: list[Any] = []
        room = ROOM
        for name in NAMES:
            said = own.SAID[name]
            there = self.place.figures / f"{name}.png"
            draws = own.DRAWINGS.get(name)
            if draws is not None and kept is not None:
                figure = self._try(f"the figure {name}", lambda draws=draws: draws(kept))  # type: ignore[misc]
                if figure is None:
                    continue
                made = self._try(f"the figure {name}", lambda: drawn(figure, _key(name), *said))  # noqa: B023
                if made is None:
                    continue
                if name == "scores" and shown is not None:
                    lines = marks(figure, shown.thresholds)
                if len(kept.scores) > MANY and name in NOTES:
                    made.note = NOTES[name].format(f"{len(kept.scores):,}")
                found.append(made)
            elif there.is_file() and (draws is None or kept is None):
                size = there.stat().st_size
                if size > room:
                    self.missing.append(f"{there.name} is too large for the page ({size / 1e6:.1f} MB)")
                    continue
                room -= size
                found.append(picture(there, _key(name), *said))
        return found, lines

    def _settings(self) -> list[Setting]:
        """The config, key by key."""
        if not self.place.config.is_file():
            return []
        now = _flat(read_yaml(self.place.config))
        before = None if self.defaults is None else _flat(self.defaults)
        found = []
        for key, value in now.items():
            default = None if before is None or before.get(key) == value else before.get(key, "not there")
            found.append(Setting(key, value, default))
        return found

    def _try(self, what: str, made: Callable[[], Any]) -> Any:
        """What is made; None where that fails, which the page says."""
        try:
            return made()
        except Exception as error:  # of files that others wrote: as many sorts as there are
            said = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            self.missing.append(f"{what} cannot be shown: {' '.join(said.split())}")
            return None


def _largest(kept: Kept) -> list[float]:
    """The scores of the events that are listed, in their order."""
    return np.sort(kept.scores[~np.isnan(kept.scores)])[::-1][:LISTED].astype(float).tolist()


def _key(name: str) -> str:
    return name.replace("_", "")


def _flat(config: Any, key: str = "") -> dict[str, str]:
    """Every leaf of a config as text, by its key."""
    if isinstance(config, Mapping) and config:
        parts = [_flat(value, f"{key}.{name}" if key else str(name)) for name, value in config.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {key: json.dumps(config, ensure_ascii=False, default=str)}


def _script(data: Numbers) -> Markup:
    """JSON that may stand in a script element: nothing in it can end it."""
    text = json.dumps(data, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
