"""A cluster of Ray's: one that is there, or one that is started on this machine and leaves nothing behind."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from straylight.console import say
from straylight.engines.ray.options import Options
from straylight.errors import ConfigError

START_S = 300.0  # after which a start that waits for its own parts is given up
STORE_BYTES = 80 * 2**20  # of shared memory, through which nothing of ours goes; the least that Ray takes
SHORT = 30  # letters of a folder whose sockets still have names that the kernel takes
PREFIX = "straylight-ray."


class Cluster:
    """A connection to a cluster, which was started for it where none was named.

    Args:
        options: which cluster.

    Raises:
        ConfigError: if it cannot be reached, or does not start.
    """

    def __init__(self, options: Options) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray: Any = ray
        self.started = options.address is None
        self._connected = not ray.is_initialized()  # a program that uses Ray itself stays connected
        self._place: _Place | None = None
        if not self._connected:
            self.started = False
            return
        _keep_quiet(ray)
        with _own_signals():
            if self.started:
                self._start()
            else:
                options.answered()
                self._connect(str(options.address))

    def nodes(self) -> dict[str, dict[str, float]]:
        """What each node that is there has in all, by its id."""
        return {node["NodeID"]: node["Resources"] for node in self.ray.nodes() if node["Alive"]}

    def close(self) -> None:
        """Leave the cluster, and end it if it was started for this."""
        if self._connected:
            with _own_signals():
                self.ray.shutdown()
        if self._place is not None:
            self._place.close()

    def _start(self) -> None:
        for left in (1, 0):  # on a machine that is busy its parts wait in vain for each other now and then
            self._place = _Place()
            watch = threading.Timer(START_S, _give_up)
            watch.start()
            try:
                self.ray.init(
                    address="local",
                    num_cpus=len(os.sched_getaffinity(0)),
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(self._place.path),
                )
                return
            except Exception as error:
                self.ray.shutdown()
                self._place.close()
                if not left:
                    said = " ".join(str(error).split())
                    raise ConfigError(f"Ray did not start on this machine, twice ({said[:300]}).") from error
                say("Warning: Ray did not start; another try.", error=True)
            finally:
                watch.cancel()

    def _connect(self, address: str) -> None:
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError, AssertionError) as error:
            self.ray.shutdown()
            said = " ".join(str(error).split())
            raise ConfigError(
                f"hydra.launcher.address={address} cannot be connected to: {said[:400]} A sweep is submitted on a node "
                "of the cluster, by the same versions of Ray and Python."
            ) from error


class _Place:
    """A folder for what Ray writes, which no other has: removed in the end, or by the next one if its owner died."""

    def __init__(self) -> None:
        top = Path(tempfile.gettempdir())
        top = top if len(str(top)) <= SHORT else Path("/tmp")
        for lock in top.glob(f"{PREFIX}*.lock"):
            with suppress(Timeout, OSError), FileLock(lock, blocking=False):  # of nobody who lives
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        self.path = top / f"{PREFIX}{os.getpid()}"
        self._lock = FileLock(f"{self.path}.lock")
        self._lock.acquire(blocking=False)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def _keep_quiet(ray: Any) -> None:
    """Have Ray not print the logs of a node that died amid what a sweep tells, whatever `log_to_driver` says."""
    with suppress(AttributeError):  # of another version, which may print them
        worker = ray._private.worker
        assert callable(worker.print_to_stdstream)
        worker.print_to_stdstream = lambda *_, **__: None


def _give_up() -> None:
    """End the node that is being started, for which Ray itself would wait for ever."""
    for process in psutil.Process().children():
        if process.name() == "raylet":
            process.kill()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals, for which Ray puts its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
