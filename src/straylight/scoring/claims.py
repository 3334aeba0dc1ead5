"""Who is at what: workers on any machine share tasks through files that they all see, and any of them may die.

A claim on a task is a symbolic link, made in one step or not at all, that names its worker: `KEY.1`, then `KEY.2` of
the one that took over from a worker that is gone. None is ever changed, or removed while workers run, so that the claim
with the highest number holds. A worker shows that it lives by the lease on a folder of its own, see
`straylight.sweep.lease`; one that leaves in good order takes that folder with it, and one that dies leaves it behind.
"""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from straylight.sweep.lease import held, leased

OVER = "-"  # in the place of a worker, where nothing is left to be done


class Claims:
    """The claims on tasks, as one worker sees and makes them.

    Args:
        folder: of the claims.
        alive: a folder with that of each worker.
        me: how this worker is called.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as place, working(Path(place, "alive")) as me:
        ...     claims, other = (Claims(Path(place), me.parent, name) for name in (me.name, "other"))
        ...     found = claims.new("a"), other.new("a"), other.take("a"), other.new("b"), claims.take("b")
        >>> found
        (True, False, False, True, True)
    """

    def __init__(self, folder: Path, alive: Path, me: str) -> None:
        self._folder, self._alive, self._me = folder, alive, me

    def new(self, key: str) -> bool:
        """Claim a task that nobody ever had; whether it is ours."""
        return self._claim(key, 1, self._me)

    def take(self, key: str) -> bool:
        """Claim a task that nobody has who lives; whether it is ours."""
        holders = self._holders(key)
        if holders and (holders[-1] == OVER or self.lives(holders[-1])):
            return False
        return self._claim(key, len(holders) + 1, self._me)

    def mine(self, key: str) -> bool:
        """Whether it is ours still, and not another's that took us for dead."""
        return self._holders(key)[-1:] == [self._me]

    def end(self, key: str) -> None:
        """Say that nothing is left to be done about a task of ours."""
        self._claim(key, len(self._holders(key)) + 1, OVER)

    def over(self, key: str) -> bool:
        """Whether somebody has said so."""
        return self._holders(key)[-1:] == [OVER]

    def deaths(self, key: str) -> int:
        """How many workers died at a task."""
        holders = set(self._holders(key)) - {self._me, OVER}
        return sum((self._alive / holder).is_dir() and not self.lives(holder) for holder in holders)

    def lives(self, worker: str) -> bool:
        """Whether a worker does."""
        return held(self._alive / worker)

    def _claim(self, key: str, number: int, worker: str) -> bool:
        try:
            (self._folder / f"{key}.{number}").symlink_to(worker)
        except FileExistsError:
            return False
        return True

    def _holders(self, key: str) -> list[str]:
        """Who has had it, the one who has it now in the end."""
        found: list[str] = []
        while True:
            try:
                found.append(str((self._folder / f"{key}.{len(found) + 1}").readlink()))
            except FileNotFoundError:
                return found


@contextmanager
def working(alive: Path) -> Iterator[Path]:
    """Be a worker, whose folder this is; it goes when the block ends, unless by an error, as which a death counts."""
    own = alive / f"{socket.gethostname()}-{secrets.token_hex(6)}"
    with leased(own, alone=False, what="worker"):
        try:
            yield own
        except Exception:
            raise
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise
        shutil.rmtree(own, ignore_errors=True)


def living(alive: Path) -> list[str]:
    """The workers that live."""
    return [one.name for one in alive.glob("*") if held(one)]


def bury(alive: Path) -> None:
    """Forget the workers that died: what they had may be tried as often as what nobody had."""
    for one in alive.glob("*"):
        if not held(one):
            shutil.rmtree(one, ignore_errors=True)
