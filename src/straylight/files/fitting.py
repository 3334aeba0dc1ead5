"""What is done about a new row that does not fit: a value is missing, or of a category that no training row has.

`n` rows of a chunk, `*shape` one event, `C` columns of context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Lacking = Literal["error", "median", "skip"]
Unseen = Literal["error", "other", "skip"]
Rows = NDArray[np.int64]
REASONS = 1000  # different ones that are counted


class Rules(NamedTuple):
    """What is decided about rows that do not fit.

    Attributes:
        missing: a value that is missing, or no finite number: `error` refuses the file, `median` fills in the median of
            training rows (a category that is missing is 0 in all of its features), `skip` leaves the row without a
            score.
        unseen: a category that no training row has: `error`, `other`, by which it is 0 in all of its features, or
            `skip`.
    """

    missing: Lacking = "error"
    unseen: Unseen = "other"

    @classmethod
    def of(cls, missing: str | None, unseen: str | None, trained: str = "error") -> Rules:
        """From what is asked for; what is not goes by how the run was trained.

        Raises:
            DataError: if a word is none of these.

        Example:
            >>> Rules.of(None, "skip", trained="indicator")
            Rules(missing='median', unseen='skip')
        """
        usual = trained if trained in get_args(Lacking) else "median"
        asked = {"missing": (missing or usual, Lacking), "unseen": (unseen or "other", Unseen)}
        for name, (word, words) in asked.items():
            if word not in get_args(words):
                raise DataError(
                    f"{name} must be {', '.join(get_args(words)[:-1])} or {get_args(words)[-1]}, not {word!r}."
                )
        return cls(*(word for word, _ in asked.values()))  # type: ignore[arg-type]


@dataclass
class Tally:
    """How many rows did not fit, and what was done about them.

    Attributes:
        unseen: rows with a category that no training row has, by column.
        filled: rows in which something was filled in.
        skipped: rows that were left out, by reason.
    """

    unseen: Counter[str] = field(default_factory=Counter)
    filled: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def leave(self, reasons: Iterable[str]) -> None:
        """Rows are left out; of thousands of reasons, each with a value of its own, no more are kept."""
        for reason, count in Counter(reasons).items():
            self._left_out(reason, count)

    def take(self, other: Tally) -> None:
        """Count the rows of another, which follow these."""
        self.unseen.update(other.unseen)
        self.filled += other.filled
        for reason, count in other.skipped.items():
            self._left_out(reason, count)

    def _left_out(self, reason: str, count: int) -> None:
        self.skipped[reason if reason in self.skipped or len(self.skipped) < REASONS else "other reasons"] += count

    def sentences(self) -> Iterator[str]:
        """What a person should know of it.

        Example:
            >>> print(*Tally(Counter(service=2), 1, Counter({"'a' is missing": 3})).sentences(), sep="\\n")
            2 rows hold a category of column 'service' that no training row has, which is 0 in all of its features.
            1 row lacks a value, for which the median of training rows stands.
            3 rows cannot be scored: 'a' is missing (3).
        """
        for name, count in self.unseen.items():
            if count:
                yield (
                    f"{count:,} row{'s' * (count > 1)} hold{'s' * (count == 1)} a category of column {name!r} that no "
                    "training row has, which is 0 in all of its features."
                )
        if self.filled:
            yield (
                f"{self.filled:,} row{'s lack' if self.filled > 1 else ' lacks'} a value, for which the median of "
                "training rows stands."
            )
        if gone := self.skipped.total():
            most = ", ".join(f"{reason} ({count:,})" for reason, count in self.skipped.most_common(3))
            more = f" and {len(self.skipped) - 3} more reasons" if len(self.skipped) > 3 else ""
            yield f"{gone:,} row{'s' * (gone > 1)} cannot be scored: {most}{more}."

    def tell(self, notice: Callable[[str], None]) -> None:
        """Say all of it."""
        for sentence in self.sentences():
            notice(sentence)


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows that follow each other, as a detector takes them.

    Attributes:
        start: rows before them.
        rows: how many they are, n.
        x: events of those that can be scored, `(m, *shape)` float32.
        context: `(m, C)` float32.
        kept: which those are, `(m,)`, increasing; `None` if all are.
        reasons: of the others, by position.
        table: further columns of all n rows.
    """

    start: int
    rows: int
    x: Tensor
    context: Tensor
    kept: Rows | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    table: pa.Table | None = None

    def spread(self, values: NDArray, empty: object = np.nan) -> NDArray:
        """Values of the m rows among all of them, `(m, ...)` to `(n, ...)`; of the others, what stands for none.

        Example:
            >>> import torch
            >>> part = Part(0, 3, torch.zeros(2, 1), torch.zeros(2, 0), np.array([0, 2]), {1: "'a' is missing"})
            >>> part.spread(np.array([1.0, 2.0])).tolist()
            [1.0, nan, 2.0]
        """
        if self.kept is None:
            return values
        whole = np.full((self.rows, *values.shape[1:]), empty, dtype=values.dtype)
        whole[self.kept] = values
        return whole


class Misfits:
    """Those rows of a chunk that do not fit, by the rules.

    Args:
        rules: see `Rules`.
        start: rows before the chunk.
        rows: of the chunk.
        tally: is told.
    """

    def __init__(self, rules: Rules, start: int, rows: int, tally: Tally) -> None:
        self.rules, self._start, self._rows, self._tally = rules, start, rows, tally
        self._gone = np.zeros(rows, dtype=bool)
        self._filled = np.zeros(rows, dtype=bool)
        self.reasons: dict[int, str] = {}

    def leave(self, where: Rows, reason: Callable[[int], str], advice: str, refuse: bool) -> None:
        """Rows at these positions cannot be scored.

        Args:
            where: positions.
            reason: of a position, without the row.
            advice: what to do.
            refuse: whether the whole is refused.

        Raises:
            DataError: if so.
        """
        if refuse and len(where):
            first = int(where[0])
            raise DataError(f"row {self._start + first + 1:,}: {reason(first)}; {advice}")
        for i in where[~self._gone[where]].tolist():
            self.reasons[i] = reason(i)
        self._gone[where] = True

    def fill(self, where: Rows) -> None:
        """In rows at these positions something is filled in."""
        self._filled[where] = True

    def unseen(self, name: str, where: Rows, value: Callable[[int], str]) -> None:
        """Rows at these positions hold a category that no training row has."""
        if self.rules.unseen == "other":
            self._tally.unseen[name] += len(where)
            return

        def reason(i: int) -> str:
            return f"column {name!r} holds {value(i)!r}, which no training row has"

        advice = "say unseen=other, by which it is scored as none of them, or unseen=skip."
        self.leave(where, reason, advice, self.rules.unseen == "error")

    def kept(self) -> Rows | None:
        """Positions of the rows that fit; `None` if all do."""
        self._tally.filled += int((self._filled & ~self._gone).sum())
        self._tally.leave(self.reasons.values())
        return np.flatnonzero(~self._gone) if self.reasons else None
