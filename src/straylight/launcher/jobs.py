"""The points of a sweep: composed, told apart, and given a folder each.

A job is told from others by the hash of its composed config: a point that comes twice runs once, and a sweep that is
resumed runs what is missing, failed or new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from straylight import app, config
from straylight.errors import ConfigError
from straylight.job.devices import Asked, asked_for
from straylight.launcher import pool
from straylight.launcher.slots import Place
from straylight.report.results import read

NUMBERED = "${hydra.job.num}"
ONE = Asked(1, 0)


@dataclass
class Job:
    """One point of a sweep.

    Attributes:
        number: its place in the sweep.
        overrides: what was asked for.
        what: what tells it from the others, in words.
        config: as composed, with `hydra` in it; None before it is composed and after it has ended.
        folder: its own.
        fields: of its `result.json`.
        resume: whether it goes on with what an earlier attempt left in its folder.
        asked: how many processes it is made of, and how many GPUs it asks for.
        attempts: how often it was started.
        alone: whether it must not share a process.
        stopped: whether it was told to end before it had; `timed_out`: for taking too long.
        running: while it runs; `place`: what it was given.
        returned: what Hydra's sweeper is given; of one that comes twice, by the job that is the `same`.
    """

    number: int
    overrides: list[str]
    what: str = ""
    config: Any = None
    folder: Any = None
    fields: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    asked: Asked = ONE
    attempts: int = 0
    alone: bool = False
    stopped: bool = False
    timed_out: bool = False
    running: pool.Running | None = None
    place: Place | None = None
    returned: JobReturn | None = None
    same: Job | None = None


class Points:
    """Makes jobs of a sweep ready to run.

    Args:
        cfg: the sweep's config.
        loader: Hydra's, which composes configs.
        seen: jobs of the sweep by their identity; those made ready are added.
    """

    def __init__(self, cfg: DictConfig, loader: Any, seen: dict[str, Job]) -> None:
        self.cfg, self.loader, self.seen = cfg, loader, seen
        self.folder = Path(cfg.hydra.sweep.dir).absolute()
        self._known = _found(self.folder) if app.resuming else {}

    def ready(self, job: Job) -> str | None:
        """Give a job its config and its folder; why it need not run, if it has, here or in the sweep that is resumed.

        Raises:
            ConfigError: if its config cannot be composed; the job has a folder all the same.
        """
        asked = hashlib.sha256("\0".join(job.overrides).encode()).hexdigest()[:12]
        try:
            return self._composed(job, asked)
        except Exception as error:  # of this combination; each value by itself was tried before the first job
            given = dict(override.split("=", 1) for override in job.overrides if "=" in override)
            job.fields = {"detector": given.get("detector"), "data": given.get("data"), "overrides": job.overrides}
            job.fields |= {"config_hash": asked}
            if job.folder is None:
                job.folder = self.folder / (self._before(asked) or self._claim(str(job.number), True))
            raise ConfigError(config.explain(error) or f"{type(error).__name__}: {error}") from error

    def _composed(self, job: Job, asked: str) -> str | None:
        composed = self.loader.load_sweep_config(self.cfg, job.overrides)
        overrides: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
        choices = composed.hydra.runtime.choices
        job.fields = app.fields_of(composed, choices.get("detector"), choices.get("data"), overrides)
        identity = job.fields["config_hash"]
        if identity in self.seen:
            job.same = self.seen[identity]
            return f"is the same as #{job.same.number}: {job.what}"
        self.seen[identity] = job
        before = self._before(identity) or self._before(asked)
        result = read(self.folder / before) if before else None
        if result and result["status"] == "ok":
            job.returned = returned(job, result)
            return app.headline(result)
        job.resume = before is not None and (result is None or result["status"] == "interrupted")
        hydra = composed.hydra
        with read_write(hydra), read_write(hydra.job), read_write(hydra.sweep), open_dict(hydra.job):
            hydra.job.id = hydra.job.num = job.number
            hydra.sweep.subdir = name = before or self._named(composed)
        job.config, job.folder = composed, self.folder / name
        job.asked = asked_for(composed.trainer)
        if job.asked.gpus and OmegaConf.is_list(composed.trainer.devices):  # it sees no other devices than its own
            with read_write(composed), open_dict(composed):
                composed.trainer.devices = job.asked.gpus
        return None

    def _before(self, identity: str) -> str | None:
        """The folder, below the sweep's, in which a job has been before."""
        known = self._known.get(identity)
        return None if known is None else str(known.relative_to(self.folder))

    def _named(self, composed: DictConfig) -> str:
        """A folder that nobody else has, made for the job."""
        given: Any = OmegaConf.to_container(self.cfg.hydra.sweep, resolve=False)
        HydraConfig.instance().set_config(composed)
        return self._claim(str(OmegaConf.select(composed, "hydra.sweep.subdir")), given["subdir"] == NUMBERED)

    def _claim(self, name: str, numbered: bool) -> str:
        for attempt in range(1_000_000):
            tried = str(int(name) + attempt) if numbered else name + (f"_{attempt}" if attempt else "")
            try:
                (self.folder / tried).mkdir(parents=True)
                return tried
            except FileExistsError:
                continue
        raise ConfigError(f"{self.folder} has no room for a job's folder.")


def returned(job: Job, result: Mapping[str, Any]) -> JobReturn:
    """What Hydra's sweeper is given of a job that has such a result: its AUROC, or None of one that failed."""
    found = JobReturn(job.overrides, status=JobStatus.COMPLETED)
    found.return_value = (result.get("metrics") or {}).get("test/auroc") if result["status"] == "ok" else None
    return found


def _found(sweep: Path) -> dict[str, Path]:
    """The jobs that a sweep's folder holds, by the hash of their configs; of several alike one that ended well."""
    found: dict[str, tuple[bool, Path]] = {}
    configs = {path.parent.parent for path in sweep.rglob(".hydra/config.yaml")}
    for folder in sorted(configs | {path.parent for path in sweep.rglob("result.json")}):
        result = read(folder) or {}
        identity = result.get("config_hash")
        if identity is None and folder in configs:
            try:
                saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
            except Exception:  # cut off as the job was killed: it has no result either, and is run anew elsewhere
                continue
            identity = config.identity(saved) if isinstance(saved, DictConfig) else None
        well = result.get("status") == "ok"
        if identity is not None and (well or not found.get(identity, (False,))[0]):
            found[identity] = well, folder
    return {identity: folder for identity, (_, folder) in found.items()}
