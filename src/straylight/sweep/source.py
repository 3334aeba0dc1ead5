"""Where the jobs of a sweep come from that are chosen by what earlier ones reached."""

from __future__ import annotations

from typing import Protocol

from straylight.sweep.job import Job


class Source(Protocol):
    """Is asked for jobs while others run, and told of each as it ends."""

    def more(self) -> list[Job]:
        """Jobs that may begin now; none as long as others must end first, or when there is nothing left to do."""
        ...

    def ended(self, job: Job) -> None:
        """A job is not tried again: what it reached is in its folder, or in that of the `same`, which may still run.

        Not told of those that a sweep ends which is interrupted.
        """
        ...
