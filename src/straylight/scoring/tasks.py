"""What workers are to score, as a list that all of them read, and what has come of each task so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from straylight.atomic import replacing
from straylight.errors import ConfigError, DataError
from straylight.scoring.inputs import Input
from straylight.scoring.ledger import Ledger
from straylight.scoring.pieces import Counted, Told
from straylight.scoring.ranges import cuts
from straylight.scoring.scorer import Scorer
from straylight.scoring.target import Target
from straylight.scoring.wanted import Wanted

LARGE = 2**26  # bytes of a Parquet file, and of each of the parts into which a larger one is cut


class Folder:
    """Where workers meet: the folder for what is not done yet.

    Attributes:
        tasks: the list.
        workers: a folder with that of each worker's job.
        alive, claims: see `straylight.scoring.claims`.
        done: what came of each task.
        pieces: the scores of parts of large files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tasks = path / "tasks.json"
        self.workers, self.alive, self.claims, self.done, self.pieces = (
            path / name for name in ("workers", "alive", "claims", "done", "pieces")
        )

    def make(self) -> None:
        """Make what is not there."""
        for folder in (self.workers, self.alive, self.claims, self.done, self.pieces):
            folder.mkdir(parents=True, exist_ok=True)


class Task(NamedTuple):
    """A file, and what is to be made of it.

    Attributes:
        given: the file.
        made_of: what tells it from the same path with other contents.
        out: where its scores go.
        rows: the parts in which it is scored; empty of one that is scored whole.
    """

    given: Input
    made_of: list[Any]
    out: Path
    rows: tuple[range, ...] = ()

    @property
    def key(self) -> str:
        """What its files are called here."""
        return key_of(self.given)

    @property
    def units(self) -> list[Unit]:
        """What is claimed at a time: its parts, and the joining of these; or the whole."""
        return [*(Unit(self, i) for i in range(len(self.rows))), Unit(self)]


class Unit(NamedTuple):
    """A part of a task, or all that is left when its parts are scored.

    Attributes:
        task: the task.
        part: which part; `None` for the whole.
    """

    task: Task
    part: int | None = None

    @property
    def key(self) -> str:
        """What its files are called."""
        return self.task.key if self.part is None else f"{self.task.key}.{self.part}"

    @property
    def made_of(self) -> list[Any]:
        """What it is made of."""
        if self.part is None:
            return self.task.made_of
        return [*self.task.made_of, self.task.rows[self.part].start, self.task.rows[self.part].stop]

    @property
    def size(self) -> int:
        """About how much there is to do."""
        parts = max(1, len(self.task.rows))
        return int(self.task.made_of[1]) // parts if self.part is not None or not self.task.rows else 0


def key_of(given: Input) -> str:
    """What files that belong to an input are called, whatever characters it has."""
    return hashlib.sha256(given.name.encode()).hexdigest()[:16]


