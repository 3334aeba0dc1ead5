"""Where jobs may run: so many at a time on the CPU, and on each GPU, shared among sweeps by lock files."""

import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from straylight.errors import ConfigError


class Place:
    """What a job was given: GPUs by their name for `CUDA_VISIBLE_DEVICES`, or so many slots of the CPU."""

    def __init__(self, gpus: Sequence[str] = (), locks: Sequence[FileLock] = (), cpu: int = 0) -> None:
        self.gpus, self._locks, self.cpu = tuple(gpus), list(locks), cpu

    def release(self) -> None:
        while self._locks:
            self._locks.pop().release()


class Slots:
    """Places for jobs.

    Args:
        n_jobs: jobs at a time on the CPU, every rank of a job counted as one.
        gpus: names of the GPUs, as `CUDA_VISIBLE_DEVICES` has them.
        jobs_per_gpu: jobs that share a GPU.
        folder: of the lock files, one for every slot of every GPU; the kernel releases those of a process that dies.
    """

    def __init__(
        self, n_jobs: int, gpus: Sequence[str] = (), jobs_per_gpu: int = 1, folder: Path | None = None
    ) -> None:
        self.n_jobs, self.gpus, self.jobs_per_gpu = n_jobs, tuple(gpus), jobs_per_gpu
        self.folder = folder or Path(tempfile.gettempdir()) / "straylight-gpus"
        self._free = n_jobs

    def take(self, gpus: int, ranks: int = 1) -> Place | None:
        """A place for a job that asks for so many GPUs, 0 for one on the CPU; None where there is none now."""
        if not gpus:
            needed = min(ranks, self.n_jobs)  # more ranks than places have all of them
            if self._free < needed:
                return None
            self._free -= needed
            return Place(cpu=needed)
        self._make()
        held: dict[str, FileLock] = {}
        for gpu in self.gpus:
            for slot in range(self.jobs_per_gpu):
                lock = FileLock(self.folder / f"{_file(gpu)}.{slot}.lock", mode=0o666, thread_local=False)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                held[gpu] = lock
                break
            if len(held) == gpus:
                return Place(list(held), list(held.values()))
        for lock in held.values():
            lock.release()
        return None

    def _make(self) -> None:
        """The folder of the lock files, which all users share and none may put something else in the place of."""
        try:
            self.folder.mkdir(parents=True)
            self.folder.chmod(0o1777)  # which is ours now, whatever the umask
        except FileExistsError:
            if not stat.S_ISDIR(self.folder.lstat().st_mode):
                raise ConfigError(f"{self.folder} is to hold locks of GPUs and is no folder: remove it.") from None

    def give_back(self, place: Place) -> None:
        """Free what a job had."""
        self._free += place.cpu
        place.release()


def _file(gpu: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in gpu)
