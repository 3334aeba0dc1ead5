"""The material of a run's figures: its scores, its events, its detector, and what was measured of them.

Shapes: `N` rows of the test split, `M` of them looked at, `Z` numbers in a code, `*shape` one event.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.callbacks.scored import Scores, names_of, split_of
from straylight.report.kept import Columns, Kept, Losses
from straylight.rows.origin import written

Places = NDArray[np.intp]
TRIED = 64  # rows that tell how long scoring takes
CLASSES = 24  # values that a column of classes may have
SEEN = 10_000  # rows that tell whether a column is one


class Classes(NamedTuple):
    """A named column of the test rows, such as the digit: `values` is `(N,)`."""

    name: str
    values: NDArray[Any]


class Material(Kept):
    """The scores of the test split, its events, the detector, and what the other callbacks measured.

    Attributes:
        members: the scores of an ensemble's members, `(N, M)`; None of any other detector.
        module: the detector.
        data: the data module; None if there is none.
        measured: what the other callbacks add to the record.
        others: see `Kept`.
    """

    def __init__(
        self,
        scores: Scores,
        module: Any,
        data: Any,
        *,
        weight: NDArray[Any] | None = None,
        measured: Mapping[str, Any] | None = None,
        losses: Losses | None = None,
        calibration: Columns | None = None,
    ) -> None:
        kinds = getattr(data, "kinds", ())
        of: Any = {"weight": weight, "measured": measured, "losses": losses, "calibration": calibration}
        super().__init__(scores.score, scores.y, kinds, **of)
        self.module, self.data = module, data
        self.index, self.members = scores.index, scores.members

    # the rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event; empty where no data module says."""
        return tuple(self.data.shape) if self.data is not None else ()

    @property
    def dimensions(self) -> int:
        """Numbers in an event."""
        return math.prod(self.shape)

    @property
    def columns(self) -> list[str]:
        """Names of the features, where the data set has them."""
        return [str(name) for name in getattr(self.data, "columns", ())]

    @property
    def features(self) -> list[str]:
        """Names of all features, of a data set without them by number."""
        return self.columns[: self.dimensions] + [f"x{i + 1}" for i in range(len(self.columns), self.dimensions)]

    def events(self, places: Places) -> Tensor:
        """Events in the data's own units, by their place among the scores, `(M, *shape)`, on the CPU."""
        return self.data.splits.test.x.index_select(0, torch.from_numpy(self.index[places]))

    def context(self, places: Places) -> Tensor:
        """Their context, `(M, C)`."""
        return self.data.splits.test.context.index_select(0, torch.from_numpy(self.index[places]))

    @cached_property
    def classes(self) -> Classes | None:
        """The first column beside the events that sorts them otherwise than their kinds do, into at most 24."""
        meta = getattr(split_of(self.data, "test"), "meta", {})
        for name, column in meta.items():
            if name == "group" or np.ndim(column) != 1:
                continue
            values = np.asarray(column)[self.index]
            if values.dtype == object:  # some of which may be missing
                values = np.array(["" if value is None else str(value) for value in values])
            found = np.unique(values[:SEEN])
            if not 2 <= len(found) <= CLASSES:
                continue
            kinds, labels = len(np.unique(self.y[:SEEN])), self.y[:SEEN]
            if len(set(zip(values[:SEEN].tolist(), labels.tolist(), strict=True))) > kinds or len(found) < kinds:
                return Classes(name, values)
        return None

    def called(self, places: Places) -> list[str]:
        """What a person calls these rows: by their id, by their number in the file, or by that in the test split."""
        origin = getattr(split_of(self.data, "test"), "origin", None)
        if origin is None:
            return [f"row {row}" for row in self.index[places].tolist()]
        return list(origin.called(self.index[places]))

    def named(self, places: Places) -> dict[str, list[str]]:
        """All that names these rows, as text, nothing where it is missing, by the names of tables of scores."""
        found = names_of(split_of(self.data, "test"), self.index[places])
        return {
            name: ["" if value is None else written(value) for value in column.to_pylist()]
            for name, column in found.items()
        }

    def extremes(self, most: int) -> tuple[Places, Places]:
        """Places of the strangest rows, the strangest first, and of the most ordinary, up to so many of each, disjoint.

        Rows of one score stand in their own order.
        """
        most = min(most, len(self.scores) // 2)
        s, n = self.scores.astype(np.float64), len(self.scores)
        ends = np.argpartition(s, [most - 1, n - most]) if most else np.empty(0, np.intp)  # not all are sorted
        strangest, ordinary = ends[n - most :], ends[:most]
        strangest = strangest[np.lexsort((strangest, -s[strangest]))]
        return strangest, ordinary[np.lexsort((ordinary, s[ordinary]))]

    # the detector

    def score(self, x: Tensor, context: Tensor | None = None) -> NDArray[np.float32]:
        """Scores of events in the data's own units, `(M, *shape)` to `(M,)`."""
        return self._ask(self.module, x, x.new_zeros(len(x), 0) if context is None else context)

    def latents(self, places: Places) -> NDArray[np.float32]:
        """Codes of events by their place, `(M, Z)`."""
        return self._ask(self.module.latents, self.events(places), self.context(places))

    def _ask(self, call: Callable[[Tensor, Tensor], Tensor], x: Tensor, context: Tensor) -> NDArray[np.float32]:
        """As many rows at once as the detector takes."""
        rows, device = self.module.rows_at_once, self.module.device
        parts = zip(x.split(rows), context.split(rows), strict=True)
        return torch.cat([call(a.to(device), c.to(device)).float().cpu() for a, c in parts]).numpy()

    @property
    def encodes(self) -> bool:
        """Whether the detector has codes of events."""
        return self.data is not None and callable(getattr(self.module, "latents", None))

    @cached_property
    def seconds_per_event(self) -> float:
        """How long an event takes to be scored among many: as was timed after the test, else tried on a few rows."""
        timed = [e for e in self.measured.get("latency", []) if e["runtime"] != "onnx" and e.get("events_per_s")]
        if timed:
            return 1 / max(timed, key=lambda entry: entry["batch"])["events_per_s"]
        places = np.arange(min(TRIED, len(self.scores)))
        x, context = self.events(places), self.context(places)
        start = time.perf_counter()
        self.score(x, context)
        return (time.perf_counter() - start) / max(1, len(places))
