"""Runs in MLflow: in a local store that all runs share, or wherever MLflow itself is told."""

from __future__ import annotations

import getpass
import logging
import os
import re
import tempfile
import time
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from straylight.callbacks.tracker import Tracked, Tracker, once
from straylight.errors import ConfigError
from straylight.extras import lacking, needed
from straylight.folder import RunFolder

ALONE = "runs"  # the experiment of runs that no sweep started
RUN, FOLDER, NAME = "straylight.run", "straylight.folder", "mlflow.runName"
PACKAGES = ("mlflow", "sqlalchemy", "alembic")
PATIENCE = 2.0  # seconds that numbers wait for more of them: a store takes longer than many an epoch
AT_ONCE = 100  # parameters that MLflow takes together, and ten times as many numbers
LONGEST = 500  # characters of a parameter
WAITED = 60  # seconds for other processes that write into the same database


class MLflowLog(Tracker, Logger):
    """A logger to MLflow: an experiment for each sweep, in it a run for each run, called by what tells it from others.

    Losses have their course, by steps; `test/...` stand at the last. Names are such as MLflow allows, see `allowed`.
    Figures are artifacts, and what `result.json` says is `record.json`. A run that is resumed goes on in the same run
    of MLflow's, which is found by the id that its folder has. Processes side by side write into one store. Nothing
    reaches for a network.

    Args:
        experiment: its name; `None` is the sweep, or `runs` for runs by themselves.
        name: of the run; `None` has whoever starts the run say.
        store: local one, below `paths.output`: `sqlite`, as MLflow has it itself, in `mlflow.db`; or `files`, in
            `mlruns`, where no database can be, as on many a network's disk; MLflow opens it with
            `MLFLOW_ALLOW_FILE_STORE=true`.
        offline: whether that is where it is kept; otherwise where MLflow itself says, as by `MLFLOW_TRACKING_URI`.

    Raises:
        ConfigError: if MLflow is not installed.
        ValueError: if there is no such store.
    """

    def __init__(
        self,
        experiment: str | None = None,
        name: str | None = None,
        store: Literal["sqlite", "files"] = "sqlite",
        offline: bool = True,
    ) -> None:
        super().__init__()
        needed("logger=mlflow", "mlflow", *PACKAGES)
        if store not in ("sqlite", "files"):
            raise ValueError(f"logger.mlflow.store must be sqlite or files, not {store!r}")
        self._experiment_name, self._run_name, self.store, self.offline = experiment, name, store, offline
        self._client: Any = None
        self._run: str | None = None  # as MLflow calls it
        self._finished = False  # before it was gone on with
        self._record: Path | None = None
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()
        self.final: dict[str, tuple[float, int]] = {}

    @classmethod
    def lacks(cls) -> str | None:
        return lacking("logger=mlflow", "mlflow", *PACKAGES)

    @property
    def name(self) -> str | None:
        return self._experiment_name

    @property
    def version(self) -> str | None:
        return self._run

    @property
    def experiment(self) -> Any:
        """MLflow's client; `None` before the run has begun, and on other ranks than the first."""
        return self._client

    def begin(self, run: Tracked) -> None:
        self._import()
        try:
            with muted():
                self._connect(run.place)
                known = self._known(run.run)
                self._run = self._created(self._in(run), run) if known is None else known
                if known is not None:
                    self._client.update_run(self._run, status="RUNNING")
                self._ask(run.asked)
                self._record = RunFolder(run.folder).result
        except Exception as error:  # of MLflow's, SQLAlchemy's and the network's own sorts
            raise ConfigError(f"MLflow could not begin a run: {' '.join(str(error).split())[:300]}") from error

    def _find(self, run: Tracked) -> bool:
        if run.run is None or (self.offline and not self._path(run.place).exists()):
            return False
        self._import()
        with muted():
            self._connect(run.place)
            self._run = self._known(run.run)
        self._finished = True
        return self._run is not None

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        if self._run is not None:
            self._try(self._ask, vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            if once(name):
                self.final[name] = (float(value), step or 0)
            else:
                self._waiting.append(self._metric(allowed(name), float(value), step or 0))
        if time.monotonic() - self._flushed > PATIENCE:
            self._try(self._flush)

    # what a tracker does

    def _picture(self, tag: str, png: bytes, step: int) -> None:
        folder, _, name = tag.rpartition("/")
        with tempfile.TemporaryDirectory() as place, muted():
            path = Path(place, f"{name}.png")
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), folder or None)

    def _reached(self, final: Mapping[str, float]) -> None:
        last = max((step for _, step in self.final.values()), default=0)
        reached = {**self.final, **{name: (value, last) for name, value in final.items()}}
        names = distinct(reached)
        self._waiting += [self._metric(names[name], value, step) for name, (value, step) in reached.items()]
        self._flush()
        if self._record is not None and self._record.is_file():
            with muted():
                # whoever looks for runs below a folder must not take this for one
                self._client.log_text(self._run, self._record.read_text(encoding="utf-8"), "record.json")

    def _end(self, failed: bool) -> None:
        if self._run is None:
            return
        try:
            self._flush()
        finally:
            run, self._run = self._run, None
            if not self._finished:
                with muted():
                    self._client.set_terminated(run, "FAILED" if failed else "FINISHED")

    # parts

    def _path(self, place: Path) -> Path:
        """Where a local store is."""
        return place / ("mlflow.db" if self.store == "sqlite" else "mlruns")

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        """While no other process makes the store, or an experiment in it."""
        if not self.offline:
            yield
            return
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".mlflow.lock"):
            yield

    def _import(self) -> None:
        """Import MLflow, which sets up how it logs by that."""
        if self.offline:
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it would tell its makers
        if self.offline and self.store == "files":
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow.tracking  # noqa: F401

    def _connect(self, place: Path) -> None:
        from mlflow.tracking import MlflowClient

        if not self.offline:
            self._client = MlflowClient()
            return
        path = self._path(place).absolute()
        uri = f"sqlite:///{path}?timeout={WAITED}" if self.store == "sqlite" else path.as_uri()
        with self._alone(place):
            self._client = MlflowClient(uri)

    def _in(self, run: Tracked) -> str:
        """The experiment of a run, made if it is not there."""
        name = self._experiment_name = self._experiment_name or run.group or ALONE
        with self._alone(run.place):
            if (found := self._client.get_experiment_by_name(name)) is None:
                place = (run.place / "mlflow" / _file_name(name)).absolute().as_uri()
                own = self.offline and self.store == "sqlite"  # which would put artifacts where one stands
                return self._client.create_experiment(name, artifact_location=place if own else None)
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return found.experiment_id

    def _known(self, run: str | None) -> str | None:
        """A run by the id that its folder has, in whichever experiment it was begun."""
        if run is None:
            return None
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        found = self._client.search_runs(experiments, f"tags.`{RUN}` = '{run}'", max_results=1)
        return found[0].info.run_id if found else None

    def _created(self, experiment: str, run: Tracked) -> str:
        tags = {
            RUN: run.run or "",
            FOLDER: str(run.folder),
            "mlflow.source.name": "straylight",
            "mlflow.source.type": "LOCAL",
        }
        with suppress(OSError, KeyError):  # of somebody whom the machine does not know
            tags["mlflow.user"] = getpass.getuser()
        name = self._run_name or run.name
        return self._client.create_run(experiment, tags={**tags, NAME: name}, run_name=name).info.run_id

    def _ask(self, asked: Mapping[str, Any]) -> None:
        """Keep what is asked for; MLflow lets nothing be asked otherwise later, so that this is a tag."""
        from mlflow.entities import Param, RunTag

        with muted():
            before = self._client.get_run(self._run).data.params
            names = distinct(asked)
            values = {names[key]: str(value)[:LONGEST] for key, value in asked.items()}
            new = [Param(name, value) for name, value in values.items() if name not in before]
            for start in range(0, len(new), AT_ONCE):
                self._client.log_batch(self._run, params=new[start : start + AT_ONCE])
            changed = [RunTag(f"resumed.{n}", v) for n, v in values.items() if before.get(n, v) != v]
            if changed:
                self._client.log_batch(self._run, tags=changed)

    def _metric(self, name: str, value: float, step: int) -> Any:
        from mlflow.entities import Metric

        return Metric(name, value, int(1000 * time.time()), step)

    def _flush(self) -> None:
        waiting, self._waiting, self._flushed = self._waiting, [], time.monotonic()
        with muted():
            for start in range(0, len(waiting), 10 * AT_ONCE):
                self._client.log_batch(self._run, metrics=waiting[start : start + 10 * AT_ONCE])


