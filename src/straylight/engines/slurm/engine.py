"""The engine of a cluster that Slurm keeps: arrays of jobs, which outlive whoever submitted them."""

import os
import secrets
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from straylight.atomic import replacing
from straylight.engines import node
from straylight.engines.base import Ended, Running
from straylight.engines.slurm import commands
from straylight.engines.slurm.commands import Line, Unanswered
from straylight.engines.slurm.options import Options
from straylight.folder import RunFolder
from straylight.job.devices import Asked

LOOKED_S = 2.0  # between two questions to Slurm
GATHERED_S = 2.0  # for which jobs are gathered into one array
SEEN_S = 30.0  # for what a node wrote to be seen here
JOBS = ".jobs"  # in a sweep's folder: what arrays are made of

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
GOING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
#: What a job could not help.
LOST = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"}
#: How jobs end that say nothing themselves.
SAID = {
    "TIMEOUT": "ran into its time limit (hydra.launcher.time)",
    "DEADLINE": "ran into its deadline",
    "OUT_OF_MEMORY": "took more memory than it had asked for (hydra.launcher.memory)",
    "CANCELLED": "was cancelled",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "had to make room for another",
    "BOOT_FAIL": "had a node that did not start",
}


def check(options: Options) -> None:
    """See that Slurm is here and takes jobs that ask for this.

    Raises:
        ConfigError: if not, in its own words.
    """
    commands.needed()
    commands.tried(options.script(f"{commands.PREFIX}test", Path("/dev/null"), Asked(nodes=options.nodes or 1), {}))


@dataclass
class _Array:
    """Jobs that are submitted together.

    Attributes:
        name: by which they are found, whoever asks.
        asked: what each of them asks for.
        since: when the first came.
        folders: of each.
        given_up: places of those that are to end before they were submitted.
    """

    name: str
    asked: Asked
    since: float
    folders: list[RunFolder] = field(default_factory=list)
    given_up: set[int] = field(default_factory=set)

    @property
    def ids(self) -> list[str]:
        """Of all of them."""
        return [f"{self.name}_{place}" for place in range(len(self.folders))]

    @property
    def places(self) -> list[int]:
        """Of those that are to be submitted."""
        return [place for place in range(len(self.folders)) if place not in self.given_up]


