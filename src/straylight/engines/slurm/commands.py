"""Slurm's own commands, each asked as seldom as will do."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from straylight.errors import ConfigError

PREFIX = "straylight-"  # of the names of all arrays, by which they are found again
PATIENCE_S = 60.0  # for an answer
MANY = 500  # jobs that one command names
#: What squeue is asked for of each job, and how wide the columns are that it writes.
COLUMNS = {"Name": 64, "JobArrayID": 32, "State": 20, "exit_code": 12, "NodeList": 96, "Reason": 64}


class Unanswered(Exception):
    """Slurm did not answer, which says nothing of its jobs."""


class Line(NamedTuple):
    """What squeue says of a job.

    Attributes:
        number: Slurm's own, with the place in the array.
        state: such as `RUNNING`.
        code: the status of its script as `wait` has it.
        nodes: that it is on.
        reason: why it waits, or ended.
    """

    number: str
    state: str
    code: int
    nodes: str
    reason: str


def needed() -> None:
    """See that Slurm is here.

    Raises:
        ConfigError: if not.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm asks Slurm's sbatch, which is not on this machine: type the command on a login node "
            "of the cluster, or leave hydra/launcher out to run the sweep here."
        )


def listed() -> dict[str, Line]:
    """All jobs of ours that Slurm still knows, by the array's name and their place in it.

    Raises:
        Unanswered: if it does not say.
    """
    asked = ",".join(f"{name}:{width}" for name, width in COLUMNS.items())
    found = {}
    for text in _asked("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-O", asked).splitlines():
        values, at = [], 0
        for width in COLUMNS.values():
            values.append(text[at : at + width].strip())
            at += width
        name, number, state, code, nodes, reason = values
        if name.startswith(PREFIX) and "_" in number:
            place = number.rpartition("_")[2]
            found[f"{name}_{place}"] = Line(number, state, int(code) if code.isdigit() else 0, nodes, reason)
    return found


def submitted(script: str, places: Sequence[int], at_once: int | None = None) -> str:
    """Submit an array of jobs, each with a place in it; Slurm's number of it.

    Raises:
        Unanswered: if Slurm refuses, with its words, or does not answer.
    """
    array = f"--array={_ranges(places)}" + (f"%{at_once}" if at_once else "")
    return _asked("sbatch", "--parsable", array, said=script).strip().partition(";")[0]


def _ranges(places: Sequence[int]) -> str:
    """Places as Slurm writes them.

    Example:
        >>> _ranges([0, 1, 2, 5, 7, 8])
        '0-2,5,7-8'
    """
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place - 1:
            found[-1][1] = place
        else:
            found.append([place, place])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def tried(script: str) -> None:
    """Have Slurm look at a script without taking it.

    Raises:
        ConfigError: if it would refuse it.
    """
    try:
        _asked("sbatch", "--test-only", "--array=0-0", said=script)
    except Unanswered as error:
        raise ConfigError(f"Slurm takes no job as hydra.launcher asks for it: {error}") from error


def largest_array() -> int:
    """How many jobs an array may have."""
    try:
        for line in _asked("scontrol", "show", "config").splitlines():
            if line.startswith("MaxArraySize"):
                return max(1, int(line.partition("=")[2]) - 1)
    except (Unanswered, ValueError):
        pass
    return 1000  # Slurm's own default


def told(numbers: Sequence[str], *options: str) -> None:
    """Have `scancel` tell jobs something; those that have ended are not an error.

    Raises:
        Unanswered: if Slurm does not answer.
    """
    for at in range(0, len(numbers), MANY):
        _asked("scancel", "--quiet", *options, *numbers[at : at + MANY])


def requeued(number: str) -> bool:
    """Whether Slurm puts a job back into its queue."""
    try:
        _asked("scontrol", "requeue", number)
    except Unanswered:
        return False
    return True


def shown(number: str) -> Mapping[str, str]:
    """What `scontrol show job` says of a job; nothing where it does not say."""
    try:
        said = _asked("scontrol", "-o", "show", "job", number)
    except Unanswered:
        return {}
    return dict(word.split("=", 1) for word in said.split() if "=" in word)


def _asked(*command: str, said: str | None = None) -> str:
    try:
        ended = subprocess.run(
            command,
            input=said,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            start_new_session=True,  # Ctrl-C is not for it
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unanswered(f"{command[0]}: {error}") from error
    if ended.returncode:
        words = list(_sentences(ended.stderr.splitlines()))
        raise Unanswered(" ".join(words) or f"{command[0]} ended with status {ended.returncode}")
    return ended.stdout


def _sentences(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if text := line.partition("error: ")[2] or line.strip():
            yield text if text.endswith(".") else f"{text}."
