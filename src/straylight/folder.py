"""The folders of runs and sweeps: what each file in them is called, how it is written, and how it is read again."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from straylight.atomic import table_run, write_json, write_table
from straylight.errors import ConfigError
from straylight.result import Result, odd

RESULT, CONFIG, JOB = "result.json", ".hydra/config.yaml", "job.json"
#: Folders in a run's own that hold no run.
INSIDE = frozenset({".hydra", "checkpoints", "figures", "tensorboard", "csv"})
#: What a run leaves behind, and must not be taken for that of another one in the same folder.
LEFT = (
    RESULT,
    "shape.json",
    "scores.parquet",
    "calibration.parquet",
    "results.h5",
    *(f"checkpoints/{name}.ckpt" for name in ("best", "last", "interrupt")),
    "figures/**/*.png",
    "figures/**/extremes.csv",
    "tensorboard/**/events.out.tfevents.*",
    "tensorboard/**/hparams.yaml",
    "tensorboard/**/projector_config.pbtxt",
    "tensorboard/**/*.tsv",
    "tensorboard/**/sprite.png",
    "csv/metrics.csv",
    "csv/hparams.yaml",
)


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder, which need not be there yet.

    Attributes:
        result: what the run reached; `job`: what it is to do.
        config, hydra, overrides: the composed config, what Hydra knew of the command, and what was typed.
        shape: what the events are like that the detector was built for.
        scores, calibration: the scores of the test rows, and those that thresholds were set on.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as path:
        ...     folder = RunFolder(path)
        ...     folder.write_result({"status": "ok", "seed": 1})
        ...     folder.read()["seed"], folder.checkpoint("best").name
        (1, 'best.ckpt')
    """

    def __init__(self, path: str | Path | RunFolder) -> None:
        self.path: Path = path.path if isinstance(path, RunFolder) else Path(path)
        self.result = self.path / RESULT
        self.job = self.path / JOB
        self.config = self.path / CONFIG
        self.hydra = self.config.with_name("hydra.yaml")
        self.overrides = self.config.with_name("overrides.yaml")
        self.shape = self.path / "shape.json"
        self.scores = self.path / "scores.parquet"
        self.calibration = self.path / "calibration.parquet"

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the `best` epoch, of the `last`, or where training was stopped, `interrupt`."""
        return checkpoint_in(self.path / "checkpoints", name)

    @property
    def newest_checkpoint(self) -> Path | None:
        """That of the latest step: the interrupted one or the last epoch's; `None` if there is neither."""
        found = [path for name in ("interrupt", "last") if (path := self.checkpoint(name)).is_file()]
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    def log(self, rank: int | None = None) -> Path:
        """What the run says in words, or what a rank's process prints."""
        return self.path / ("train.log" if rank is None else f"output.{rank}.log" if rank else "output.log")

    # who it belongs to

    @property
    def run(self) -> str | None:
        """The run that the folder is of now, which every file of its bears; `None` before there is one."""
        try:
            found = json.loads(self.job.read_text(encoding="utf-8")).get("run")
        except (OSError, ValueError, AttributeError):
            return None
        return found if isinstance(found, str) else None

    @property
    def used(self) -> bool:
        """Whether a run has been here and left something."""
        return self.result.is_file() or self.shape.is_file()

    def clear(self) -> None:
        """Remove what a run before this one left; nothing where none has been, and nothing that is not a run's."""
        for pattern in LEFT if self.used else ():
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def clear_logs(self) -> None:
        """Empty what a run before this one said; a log that is open goes on from its beginning."""
        for path in (*self.path.glob("train.log"), *self.path.glob("output*.log")):
            os.truncate(path, 0)

    def check_same_run(self, path: Path, run: str | None) -> None:
        """See that a file is of the run that `result.json` is of; one that does not say is taken as it is.

        Raises:
            ConfigError: if it is of another.
        """
        known = (self.read() or {}).get("run")
        if known and run and known != run:
            raise ConfigError(f"{path} is of another run ({run}) than {self.result} ({known}); put back its own.")

    # writing and reading

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; where it lies is not part of it."""
        kept = {key: value for key, value in result.items() if key != "folder"}
        write_json(self.result, {"run": run, **kept} if (run := self.run) else kept)

    def write_shape(self, known: Mapping[str, Any]) -> None:
        write_json(self.shape, {**known, "run": self.run})

    def write_columns(self, path: Path, columns: Mapping[str, Any]) -> None:
        """Write columns as Parquet that bears the run's id."""
        write_table(path, columns, self.run)

    def columns(self, path: Path) -> dict[str, Any]:
        """The columns of a Parquet file of this run, as numpy arrays, by name.

        Raises:
            ConfigError: if it is of another run.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        self.check_same_run(path, table_run(table))
        return {name: table[name].to_numpy() for name in table.column_names}

    def read(self) -> Result | None:
        """What `result.json` says; `None` if it is not there. One that cannot be used is a run that failed, and why."""
        if not self.result.is_file():
            return None
        result: Any = None
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
            wrong = odd(result)
        except (OSError, ValueError, RecursionError) as error:
            wrong = str(error)
        if wrong is None:
            return cast(Result, {**result, "folder": str(self.path)})
        said = result if isinstance(result, dict) else {}
        names = {key: said[key] for key in ("detector", "data") if isinstance(said.get(key), str)}
        reason = f"{self.result} cannot be read ({wrong})"
        return cast(Result, {**names, "status": "failed", "reason": reason, "folder": str(self.path)})


class SweepFolder:
    """The folder of a sweep, or any other above several runs.

    Args:
        path: of the folder.

    Attributes:
        multirun: what Hydra knew of the command.
        leaderboard, table: a row for each detector on each data set, and one for each run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.multirun = self.path / "multirun.yaml"
        self.leaderboard = self.path / "leaderboard.csv"
        self.table = self.path / "runs.parquet"

    def runs(self) -> list[RunFolder]:
        """The runs in the folder and below it, in the order of their names, numbers by value."""
        return sorted(map(RunFolder, _runs(self.path)), key=lambda run: _natural(run.path))

    def results(self) -> list[Result]:
        """What the runs reached that have ended."""
        return [result for run in self.runs() if (result := run.read()) is not None]

    @property
    def has_results(self) -> bool:
        """Whether any run in it has ended."""
        return any(run.result.is_file() for run in self.runs())

    def unfinished(self) -> list[Path]:
        """Run folders that hold a config but no result: still running, or killed."""
        return [run.path for run in self.runs() if not run.result.is_file()]

    def claim(self, name: str, numbered: bool) -> RunFolder:
        """A folder that nobody else has, made here: of this name, or the next number, or with a number behind it.

        Raises:
            ConfigError: if there is none.
        """
        for attempt in range(1_000_000):
            tried = str(int(name) + attempt) if numbered else name + (f"_{attempt}" if attempt else "")
            try:
                (self.path / tried).mkdir(parents=True)
                return RunFolder(self.path / tried)
            except FileExistsError:
                continue
        raise ConfigError(f"{self.path} has no room for a job's folder.")


def checkpoint_in(folder: Path, name: str) -> Path:
    """The checkpoint of that name in a folder of checkpoints."""
    return folder / f"{name}.ckpt"


def run_of(path: Path) -> str | None:
    """The run that a file or folder somewhere in a run's folder is of; `None` if it is in none."""
    return next((RunFolder(above).run for above in (path, *path.parents[:3]) if (above / JOB).is_file()), None)


def new_run() -> str:
    """An id for a run that begins."""
    return secrets.token_hex(8)


def _runs(top: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(top):
        if RESULT in files or (".hydra" in folders and Path(here, CONFIG).is_file()):
            yield Path(here)
        folders[:] = [name for name in folders if name not in INSIDE]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts]
