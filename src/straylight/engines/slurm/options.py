"""What jobs ask of Slurm, and the script that `sbatch` is given."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straylight import checks
from straylight.errors import ConfigError
from straylight.job.devices import Asked

WARNED_S = 60  # before the time limit, to leave a checkpoint
#: What of the submitter's environment jobs are given; all else is the node's own.
ENVIRONMENT = ("PYTHONPATH", "VIRTUAL_ENV", "STRAYLIGHT_FULL_ERROR", "HYDRA_FULL_ERROR", "SLURM_CONF")
#: Options of sbatch that say how a job is told from others; with another value none would be found again.
OURS = ("job-name", "array", "export", "output", "error", "open-mode", "parsable", "wait", "wrap", "test-only")


@dataclass(frozen=True)
class Options:
    """What is asked of Slurm for each job.

    Args:
        partition, account: of the cluster; its defaults if not given.
        time: the longest that a job may take, in minutes or as Slurm writes it (`2:00:00`, `1-12`). A minute before its
            end a job leaves a checkpoint.
        cpus: of each process; by default `threads` of the job's config, or 1.
        memory: of each node, as Slurm writes it (`16G`); a number is of megabytes.
        gpus: of each node, a number or `TYPE:NUMBER`; by default as many as the Trainer asks for.
        nodes: of each job; by default `trainer.num_nodes`, which it must agree with.
        extra: more options of sbatch, by their long names without dashes; null gives one that takes no value.
        at_once: how many of the jobs that are submitted together may run at a time.
        setup: lines of the shell before the command, such as `module load cuda`; one that fails fails the job.
        python: the interpreter on the nodes; this one by default.
        environment: names of variables that jobs get from here; nothing else of it goes with them.
        requeue: how often a job that has hit its time limit goes on in another.

    Raises:
        ConfigError: if a value does not fit.
    """

    partition: str | None = None
    account: str | None = None
    time: int | str | None = None
    cpus: int | None = None
    memory: int | str | None = None
    gpus: int | str | None = None
    nodes: int | None = None
    extra: Mapping[str, Any] | None = None
    at_once: int | None = None
    setup: Sequence[str] = ()
    python: str | None = None
    environment: Sequence[str] = ENVIRONMENT
    requeue: int = 5

    def __post_init__(self) -> None:
        for name in ("cpus", "nodes", "at_once"):
            checks.number(f"hydra.launcher.{name}", getattr(self, name), whole=True, null=True)
        checks.number("hydra.launcher.requeue", self.requeue, whole=True, zero=True)
        self._looks("time", r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", "minutes, or as 2:00:00 or 1-12")
        self._looks("memory", r"\d+[KMGT]?", "megabytes, or as 16G")
        self._looks("gpus", r"([\w.-]+:)?\d+", "a number, or as a100:2")
        if str(self.time).isdigit() and int(str(self.time)) * 60 < 3 * WARNED_S:
            raise ConfigError(
                f"hydra.launcher.time={self.time} leaves a job no time: it is asked for a checkpoint one or two "
                f"minutes before the end; give at least {3 * WARNED_S // 60}."
            )
        for name in ("partition", "account", "python"):
            self._looks(name, r"[^\s\0]+", "one word")
        for name in ("setup", "environment"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(line, str) and "\0" not in line for line in value):
                raise ConfigError(f"hydra.launcher.{name} must be a list of texts, not {value!r}.")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ConfigError(f"hydra.launcher.environment names variables, and {name!r} is no name of one.")
        if not isinstance(self.extra, Mapping | None):
            raise ConfigError(f"hydra.launcher.extra must hold options of sbatch by their names, not {self.extra!r}.")
        for name, value in (self.extra or {}).items():
            if not re.fullmatch(r"[a-z][a-z-]*", str(name)) or "\n" in str(value):
                raise ConfigError(f"hydra.launcher.extra.{name}={value!r} is no option of sbatch's, as qos=long is.")
            if name in OURS:
                raise ConfigError(f"hydra.launcher.extra.{name} cannot be set: jobs are told apart by it.")

    def _looks(self, name: str, pattern: str, meant: str) -> None:
        value = getattr(self, name)
        if value is not None and (isinstance(value, bool) or not re.fullmatch(pattern, str(value))):
            raise ConfigError(f"hydra.launcher.{name} must be {meant}, not {value!r}.")

    def nodes_of(self, asked: Asked) -> int:
        """How many machines a job is of.

        Raises:
            ConfigError: if what was asked of Slurm and of the Trainer do not agree.
        """
        if self.nodes not in (None, asked.nodes):
            raise ConfigError(
                f"hydra.launcher.nodes={self.nodes}, and trainer.num_nodes={asked.nodes}: set trainer.num_nodes alone."
            )
        return asked.nodes

    def cpus_of(self, asked: Asked) -> int:
        """CPUs of each process."""
        return self.cpus or asked.threads or 1

    def flags(self, asked: Asked) -> list[str]:
        """The options of sbatch that say what a job needs."""
        nodes = self.nodes_of(asked)
        together = nodes == 1  # ranks of one node are started by one task
        cpus = self.cpus_of(asked) * (asked.ranks if together else 1)
        gpus = self.gpus if self.gpus is not None else asked.gpus or None
        given = {
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "nodes": nodes,
            "ntasks-per-node": 1 if together else asked.ranks,
            "cpus-per-task": cpus,
            "mem": self.memory,
            "gres": None if gpus is None else f"gpu:{gpus}",
            "signal": f"B:TERM@{WARNED_S}",
        }
        extra = self.extra or {}
        flags = [f"--{name}={value}" for name, value in given.items() if value is not None and name not in extra]
        return [*flags, *(f"--{name}" + ("" if value is None else f"={value}") for name, value in extra.items())]

    def script(self, name: str, listed: Path, asked: Asked, environment: Mapping[str, str]) -> str:
        """The batch script of an array of jobs.

        Args:
            name: of the array.
            listed: the file that names the folder of each job.
            asked: what each of them asks for.
            environment: of this process, of which jobs get some.
        """
        log = str(listed.with_name(f"{name}.%a.log"))
        flags = [f"--job-name={name}", f"--output={log}", "--open-mode=append", "--export=NONE", *self.flags(asked)]
        flags.append("--requeue" if self.requeue else "--no-requeue")
        exported = [f"export {key}={shlex.quote(environment[key])}" for key in self.environment if key in environment]
        setup = [f"{line} || {{ echo 'hydra.launcher.setup failed' >&2; exit 96; }}" for line in self.setup]
        command = [self.python or sys.executable, "-m", "straylight.engines.slurm.task", str(listed), str(self.requeue)]
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {shlex.quote(flag)}" for flag in flags),
            *exported,
            *setup,
            f"exec {shlex.join(command)} ${{SLURM_ARRAY_TASK_ID:-0}}",
        ]
        return "\n".join(lines) + "\n"
