"""The trigger of an LHC experiment: background and signals of the ADC2021 challenge."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from straylight import checks
from straylight.data.particles import FEATURES, PARTICLES, particles
from straylight.data.steps.splits import nominal_only
from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped

SHAPES = {"flat": (57,), "particles": (19, 3), "image": (1, 19, 3)}
SIGNALS = {
    "leptoquark": "leptoquark_LOWMASS_lepFilter_13TeV.h5",
    "a_to_4l": "Ato4l_lepFilter_13TeV.h5",
    "h0_to_tautau": "hToTauTau_13TeV_PU20.h5",
    "hplus_to_taunu": "hChToTauNu_13TeV_PU20.h5",
}
RECORD = "https://zenodo.org/records/5046389/files"


class ADC2021(Stored):
    """Missing transverse energy, 4 electrons, 4 muons and 10 jets of an event, and up to four signals.

    Each particle is pT [GeV], eta and phi, the particles of a kind ordered by pT, empty slots zero. Background trains,
    validates and tests, 64/16/20 by seed; all of each signal is tested, each a kind of its own. Events of one `Group`,
    which share a parent at parton level, stay on one side. Files that were split and flattened before keep their
    splits. Files are read once and then memory-mapped, see `straylight.data.particles`.

    The published files have no `Group`; where the background has one, the data are a simulation in their layout, are
    called `adc2021_standin` wherever results stand, and are no measure of what a detector reaches on ADC2021.

    References:
        E. Govorkova et al., LHC physics dataset for unsupervised New Physics detection at 40 MHz, Sci. Data 9 (2022)
        118, arXiv:2107.02157

    Args:
        root: the folder of the files.
        background: the background's file.
        signals: the signals' files by kind; the challenge's four, if left out. One ending in `_filtered.h5`, as the
            published ones do, is found too.
        use: the signals to test, in this order; all, if left out.
        max_events: of each file, drawn by seed; `None` takes all.
        layout: `flat` (57,), `particles` (19, 3) or `image` (1, 19, 3).
        common: see `Stored`.

    Raises:
        DataError: if a file is missing, damaged, or of another layout, or a signal is not among those named.
    """

    # no checksum is known, and of the signals' files no address
    remotes = (Remote(f"{RECORD}/background_for_training.h5", "background_for_training.h5", None),)

    def __init__(
        self,
        *,
        root: str,
        background: str = "background_for_training.h5",
        signals: Mapping[str, str] | None = None,
        use: Sequence[str] | None = None,
        max_events: int | None = None,
        layout: Literal["flat", "particles", "image"] = "flat",
        train_fraction: float = 0.8,
        val_fraction: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(root=root, train_fraction=train_fraction, val_fraction=val_fraction, **common)
        self.background, self.signals = background, dict(SIGNALS if signals is None else signals)
        checks.counts("data", also="null", max_events=max_events)
        if unknown := [kind for kind in use or () if kind not in self.signals]:
            raise DataError(f"data.use names {unknown[0]!r}, but the signals are {', '.join(self.signals)}.")
        self.used = list(dict.fromkeys(self.signals if use is None else use))
        self.max_events, self.layout = max_events, layout
        self.kinds = ("nominal", *self.used)
        self.columns = [f"{particle} {feature}" for particle in PARTICLES for feature in FEATURES]
        self._standin = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return "adc2021_standin" if self._standin else "adc2021"

    def files(self) -> list[Path]:
        return [self._file(self.background), *(self._file(self.signals[kind]) for kind in self.used)]

    def load(self) -> Splits:
        self.require()
        first, *others = self.files()
        background, signals = self._some(first), [self._some(path) for path in others]
        self._standin = any("group" in events.meta for events in background.values())
        if self._standin:
            self.notice("a simulation in the layout of ADC2021: results on it are not ADC2021 results.")
        strange = [self._labelled(events, kind) for kind, parts in enumerate(signals, 1) for events in parts.values()]
        if "all" in background:
            return self.split(Events.cat(*_grouped([background["all"], *strange])))
        if absent := [part for part in ("train", "val", "test") if part not in background]:
            raise DataError(f"{first} was split before, but holds no X_{absent[0]}.")
        train, val, test = (background[part] for part in ("train", "val", "test"))
        if not strange:
            return Splits(train, val, test, test.take([]))
        signal = Events.cat(*_grouped(strange))
        places = nominal_only(signal.y, seed=self.seed, reserve=self.reserve_fraction, group=signal.meta.get("group"))
        aside = places.of(signal)
        return Splits(train, val, Events.cat(test, aside.test), aside.reserve)

    def _labelled(self, events: Events, kind: int) -> Events:
        y = torch.tensor([kind], dtype=torch.int8).expand(len(events))
        meta = {**events.meta, "process": np.full(len(events), -1, np.int8)} if self._standin else events.meta
        return replace(events, y=y, meta=meta)

    def _some(self, path: Path) -> dict[str, Events]:
        """The events of a file by their part, in the layout asked for, and as many as are wanted."""
        found = particles(path)
        ends = np.cumsum([len(events) for events in found.values()])
        for (part, events), end in zip(found.items(), ends.tolist(), strict=True):
            assert isinstance(events.x, Mapped)
            events = replace(events, x=Mapped([s.view(-1, *SHAPES[self.layout]) for s in events.x.sources]))
            if self.max_events is not None and ends[-1] > self.max_events:  # each part has its share of them
                low, high = (n * self.max_events // int(ends[-1]) for n in (end - len(events), end))
                order = np.random.default_rng([self.seed, 4]).permutation(len(events))
                events = events.take(np.sort(order[: high - low]))
            found[part] = events
        return found

    def _file(self, name: str) -> Path:
        path = self.root / name
        filtered = path.with_name(f"{path.stem}_filtered{path.suffix}")
        return filtered if filtered.is_file() and not path.is_file() else path


def _grouped(files: Sequence[Events]) -> list[Events]:
    """The events with groups that no two files share, if any file has some; where there are none, each is its own."""
    if not any("group" in events.meta for events in files):
        return list(files)
    grouped, start = [], 0
    for number, events in enumerate(files):
        own = events.meta.get("group", np.arange(len(events)))
        if number:  # the first file's are as they are, from 0 on
            own = -1 - start - np.unique(own, return_inverse=True)[1].reshape(-1)
            start += len(events)
        grouped.append(replace(events, meta={**events.meta, "group": own}))
    return grouped
