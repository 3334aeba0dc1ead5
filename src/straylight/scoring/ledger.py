"""What is done already, so that who starts again goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from straylight.atomic import write_json


class Ledger:
    """Files that are there whole, and what they were made of.

    A file is entered under the size and the time that it has, before it takes its name, which changes neither: one that
    stands in the ledger and in its place is done, and one that lacks either is made again.

    Args:
        path: of the ledger.
        job: what all of its files were made by; those of another are forgotten.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("whole")
        ...     Ledger(Path(folder, "done.json"), {"of": 1}).enter(path, path, ["one", 3], {"rows": 2})
        ...     [Ledger(Path(folder, "done.json"), {"of": n}).done(path, ["one", 3]) for n in (1, 2)]
        [{'rows': 2}, None]
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path, self._job = path, _read_again(job)
        self.known: dict[str, Any] = {}
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        if isinstance(kept, dict) and kept.get("job") == self._job and isinstance(kept.get("files"), dict):
            self.known = kept["files"]

    def done(self, path: Path, made_of: Any) -> dict[str, Any] | None:
        """What is known of a file that is there whole and was made of this; `None` if there is none."""
        entry = self.known.get(path.name)
        try:
            held = path.stat()
        except OSError:
            return None
        if entry is None or entry["made_of"] != _read_again(made_of):
            return None
        return entry["known"] if [held.st_size, held.st_mtime_ns] == entry["is"] else None

    def enter(self, path: Path, aside: Path, made_of: Any, known: Mapping[str, Any], digest: bool = False) -> None:
        """Enter a file that stands aside and is to take its place next, with its SHA-256 if that is wanted."""
        held = aside.stat()
        entry = {"made_of": made_of, "is": [held.st_size, held.st_mtime_ns], "known": dict(known)}
        if digest:
            with aside.open("rb") as file:
                entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        self.known[path.name] = entry
        self.write()

    def take(self, path: Path, other: Ledger) -> None:
        """Take over what another ledger of the same job says of a file; `write` keeps it."""
        self.known[path.name] = other.known[path.name]

    def write(self) -> None:
        """Keep all that it says."""
        write_json(self.path, {"job": self._job, "files": self.known})


def _read_again(value: Any) -> Any:
    """Plain values as they are once they were written and read."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
