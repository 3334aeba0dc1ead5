"""What loggers have in common that keep runs of many folders beside each other, such as W&B and MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from straylight.callbacks.scored import said
from straylight.objective import CRITERIA, criterion

log = logging.getLogger(__name__)

#: What of a run's record is a number that runs are compared by, beside its metrics.
NUMBERS = ("parameters", "epochs", "best_epoch", "steps", "duration_s")


class Tracked(NamedTuple):
    """What a tracker is told of a run.

    Attributes:
        run: its id, by which one that is gone on with is found again; `None` if nobody knows.
        name: what tells it from others.
        group: the sweep that it belongs to; `None` of a run by itself.
        folder: of the run.
        place: the folder of what is kept of many runs together.
        asked: what it was asked for, by dotted keys.
    """

    run: str | None
    name: str
    group: str | None
    folder: Path
    place: Path
    asked: Mapping[str, Any]


def once(name: str) -> bool:
    """Whether a metric is measured once in a run, so that it is a number of its table and no course.

    Example:
        >>> once("test/auroc"), once("val/separation/local"), once("val/loss"), once("train/loss")
        (True, True, False, False)
    """
    return name.startswith("test/") or (name != "val/loss" and criterion(name) in CRITERIA)


class Tracker:
    """A logger that is told when a run begins, what pictures it draws and what it reached; on the first rank alone.

    What fails once a run has begun is said once, and the run goes on without this logger.
    """

    _failed = False

    @classmethod
    def lacks(cls) -> str | None:
        """What to say if packages that it needs are not installed."""
        return None

    def begin(self, run: Tracked) -> None:
        """Begin a run under its name, or go on with it.

        Raises:
            ConfigError: if that cannot be.
        """
        raise NotImplementedError

    def find(self, run: Tracked) -> bool:
        """Go on with a run that was logged before and is finished; whether it is there."""
        try:
            return self._find(run)
        except Exception as error:  # see `_try`
            log.warning(f"{type(self).__name__} cannot be gone on with: {said(error, 300)}")
            return False

    def log_png(self, tag: str, png: bytes, step: int) -> None:
        """Keep a picture, the file as it is."""
        self._try(self._picture, tag, png, step)

    def conclude(self, result: Mapping[str, Any], final: Mapping[str, float]) -> None:
        """Keep what a run reached, and end it well.

        Args:
            result: what `result.json` says.
            final: its metrics.
        """
        numbers = {name: float(v) for name in NUMBERS if isinstance(v := result.get(name), int | float)}
        self._try(self._reached, {**final, **numbers})
        self.close()

    def close(self, *, failed: bool = False) -> None:
        """End what was begun, if it was: also what nothing more is logged to, or the process would keep it open."""
        if self._failed:
            with suppress(Exception):  # it was said once
                self._end(failed)
        else:
            self._try(self._end, failed)

    # what a subclass writes

    def _find(self, run: Tracked) -> bool:
        raise NotImplementedError

    def _picture(self, tag: str, png: bytes, step: int) -> None:
        raise NotImplementedError

    def _reached(self, final: Mapping[str, float]) -> None:
        raise NotImplementedError

    def _end(self, failed: bool) -> None:
        raise NotImplementedError

    def _try(self, do: Callable[..., None], *given: Any) -> None:
        if self._failed:
            return
        try:
            do(*given)
        except Exception as error:  # as many sorts as there are stores and networks; a logger never fails a run
            self._failed = True
            log.warning(f"{type(self).__name__} failed, and logs nothing more: {said(error, 300)}")
