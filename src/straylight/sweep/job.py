"""A job of a sweep, from a point among others to what it returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.utils import JobReturn

from straylight.folder import RunFolder
from straylight.job.devices import Asked
from straylight.job.order import Order
from straylight.sweep.point import Point


@dataclass
class Job:
    """One point of a sweep.

    Attributes:
        number: its place in the sweep.
        overrides: what was asked for.
        what: what tells it from the others, in words.
        added: what its config has besides, by group and name, which changes nothing of which job it is.
        point: as composed; None before it is composed and since its folder says all of it.
        ready: whether it was composed and is to run.
        folder: its own; `claimed` if it was made for it just now.
        fields: of its `result.json`.
        order: what its folder says while it waits for its place and runs.
        resume: whether it goes on with what an earlier attempt left in its folder.
        asked: what it asks of the engine.
        attempts: how often it was started; `lost`: how often besides, when what runs jobs was killed.
        stopped: whether it was told to end before it had; `timed_out`: for taking too long.
        id: what the engine calls it while it runs, or by what an earlier launcher's still might; `engine`: which that
            is, by its name; `started`: when it began to run.
        returned: what Hydra's sweeper is given; of one that comes twice, by the job that is the `same`.
    """

    number: int
    overrides: list[str]
    what: str = ""
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    point: Point | None = None
    ready: bool = False
    folder: RunFolder | None = None
    claimed: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    order: Order | None = None
    resume: bool = False
    asked: Asked = field(default_factory=Asked)
    attempts: int = 0
    lost: int = 0
    stopped: bool = False
    timed_out: bool = False
    id: str | None = None
    engine: str | None = None
    started: float = 0.0
    returned: JobReturn | None = None
    same: Job | None = None