@dataclass
class Tasks:
    """All that is to be done, and how.

    Attributes:
        job: what all outputs are made by.
        wanted: of each row.
        ending: of the outputs.
        all: the tasks.
        id: tells them from others, by all that was asked for.
    """

    job: Mapping[str, Any]
    wanted: Wanted
    ending: str
    all: list[Task]
    id: str

    def write(self, path: Path) -> None:
        """Keep them for the workers."""
        files = [
            {
                **task.given._asdict(),
                "path": str(task.given.path),
                "made_of": task.made_of,
                "out": str(task.out),
                "rows": [[rows.start, rows.stop] for rows in task.rows],
            }
            for task in self.all
        ]
        plain = {**vars(self), "wanted": self.wanted.to_json(), "all": files}
        with replacing(path) as aside:
            aside.write_text(json.dumps(plain), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Tasks:
        """Read them.

        Raises:
            ConfigError: if there are none.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            tasks = [
                Task(
                    Input(Path(one["path"]), one["shown"], one["name"]),
                    one["made_of"],
                    Path(one["out"]),
                    tuple(range(*ends) for ends in one["rows"]),
                )
                for one in plain["all"]
            ]
            return cls(**{**plain, "wanted": Wanted.of_json(plain["wanted"]), "all": tasks})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} lists no files to score ({' '.join(str(error).split())}).") from error


def identity_of(inputs: Sequence[Input], target: Target, wanted: Wanted, job: Mapping[str, Any]) -> str:
    """What tells all that was asked for from what another command asks for."""
    asked = [[one.identity(), str(target.path(one))] for one in inputs]
    return hashlib.sha256(json.dumps([asked, job, wanted.to_json()]).encode()).hexdigest()[:16]


def task_of(given: Input, target: Target, scorer: Scorer, keep: Sequence[str]) -> Task:
    """What is to be done about a file; one that cannot be read is scored whole, which says why it cannot be."""
    made_of = given.identity()
    rows: list[range] = []
    if int(str(made_of[1])) > LARGE and given.path.suffix.lower() == ".parquet":
        rows = _parts(given.path, scorer, keep)
    return Task(given, made_of, target.path(given), tuple(rows) if rows[1:] else ())


def _parts(path: Path, scorer: Scorer, keep: Sequence[str]) -> list[range]:
    import pyarrow.parquet as pq

    try:
        source = scorer.opened(path)
        chunk = scorer.rows_of_chunk(source, keep)
    except DataError:
        return []
    with pq.ParquetFile(path) as file:
        return cuts(file.metadata, chunk, LARGE)


class Records:
    """What has come of tasks, each in a file of its own, since many write at once.

    Args:
        folder: where workers meet.
        job: what all outputs are made by.
    """

    def __init__(self, folder: Folder, job: Mapping[str, Any]) -> None:
        self.folder, self._job = folder, job

    def ledger(self, key: str) -> Ledger:
        """The ledger of one output, or of the scores of one part of a file."""
        return Ledger(self.folder.done / f"{key}.json", self._job)

    def piece(self, unit: Unit) -> Path:
        """The scores of a part of a file."""
        return self.folder.pieces / f"{unit.key}.arrow"

    def told(self, task: Task) -> Told | None:
        """What is known of a file whose scores are in their place."""
        known = self.ledger(task.key).done(task.out, task.made_of)
        return None if known is None else Told(**known)

    def counted(self, unit: Unit) -> Counted | None:
        """What is known of a part that is scored."""
        known = self.ledger(unit.key).done(self.piece(unit), unit.made_of)
        return None if known is None else Counted.of_json(known)

    def done(self, unit: Unit) -> bool:
        """Whether what it is to make is in its place."""
        return (self.told(unit.task) if unit.part is None else self.counted(unit)) is not None

    def fail(self, unit: Unit, sentence: str) -> None:
        """A file, or a part of it, cannot be scored."""
        with replacing(self._failed(unit)) as aside:
            aside.write_text(json.dumps({"made_of": unit.made_of, "sentence": sentence}), encoding="utf-8")

    def failed(self, unit: Unit) -> str | None:
        """Why it cannot."""
        try:
            known = json.loads(self._failed(unit).read_text(encoding="utf-8"))
            return known["sentence"] if known["made_of"] == unit.made_of else None
        except (OSError, ValueError, KeyError):
            return None

    def forget_failures(self) -> None:
        """Let all that failed be tried again."""
        for path in self.folder.done.glob("*.failed"):
            path.unlink()

    def rows(self, seen: set[str]) -> Iterator[int]:
        """How many rows were scored in each file or part that is recorded, once; what was told of before is `seen`."""
        names = {path.name for path in self.folder.done.glob("*.json")}
        for name in names - seen:
            seen.add(name)
            if f"{name.removesuffix('.json')}.0.json" not in names:  # whose parts count
                known = Ledger(self.folder.done / name, self._job).known
                yield from (int(entry["known"]["rows"]) for entry in known.values())

    def _failed(self, unit: Unit) -> Path:
        return self.folder.done / f"{unit.key}.failed"
