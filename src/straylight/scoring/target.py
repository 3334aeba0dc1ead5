"""Where scores go: one file for all, a file for each, standard output, or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from straylight.errors import ConfigError
from straylight.scoring.inputs import Input
from straylight.scoring.outputs import check, ending_of

STDOUT = "-"
LEDGER = "scored.json"


class Target(NamedTuple):
    """Where scores go.

    Attributes:
        folder: of a file for each.
        ending: of these.
        file: one for all.
        stdout: whether they are printed.
    """

    folder: Path | None = None
    ending: str = ""
    file: Path | None = None
    stdout: bool = False

    @classmethod
    def of(cls, given: str | None) -> Target:
        """From what is typed: a file by its ending, a folder, a pattern `FOLDER/*.csv`, or `-`.

        Raises:
            ConfigError: if it is none of these.

        Example:
            >>> Target.of("out/*.csv")[:2], Target.of("scores.npz").file, Target.of("out/").ending
            ((PosixPath('out'), '.csv'), PosixPath('scores.npz'), '.parquet')
        """
        if given is None:
            return cls()
        if given == STDOUT:
            return cls(ending=".csv", stdout=True)
        path = Path(given)
        if path.name.startswith("*"):
            check(path)
            if path.name != "*" + ending_of(path):
                raise ConfigError(f"{given} must be FOLDER/* and an ending, as FOLDER/*.csv.")
            return cls(path.parent, ending_of(path))
        if path.is_dir() or given.endswith("/") or not path.suffix:
            if path.is_file():
                raise ConfigError(f"{path} is a file, and a folder is needed for a file of scores each.")
            return cls(path, ".parquet")
        check(path)
        return cls(ending=ending_of(path), file=path)

    def path(self, given: Input) -> Path:
        """Of the scores of a file, if each has its own."""
        assert self.folder is not None
        return self.folder / f"{given.name}{self.ending}"

    @property
    def scratch(self) -> Path | None:
        """A folder beside for what is not done yet; `None` if nothing is kept."""
        if self.file is not None:
            return self.file.with_name(f".{self.file.name}.scoring")
        return None if self.folder is None else self.folder / ".scoring"
