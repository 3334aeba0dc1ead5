"""The folders of runs and sweeps: what each file in them is called, how it is written, and how it is read again."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from straylight.atomic import table_run, write_json, write_table
from straylight.documents import read_json, read_yaml
from straylight.errors import ConfigError
from straylight.result import Result, odd

if TYPE_CHECKING:
    import pyarrow as pa

RESULT, CONFIG, JOB, ASIDE = "result.json", ".hydra/config.yaml", "job.json", ".before"
EXPORTED = "export"
PAGE = "report.html"
CHECKPOINTS = ("best", "last", "interrupt")
#: Folders in a run's own that hold no run.
INSIDE = frozenset(
    {".hydra", ASIDE, f"{ASIDE}.new", ".sweeps", "checkpoints", "figures", "tensorboard", "csv", "wandb", EXPORTED}
)
#: What a run leaves behind, and must not be taken for that of another one in the same folder.
LEFT = (
    RESULT,
    "shape.json",
    "scores.parquet",
    "calibration.parquet",
    "folds.ckpt",
    "results.h5",
    PAGE,
    *(f"checkpoints/{name}.ckpt" for name in CHECKPOINTS),
    "figures/**/*.png",
    "figures/**/extremes.csv",
    "csv/metrics.csv",
    "csv/hparams.yaml",
    *(
        f"{EXPORTED}/{name}"
        for name in ("model.onnx", "model.pt2", "model.json", "parity.json", "score.py", "README.md")
    ),
)
#: And what of that stands in a folder of TensorBoard's, which bears a name of the run's own.
EVENTS = ("events.out.tfevents.*", "hparams.yaml", "projector_config.pbtxt", "*/*/*.tsv", "*/*/sprite.png")


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder, which need not be there yet.

    Attributes:
        result: what the run reached; `job`: what it is to do.
        config, hydra, overrides: the composed config, what Hydra knew of the command, and what was typed.
        shape: what the events are like that the detector was built for.
        scores, calibration: the scores of the test rows, and those that thresholds were set on.
        folds: the detectors that were fitted without a fold each, if thresholds were set across folds.
        figures: a folder of pictures.
        page: of HTML, with all of it.
        progress: how far a run is that goes on on another machine.

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
        self.folds = self.path / "folds.ckpt"
        self.figures = self.path / "figures"
        self.page = self.path / PAGE
        self.progress = self.path / ".progress.json"

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the `best` epoch, of the `last`, or where training was stopped, `interrupt`."""
        return checkpoint_in(self.path / "checkpoints", name)

    @property
    def newest_checkpoint(self) -> Path | None:
        """That of the latest step: the interrupted one or the last epoch's; `None` if there is neither."""
        return next((path for path in self.by_age() if path.stem != "best"), None)

    def by_age(self) -> list[Path]:
        """The checkpoints there are, the newest first, and the best one, which may be much older, in the end."""
        found = [path for name in CHECKPOINTS if (path := self.checkpoint(name)).is_file()]
        return sorted(found, key=lambda path: (path.stem == "best", -path.stat().st_mtime_ns))

    def events(self) -> list[Path]:
        """The folders in it that TensorBoard reads, the one written to last first."""
        files = [path for path in self.path.glob(f"*/{EVENTS[0]}") if path.is_file()]
        newest = sorted(files, key=lambda path: -path.stat().st_mtime_ns)
        return list(dict.fromkeys(path.parent for path in newest))

    def log(self, rank: int | None = None) -> Path:
        """What the run says in words, or what a rank's process prints."""
        return self.path / ("train.log" if rank is None else f"output.{rank}.log" if rank else "output.log")

    # who it belongs to

    @property
    def run(self) -> str | None:
        """The run that the folder is of now, which every file of its bears; `None` before there is one."""
        try:
            found = read_json(self.job).get("run")
        except (OSError, ValueError, AttributeError):
            return None
        return found if isinstance(found, str) else None

    @property
    def begun(self) -> bool:
        """Whether the run that the folder is of now came as far as training."""
        try:
            return self.run is not None and read_json(self.shape).get("run") == self.run
        except (OSError, ValueError, AttributeError):
            return False

    @property
    def used(self) -> bool:
        """Whether a run has been here and left something."""
        return self.result.is_file() or self.shape.is_file()

    def take_back(self, subdir: str | None = None) -> None:
        """Remove a folder in which nothing was trained: its logs, its record, and what was asked for.

        Args:
            subdir: in which Hydra itself keeps what was asked for, if it does.
        """
        self.clear()
        asked = [self.config.parent, *([self.path / subdir] if subdir else [])]
        for here in asked:
            for name in ("config", "hydra", "overrides"):
                (here / f"{name}.yaml").unlink(missing_ok=True)
        ours = self.job.is_file()  # what a log says was said by a run, and not before there was one
        for path in (*self.path.glob("train.log"), *self.path.glob("output*.log")):
            if ours or not path.stat().st_size:
                path.unlink()
        self.job.unlink(missing_ok=True)
        for made in (*asked, self.path):
            with suppress(OSError):  # which holds something else, and stays
                made.rmdir()

    def clear(self) -> None:
        """Remove what a run before this one left; nothing where none has been, and nothing that is not a run's."""
        if self.used or self.aside:
            events = self.events()
            for path in [p for pattern in LEFT for p in self.path.glob(pattern)]:
                path.unlink(missing_ok=True)
            for folder in events:
                for path in [p for pattern in EVENTS for p in folder.glob(pattern)]:
                    path.unlink(missing_ok=True)
                for emptied in (*folder.glob("*/*"), *folder.glob("*"), folder):
                    with suppress(OSError):  # which holds something else, and stays
                        emptied.rmdir()
            shutil.rmtree(self.path / "wandb", ignore_errors=True)
        self.forget_aside()

    @property
    def aside(self) -> bool:
        """Whether what a run had reached is set aside."""
        return (self.path / ASIDE).is_dir()

    def set_aside(self) -> None:
        """Keep what the run has reached until now, which is to go on, so that it can be put back."""
        new = self.path / f"{ASIDE}.new"
        shutil.rmtree(new, ignore_errors=True)
        for path in self._reached():
            kept = new / path.relative_to(self.path)
            kept.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, kept)  # files are replaced and never written over
            except OSError:
                shutil.copy2(path, kept)
        new.replace(self.path / ASIDE)

    def put_back(self) -> bool:
        """Undo what was done since it was set aside; a newer checkpoint can still be gone on from. Whether it was."""
        aside = RunFolder(self.path / ASIDE)
        if not aside.path.is_dir():
            return False
        newest = self.newest_checkpoint
        if newest is not None and not any(
            newest.samefile(kept) for name in CHECKPOINTS if (kept := aside.checkpoint(name)).is_file()
        ):
            newest.replace(self.checkpoint("interrupt"))
        for kept in aside._reached():
            kept.replace(self.path / kept.relative_to(aside.path))
        self.forget_aside()
        return True

    def forget_aside(self) -> None:
        """What was set aside is not needed any more."""
        shutil.rmtree(self.path / ASIDE, ignore_errors=True)

    def _reached(self) -> list[Path]:
        """What says what the run reached, the record last."""
        asked = (self.config, self.hydra, self.overrides, self.job)
        files = (*asked, self.shape, self.scores, self.calibration, self.folds)
        return [p for p in (*files, *map(self.checkpoint, CHECKPOINTS), self.result) if p.is_file()]

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

    # whether it is whole

    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file that a model is opened from, by its name in the folder."""
        files = (self.shape, self.scores, self.calibration, self.folds, *map(self.checkpoint, CHECKPOINTS))
        return {str(path.relative_to(self.path)): _digest(path) for path in files if path.is_file()}

    @property
    def digest_of_scores(self) -> str:
        """The SHA-256 of the scores as they are now."""
        return _digest(self.scores)

    def check_whole(self, path: Path) -> None:
        """See that a file is, byte for byte, the one that `result.json` tells of; one that it does not know passes.

        Raises:
            ConfigError: if it is not.
        """
        known = ((self.read() or {}).get("digests") or {}).get(str(path.relative_to(self.path)))
        if known is not None and known != _digest(path):
            raise ConfigError(
                f"{path} is not as the run left it: it was damaged or changed since. Put it back, or train again."
            )

    # writing and reading

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; where it lies, and whether it could be read, is not part of it."""
        kept = {key: value for key, value in result.items() if key not in ("folder", "odd")}
        write_json(self.result, {"run": run, **kept} if (run := self.run) else kept)

    def write_shape(self, known: Mapping[str, Any]) -> None:
        write_json(self.shape, {**known, "run": self.run})

    def write_columns(self, path: Path, columns: Mapping[str, Any]) -> None:
        """Write columns as Parquet that bears the run's id."""
        write_table(path, columns, self.run)

    def columns(self, path: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Any]:
        """The columns of a Parquet file of this run, as numpy arrays, by name; all of them, or those that are wanted.

        Raises:
            ConfigError: if it is damaged, or of another run.
        """
        table = self.table(path, wanted)
        return {name: table[name].to_numpy() for name in table.column_names}

    def table(self, path: Path, wanted: Callable[[str], bool] | None = None) -> pa.Table:
        """The same as a table of Arrow.

        Raises:
            ConfigError: if it is damaged, or of another run.
        """
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if wanted is None or wanted(name)]
                table = file.read(names).select(names)  # which takes `meta.x` for a part of `meta`
        except (OSError, ValueError) as error:  # Arrow's are of these
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        self.check_same_run(path, table_run(table))
        self.check_whole(path)
        return table

    def read(self) -> Result | None:
        """What `result.json` says; `None` if it is not there. One that cannot be used is a run that failed, and why."""
        if not self.result.is_file():
            return None
        result: Any = None
        try:
            result = read_json(self.result)
            wrong = odd(result)
        except (OSError, ValueError) as error:
            wrong = str(error)
        if wrong is None:
            return cast(Result, {**result, "folder": str(self.path)})
        said = self._chosen() | (result if isinstance(result, dict) else {})
        names = {key: said[key] for key in ("detector", "data") if isinstance(said.get(key), str)}
        reason = f"{self.result} cannot be read ({wrong})"
        return cast(Result, {**names, "status": "failed", "reason": reason, "odd": True, "folder": str(self.path)})

    def _chosen(self) -> dict[str, Any]:
        """The config groups that were chosen, for a record that cannot say it; empty where Hydra has left nothing."""
        try:
            return dict(read_yaml(self.hydra)["hydra"]["runtime"]["choices"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def sound(self) -> Result | None:
        """What `result.json` says, for whoever goes by it; `None` if it is not there.

        Raises:
            ConfigError: if it cannot be used.
        """
        result = self.read()
        if result is not None and result.get("odd"):
            raise ConfigError(f"{result['reason']}; put it back as it was, or remove it to go on without.")
        return result


class SweepFolder:
    """The folder of a sweep, or any other above several runs.

    Args:
        path: of the folder.

    Attributes:
        multirun: what Hydra knew of the last command.
        manifests: a folder with what each sweep was asked for.
        leaderboard, table: a row for each detector on each data set, and one for each run.
        page: of HTML, with all of it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.multirun = self.path / "multirun.yaml"
        self.manifests = self.path / ".sweeps"
        self.leaderboard = self.path / "leaderboard.csv"
        self.table = self.path / "runs.parquet"
        self.page = self.path / PAGE

    def runs(self) -> list[RunFolder]:
        """The runs in the folder and below it, in the order of their names, numbers by value."""
        return sorted(map(RunFolder, _runs(self.path)), key=lambda run: _natural(run.path))

    def results(self) -> list[Result]:
        """What the runs reached that have ended."""
        return [result for run in self.runs() if (result := run.read()) is not None]

    @property
    def has_results(self) -> bool:
        """Whether any run in it has ended."""
        return any(Path(here, RESULT).is_file() for here in _runs(self.path))

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


def folder_of(path: Path) -> RunFolder | None:
    """The run's folder that a file or folder lies somewhere in; `None` if it is in none."""
    return next((RunFolder(above) for above in (path, *path.parents[:3]) if (above / JOB).is_file()), None)


def run_of(path: Path) -> str | None:
    """The run that a file or folder somewhere in a run's folder is of; `None` if it is in none."""
    return None if (folder := folder_of(path)) is None else folder.run


def new_run() -> str:
    """An id for a run that begins."""
    return secrets.token_hex(8)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _runs(top: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(top):
        if RESULT in files or (".hydra" in folders and Path(here, CONFIG).is_file()):
            yield Path(here)
        folders[:] = [name for name in folders if name not in INSIDE]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts]
