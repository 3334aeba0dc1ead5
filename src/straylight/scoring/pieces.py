"""The scores of one file, aside: all that can be said of a row without the others.

A piece is an Arrow file that is there whole or not at all. What depends on all rows together, ranks and what is flagged
by a false-discovery rate, is added when pieces become outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from straylight.files.fitting import Part, Tally
from straylight.files.source import about, listed
from straylight.rows.origin import column_name, kept
from straylight.scoring.columns import P_VALUE, REASON, SCORE
from straylight.scoring.inputs import Input
from straylight.scoring.scorer import Scorer
from straylight.scoring.wanted import Wanted

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 2**16  # of a piece that are read back together


@dataclass
class Told:
    """What is known of the rows of a file.

    Attributes:
        rows: how many it has.
        scored: how many of them have a score.
        flagged: how many each threshold flags.
        notices: sentences.
    """

    rows: int = 0
    scored: int = 0
    flagged: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


@dataclass
class Counted:
    """What is known of the rows of a piece, which may be some of a file's.

    Attributes:
        rows, scored: see `Told`.
        ignored: of which columns nothing is used, in sentences.
        tally: of rows that did not fit.
    """

    rows: int = 0
    scored: int = 0
    ignored: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `of_json` makes it again."""
        tally = {"unseen": dict(self.tally.unseen), "filled": self.tally.filled, "skipped": dict(self.tally.skipped)}
        return {"rows": self.rows, "scored": self.scored, "ignored": self.ignored, "tally": tally}

    @classmethod
    def of_json(cls, known: Mapping[str, Any]) -> Counted:
        """What `to_json` made plain values of."""
        tally = known["tally"]
        held = Tally(Counter(tally["unseen"]), tally["filled"], Counter(tally["skipped"]))
        return cls(known["rows"], known["scored"], known["ignored"], held)


def told_of(pieces: Sequence[Counted]) -> Told:
    """What is known of a file whose rows are those of pieces that follow each other."""
    tally = Tally()
    for piece in pieces:
        tally.take(piece.tally)
    notices = [*pieces[0].ignored, *tally.sentences()]
    return Told(sum(piece.rows for piece in pieces), sum(piece.scored for piece in pieces), notices=notices)


def write_piece(
    scorer: Scorer,
    given: Input,
    wanted: Wanted,
    path: Path,
    progress: Callable[[int, int | None], None],
    rows: range | None = None,
) -> Counted:
    """Score a file.

    Args:
        scorer: see `Scorer`.
        given: the file.
        wanted: what is wanted of each row.
        path: of the piece.
        progress: is told how many rows are done, and how many there are, if that is known.
        rows: which of a Parquet file are scored; `None` for all.

    Raises:
        DataError: if the file, or a row of it, does not fit.
    """
    import pyarrow as pa

    counted = Counted()
    with about(given.path), ExitStack() as stack:
        source = scorer.opened(given.path, rows)
        names, recipe = scorer.identifiers(source), scorer.recipe_of(source)
        counted.ignored = ignored(source.names, {*recipe.wanted, *names, *wanted.keep, *scorer.others})
        also = list(dict.fromkeys([*names, *wanted.keep]))
        count = source.known_rows(recipe.columns_of(source, also)[0])
        schema = None
        for part in scorer.parts(source, wanted.rules, counted.tally, also):
            table = of_part(scorer, part, wanted, also)
            if schema is None:
                schema = table.schema
                writer = stack.enter_context(pa.ipc.new_file(str(path), table.schema))
            writer.write_table(table.cast(schema), max_chunksize=ROWS)
            counted.rows += part.rows
            counted.scored += len(part.x)
            progress(counted.rows, count)
    return counted


def ignored(names: list[str], used: set[str]) -> list[str]:
    """Columns that nobody asked for, in a sentence."""
    extra = [repr(name) for name in names if name not in used]
    if not extra:
        return []
    more = " ..." * (len(extra) > 10)
    return [f"{len(extra):,} column{'s are' if extra[1:] else ' is'} ignored: {listed(extra[:10])}{more}."]


def of_part(scorer: Scorer, part: Part, wanted: Wanted, also: list[str]) -> pa.Table:
    """What is said of the rows of a part."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        column_name(name): _beside(name, part.table[name]) for name in also if part.table is not None
    }
    scores, members = scorer.scores(part, wanted.members)
    columns[SCORE] = _nullable(part, scores)
    if scorer.judge.calibrated:
        columns[P_VALUE] = _nullable(part, scorer.p_values(part, scores))
    if members is not None:
        columns |= {f"member_{i}": _nullable(part, own) for i, own in enumerate(members.T)}
    if wanted.explain:
        features, values = scorer.explained(part, wanted.explain)
        for i, (feature, value) in enumerate(zip(features.T, values.T, strict=True), 1):
            columns[f"feature_{i}"] = pa.array(part.spread(np.asarray(feature, dtype=object), None), pa.string())
            columns[f"contribution_{i}"] = _nullable(part, value.astype(np.float32))
    if wanted.leaves_out and not part.reasons:
        columns[REASON] = pa.nulls(part.rows, pa.string())
    elif wanted.leaves_out:
        reasons = np.full(part.rows, None, dtype=object)
        for row, reason in part.reasons.items():
            reasons[row] = reason
        columns[REASON] = pa.array(reasons, pa.string())
    return pa.table(columns)


def _beside(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of the file, categories as what they stand for."""
    import pyarrow as pa

    column = kept(name, column)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _nullable(part: Part, values: Any) -> Any:
    """Values of the rows that were scored, and nothing for the others."""
    import pyarrow as pa

    if part.kept is None:
        return pa.array(values)
    gone = np.ones(part.rows, dtype=bool)
    gone[part.kept] = False
    return pa.array(part.spread(values), mask=gone)


def schema_of(path: Path) -> pa.Schema:
    """The columns of a piece."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.schema


def batches(path: Path, names: list[str] | None = None) -> Iterator[pa.Table]:
    """A piece, some rows at a time, of which nothing is held in memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        for i in range(reader.num_record_batches):
            table = pa.Table.from_batches([reader.get_batch(i)])
            yield table if names is None else table.select(names)


def scores(path: Path) -> Iterator[np.ndarray]:
    """The scores of a piece, NaN of rows that have none, `(n,)` each."""
    for table in batches(path, [SCORE]):
        yield table[SCORE].to_numpy()