def allowed(name: str) -> str:
    """A name as every store of MLflow's takes it: no sign but `_-. ` and one slash, since names may be paths.

    Example:
        >>> [allowed(name) for name in ("train/loss", "test/tpr@fpr=0.01/A->4l", "detector.latent")]
        ['train/loss', 'test/tpr at fpr 0.01.A-_4l', 'detector.latent']
    """
    stage, slash, rest = name.partition("/")
    rest = rest.replace("@", " at ").replace("=", " ").replace("/", ".")
    return slash.join(re.sub(r"[^\w. -]", "_", part, flags=re.ASCII) for part in ([stage, rest] if slash else [stage]))


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Allowed names of several, each for one of them alone.

    Example:
        >>> distinct(["test/ap/a>b", "test/ap/a<b"])
        {'test/ap/a>b': 'test/ap.a_b', 'test/ap/a<b': 'test/ap.a_b 2'}
    """
    found: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for name in names:
        plain = allowed(name)
        taken[plain] += 1
        found[name] = plain if taken[plain] == 1 else f"{plain} {taken[plain]}"
    return found


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


@contextmanager
def muted() -> Iterator[None]:
    """MLflow, its database and what that is built on say nothing of what they do."""
    told = [logging.getLogger(name) for name in ("mlflow", "alembic", "sqlalchemy")]
    levels = [logger.level for logger in told]
    try:
        for logger in told:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(told, levels, strict=True):
            logger.setLevel(level)
