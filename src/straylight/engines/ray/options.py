"""What jobs ask of Ray, and which cluster they are given to."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from straylight import checks
from straylight.errors import ConfigError
from straylight.job.devices import Asked

ANSWER_S = 5.0  # for a head node to take a connection
#: What of the submitter's environment jobs are given on a cluster; all else is the node's own.
ENVIRONMENT = ("STRAYLIGHT_FULL_ERROR", "HYDRA_FULL_ERROR")


class Needs(NamedTuple):
    """What a job asks of each node that it is on.

    Attributes:
        cpus, gpus: so many; fractions share one.
        nodes: different ones.
    """

    cpus: float
    gpus: float
    nodes: int = 1

    @property
    def words(self) -> str:
        """In words.

        Example:
            >>> Needs(4, 0.5).words, Needs(1, 0, 2).words
            ('4 CPUs and 0.5 GPUs', '1 CPU on each of 2 nodes')
        """
        found = amounts(self.cpus, self.gpus)
        return f"{found} on each of {self.nodes} nodes" if self.nodes > 1 else found


@dataclass(frozen=True)
class Options:
    """What is asked of Ray for each job.

    Args:
        address: of a cluster's head node, as `HOST:PORT`; `auto` is the one that this machine is a node of; by default
            one is started here, and ended with the sweep.
        cpus: of each job, on each of its nodes: a whole number, or a fraction below 1. By default as many as its config
            has `threads`, for every rank.
        gpus: the same; by default as many as the Trainer asks for. Jobs of 0.5 share a GPU by two.
        autoscaling: whether the cluster gets nodes when they are asked for, so that a job that fits none which is there
            now waits, and is not refused.
        environment: names of variables that jobs get from here, on a cluster that was not started here.

    Raises:
        ConfigError: if a value does not fit.
    """

    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    autoscaling: bool = False
    environment: Sequence[str] = ENVIRONMENT

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            checks.number(f"hydra.launcher.{name}", value, null=True, zero=name == "gpus")
            if value is not None and value > 1 and value != int(value):
                raise ConfigError(f"hydra.launcher.{name} must be a whole number or a fraction below 1, not {value}.")
        if not isinstance(self.autoscaling, bool):
            raise ConfigError(f"hydra.launcher.autoscaling must be true or false, not {self.autoscaling!r}.")
        names = self.environment
        if isinstance(names, str) or not all(isinstance(n, str) and re.fullmatch(r"[A-Za-z_]\w*", n) for n in names):
            raise ConfigError(f"hydra.launcher.environment must be a list of names of variables, not {names!r}.")
        if self.address is not None and self.address != "auto":
            self._host_and_port()

    def needs(self, asked: Asked) -> Needs:
        """What a job needs that asks for this.

        Example:
            >>> Options().needs(Asked(ranks=2, threads=3)), Options(cpus=1, gpus=0.5).needs(Asked(gpus=1))
            (Needs(cpus=6, gpus=0, nodes=1), Needs(cpus=1, gpus=0.5, nodes=1))
        """
        cpus = asked.ranks * (asked.threads or 1) if self.cpus is None else self.cpus
        return Needs(cpus, asked.gpus if self.gpus is None else self.gpus, asked.nodes)

    def answered(self) -> None:
        """See that somebody is at the address.

        Raises:
            ConfigError: if not.
        """
        if self.address is None or self.address == "auto":
            return
        try:
            socket.create_connection(self._host_and_port(), ANSWER_S).close()
        except OSError as error:
            raise ConfigError(
                f"hydra.launcher.address={self.address} does not answer ({error.strerror or error}): give HOST:PORT of "
                "a cluster's head node as `ray start --head` printed it, auto on a node of the cluster, or leave it "
                "out to have one started here."
            ) from error

    def _host_and_port(self) -> tuple[str, int]:
        host, _, port = str(self.address).rpartition(":")
        if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host) or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ConfigError(
                f"hydra.launcher.address must be HOST:PORT of a cluster's head node (often port 6379), or auto, not "
                f"{self.address!r}; a sweep is submitted on a node of the cluster, not through Ray's client."
            )
        return host.strip("[]"), int(port)


def amounts(cpus: float, gpus: float) -> str:
    """So many CPUs and GPUs, in words.

    Example:
        >>> amounts(1, 0), amounts(2, 1)
        ('1 CPU', '2 CPUs and 1 GPU')
    """
    found = [f"{count:g} {what}{'s' * (count != 1)}" for count, what in ((cpus, "CPU"), (gpus, "GPU")) if count]
    return " and ".join(found) or "nothing"