class SlurmEngine:
    """Submits jobs in arrays, whose names are unique, so that whoever comes later can ask for them.

    Slurm is asked for all jobs at once every two seconds, needs no accounting for that, and is believed where it says
    that a job has ended: what it does not know any more has, and where it does not answer nothing is concluded.

    Args:
        options: what each job asks for.
        place: the folder of the sweep, which the nodes must see under the same path.
    """

    name = "slurm"
    outlives = queues = True

    def __init__(self, options: Options, place: Path) -> None:
        self.options, self.place = options, place.absolute() / JOBS
        self._open: list[_Array] = []
        self._folders: dict[str, RunFolder] = {}
        self._refused: dict[str, str] = {}
        self._known: dict[str, Line] = {}  # as Slurm said last
        self._told: dict[str, Running] = {}  # as they say themselves
        self._completed: dict[str, float] = {}  # when that was seen, of those whose result was not
        self._to_tell: set[str] = set()  # that they are to end
        self._until: dict[str, float] = {}  # when they must have
        self._asked_at: float | None = None
        self._silent = ""
        self._largest: int | None = None

    # submitting

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        """See `Engine`. Slurm keeps the queue, so there is always room."""
        asked = asked._replace(alone=False, patience_s=None)
        if self._largest is None:
            self._largest = commands.largest_array()
        array = next((a for a in self._open if a.asked == asked and len(a.folders) < (self._largest or 1)), None)
        if array is None:
            array = _Array(f"{commands.PREFIX}{secrets.token_hex(6)}", asked, time.monotonic())
            self._open.append(array)
        folder.result.unlink(missing_ok=True)  # of before: a job that dies at once says nothing
        array.folders.append(folder)
        id = f"{array.name}_{len(array.folders) - 1}"
        self._folders[id] = folder
        return id

    def _submit_open(self, *, all_of_them: bool) -> None:
        now = time.monotonic()
        ready = [a for a in self._open if all_of_them or (not self.options.at_once and now - a.since > GATHERED_S)]
        for array in ready:
            self._open.remove(array)
            if array.places:
                self._submit(array)

    def _submit(self, array: _Array) -> None:
        listed = self.place / f"{array.name}.txt"
        with replacing(listed) as aside:
            aside.write_text("".join(f"{folder.path.absolute()}\n" for folder in array.folders), encoding="utf-8")
        script = self.options.script(array.name, listed, array.asked, os.environ)
        listed.with_suffix(".sh").write_text(script, encoding="utf-8")
        ids = [array.ids[place] for place in array.places]
        try:
            number = commands.submitted(script, array.places, self.options.at_once)
        except Unanswered as error:
            if not self._ask() or not any(id in self._known for id in ids):  # it may have come through
                self._refused |= dict.fromkeys(ids, f"was refused by Slurm: {error}")
            return
        for id in ids:  # until it is asked
            self._known[id] = Line(f"{number}_{id.rpartition('_')[2]}", "PENDING", 0, "", "None")

    # looking

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        """See `Engine`."""
        self._submit_open(all_of_them=False)
        self._end_those_asked()
        if self._asked_at is None or time.monotonic() - self._asked_at >= LOOKED_S:
            self._ask()
        unsent = {array.ids[place] for array in self._open for place in array.places}
        return {id: Running("not submitted yet", queued=True) if id in unsent else self._state(id) for id in ids}

    def _ask(self) -> bool:
        """Ask Slurm for all jobs; whether it answered."""
        self._asked_at = time.monotonic()
        try:
            self._known, self._silent = commands.listed(), ""
        except Unanswered as error:
            self._silent = f"Slurm does not answer: {error}"
            return False
        self._told = {
            id: node.told(self._folders[id])
            for id, line in self._known.items()
            if line.state == "RUNNING" and id in self._folders
        }
        return True

    def _state(self, id: str) -> Running | Ended:
        if (words := self._refused.pop(id, None)) is not None:
            return Ended(None, said=words)
        line, folder = self._known.get(id), self._folders.get(id)
        if line is None:
            return Running(self._silent) if self._silent else Ended(None, log=self._log(id, folder))
        if line.state in WAITING:
            return Running(line.reason if line.reason != "None" else "", queued=True)
        if line.state in GOING:
            return Running(self._silent or self._told.get(id, Running()).line, line.nodes)
        unseen = line.state == "COMPLETED" and folder is not None and not folder.result.is_file()
        if unseen and time.monotonic() - self._completed.setdefault(id, time.monotonic()) < SEEN_S:
            return Running("its result is waited for", line.nodes)
        return _ended(line, self._log(id, folder))

    def _log(self, id: str, folder: RunFolder | None) -> str:
        """What there is to read of a job: what it printed, or what its script did before."""
        name, _, place = id.rpartition("_")
        script = self.place / f"{name}.{place}.log"
        if script.is_file() and script.stat().st_size:
            return str(script)
        return str(folder.log(0)) if folder is not None else str(script)

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """See `Engine`. Whoever waits has nothing more to submit for now."""
        self._submit_open(all_of_them=True)
        time.sleep(seconds)

    # ending

    def stop(self, id: str, grace_s: float) -> None:
        """See `Engine`. Those that wait never begin."""
        for array in self._open:
            if id in array.ids:
                array.given_up.add(array.ids.index(id))
                self._refused[id] = "was stopped before it was submitted"
                return
        self._until[id] = time.monotonic() + grace_s
        self._to_tell.add(id)

    def close(self) -> None:
        """Jobs that Slurm has are left to it."""

    def _end_those_asked(self) -> None:
        """Tell all at once that are to end, and kill those that were told long ago."""
        now = time.monotonic()
        fresh = self._numbers(self._to_tell)
        late = self._numbers(id for id, until in self._until.items() if now > until)
        try:
            if fresh:
                commands.told(fresh, "--state=PENDING")
                commands.told(fresh, "--state=RUNNING", "--signal=INT", "--batch")  # the script is the job
                self._to_tell.clear()
                self._asked_at = None
            if late:
                commands.told(late, "--signal=KILL", "--full")
                commands.told(late)
                self._until = {id: until for id, until in self._until.items() if until >= now}
                self._asked_at = None
        except Unanswered as error:
            self._silent = f"Slurm does not answer: {error}"

    def _numbers(self, ids: Iterable[str]) -> list[str]:
        known = (self._known.get(id) for id in ids)
        return sorted(line.number for line in known if line is not None and line.state in WAITING | GOING)


def _ended(line: Line, log: str) -> Ended:
    """How a job ended that Slurm says has."""
    status, signal = line.code >> 8, line.code & 127
    said = SAID.get(line.state) or node.SAID.get(status)
    if said is not None and line.nodes:
        said = f"on {line.nodes} {said}"
    return Ended(None if signal else status, signal or None, log, lost=line.state in LOST, said=said)
