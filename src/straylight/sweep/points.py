"""The points of a sweep: composed, told apart, and given a folder each.

A job is told from others by the hash of its composed config: a point that comes twice runs once, and a sweep that is
resumed runs what is missing, failed or new.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from straylight import config, objective
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.order import Order, placed
from straylight.overrides import ranged, value_of
from straylight.result import headline
from straylight.sweep.command import Command
from straylight.sweep.composer import Composer
from straylight.sweep.job import Job
from straylight.sweep.point import Point, Whole
from straylight.trust import check, check_hydra

NUMBERED = "${hydra.job.num}"


class Points:
    """Makes jobs of a sweep ready to run.

    Args:
        cfg: the sweep's config.
        compose: the configs of its jobs.
        seen: jobs of the sweep by their identity; those made ready are added.
        command: says whether jobs of before are looked for in the sweep's folder, and what configs may build.
    """

    def __init__(self, cfg: DictConfig, compose: Composer, seen: dict[str, Job], command: Command) -> None:
        self.cfg, self.compose, self.seen, self.trust = cfg, compose, seen, command.trust
        self.folder = SweepFolder(Path(cfg.hydra.sweep.dir).absolute())
        asked: Any = OmegaConf.to_container(cfg.hydra, resolve=False)
        params = asked["sweeper"].get("params") or {}
        self.numbered = asked["sweep"]["subdir"] == NUMBERED
        self.ranged = ranged([*asked["overrides"]["task"], *(f"{key}={value}" for key, value in params.items())])
        self._known = dict(self._before()) if command.resume else {}

    def ready(self, job: Job) -> str | None:
        """Give a job its config and its folder; why it need not run, if it has, here or in the sweep that is resumed.

        Raises:
            ConfigError: if its config cannot be composed; the job has a folder all the same.
        """
        typed = hashlib.sha256("\0".join(job.overrides).encode()).hexdigest()[:12]
        try:
            return self._composed(job, typed)
        except Exception as error:  # of this combination; each value by itself was tried before the first job
            given = {
                group: value_of(o) for o in job.overrides for group in ("detector", "data") if o.startswith(f"{group}=")
            }
            job.fields = {"detector": None, "data": None, **given, "overrides": job.overrides, "config_hash": typed}
            job.folder = job.folder or self._known.get(typed) or self.folder.claim(str(job.number), True)
            raise ConfigError(config.explain(error) or f"{type(error).__name__}: {error}") from error

    def _composed(self, job: Job, typed: str) -> str | None:
        point = self._point(job.overrides)
        job.fields = point.fields(self.ranged)
        identity = job.fields["config_hash"]
        if identity in self.seen:
            job.same = self.seen[identity]
            return f"is the same as #{job.same.number}: {job.what}"
        self.seen[identity] = job
        before = self._known.get(identity) or self._known.get(typed)
        result = before.read() if before else None
        if result and result["status"] == "ok":
            job.folder, job.returned = before, returned(job, result)
            return headline(result)
        job.resume = before is not None and (result is None or result["status"] == "interrupted")
        if before is not None and result is None and (order := _order(before)) is not None:
            job.id, job.engine = order.id, order.engine  # which may run on where the launcher that started it has died
        job.folder, job.claimed = before or self._named(point, job.number), before is None
        job.asked, job.point = point.asked(), point
        return None

    def _point(self, overrides: Sequence[str]) -> Point:
        if self.trust is None:  # all of it was typed
            return self.compose.point(overrides)
        composed = self.compose(overrides)
        trusted_job(composed, self.cfg, self.trust)
        return Whole(composed, overrides)

    def place(self, job: Job) -> Order:
        """Have the folder of a job that is made ready say what to do."""
        assert job.folder is not None and job.point is not None
        folder, asked = job.folder.path, job.asked
        parts = job.point.parts(job.number, str(folder), str(folder.relative_to(self.folder.path)))
        if job.added:
            parts = parts.beside(job.added)
        ranks, nodes = asked.ranks * asked.nodes, asked.nodes
        return placed(parts, job.folder, job.fields, resume=job.resume, ranks=ranks, gpus=asked.gpus, nodes=nodes)

    def _named(self, point: Point, number: int) -> RunFolder:
        """A folder that nobody else has, made for the job."""
        return self.folder.claim(str(number) if self.numbered else point.subdir(number), self.numbered)

    def _before(self) -> Iterator[tuple[str, RunFolder]]:
        """The jobs in the sweep's folder, by the hash of their configs; of several alike one that ended well."""
        last: list[tuple[str, RunFolder]] = []
        for run in self.folder.runs():
            result = run.read()
            if (identity := self._identity(run, result)) is None:
                continue
            if result and result["status"] == "ok":
                last.append((identity, run))
            else:
                yield identity, run
        yield from last

    def _identity(self, run: RunFolder, result: Mapping[str, Any] | None) -> str | None:
        """The hash of a job of before; by its saved config where it was taken otherwise than now."""
        fields = result
        if result is None and (order := _order(run)) is not None:
            fields = order.fields
        if fields and fields.get("config_hash") and fields.get("ranged") == sorted(self.ranged):
            return str(fields["config_hash"])
        if not run.config.is_file():
            return str(fields["config_hash"]) if fields and fields.get("config_hash") else None
        try:
            return config.identity(config.saved(run), ranged=self.ranged)
        except ConfigError:  # cut off as the job was killed: it has no result either, and is run anew elsewhere
            return None


def trusted_job(composed: DictConfig, cfg: DictConfig, trust: Collection[str] | None) -> None:
    """See that a job builds, and Hydra around it runs, nothing that came with a folder and that nobody trusts.

    Args:
        composed: the job's config.
        cfg: the sweep's, whose part of Hydra's was looked at before.
        trust: see `Run.open`; `None` where all of it was typed.

    Raises:
        ConfigError: for the first thing that is not trusted.
    """
    if trust is None:
        return
    plain: Any = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    check_hydra(plain.pop("hydra"), OmegaConf.to_container(cfg.hydra, resolve=False, enum_to_str=True), trust)
    check(plain, trust)


def _order(run: RunFolder) -> Order | None:
    """What a job of before was to do; `None` if nobody knows, as where it was cut off."""
    try:
        return Order.read(run)
    except ConfigError:
        return None


def returned(job: Job, result: Mapping[str, Any]) -> JobReturn:
    """What Hydra's sweeper is given of a job that has such a result: see `objective.returned`."""
    found = JobReturn(job.overrides, status=JobStatus.COMPLETED)
    found.return_value = objective.returned(result)
    return found
