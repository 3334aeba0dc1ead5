"""Data sets kept in files: what is missing is fetched with its checksum, or named with where to find it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from straylight.data.base import AnomalyDataModule
from straylight.errors import DataError

log = logging.getLogger(__name__)


class Remote(NamedTuple):
    """Where a file comes from.

    Attributes:
        url: of the file; one that ends in `.gz` is unpacked unless `file` ends so too.
        file: its path below the data set's root.
        hash: `"sha256:..."` or `"md5:..."` of what the URL serves; `None` where no checksum is known: such a file is
            never fetched, only named.
    """

    url: str
    file: str
    hash: str | None


class Stored(AnomalyDataModule):
    """Base of data sets kept in files below a folder. A subclass writes `files`, and `load` begins with `require`.

    A file appears under its name only when it is whole: it is fetched into a folder beside it, its checksum compared,
    unpacked and then moved.

    Args:
        root: the folder.
        download: fetch files that are missing.
        common: see `AnomalyDataModule`.

    Raises:
        DataError: from `setup`, in one sentence, if a file is missing, cannot be fetched or has another checksum.

    Example:
        >>> class Rows(Stored):
        ...     remotes = [Remote("https://example.org/rows.csv", "rows.csv", None)]
        ...     def files(self):
        ...         return [self.root / "rows.csv"]
        >>> [path.name for path in Rows(root="nowhere").missing()]
        ['rows.csv']
    """

    #: Where the files come from.
    remotes: Sequence[Remote] = ()

    def __init__(self, *, root: str, download: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.root, self.download = Path(root), download

    # what a subclass writes

    def files(self) -> list[Path]:
        """The files that this configuration needs."""
        raise NotImplementedError(f"{type(self).__name__} must write files()")

    @property
    def fetched_as(self) -> str:
        """What `straylight data fetch` is told: the name of the config, and what else it needs to be told."""
        return self.name

    # what is written once

    def missing(self) -> list[Path]:
        """Those of the files that are not there."""
        return [path for path in self.files() if not path.is_file()]

    def fetch(self) -> list[Path]:
        """Fetch what is missing and return it.

        Raises:
            DataError: if a file cannot be fetched or written, has another checksum, or must be fetched by hand.
        """
        missing = self.missing()
        fetched = [path for path in missing if self._fetch_one(path)]
        if by_hand := [path for path in missing if path not in fetched]:
            raise self._absent(by_hand)
        return fetched

    def require(self) -> None:
        """See to it that all files are there; the first thing that `load` calls.

        Raises:
            DataError: if a file is missing, or as `fetch` raises.
        """
        if self.download:
            self.fetch()
        elif missing := self.missing():
            raise self._absent(missing)

    def _remote(self, path: Path) -> Remote | None:
        return next((remote for remote in self.remotes if self.root / remote.file == path), None)

    def _fetch_one(self, path: Path) -> bool:
        import pooch
        from requests import RequestException

        remote = self._remote(path)
        if remote is None or remote.hash is None:
            return False
        pooch.get_logger().setLevel(logging.WARNING)
        by_hand = f"download it by hand into {path.parent}{_unpacked(remote)}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
                whole = pooch.retrieve(
                    remote.url,
                    known_hash=remote.hash,
                    path=folder,
                    fname=Path(remote.url).name,
                    processor=pooch.Decompress() if _unpacked(remote) else None,
                )
                Path(whole).chmod(0o644)  # pooch's temporary files are readable by their owner alone
                Path(whole).replace(path)
        except RequestException as error:
            raise DataError(
                f"{self.name}: {path.name} could not be fetched from {remote.url} ({_reason(error)}); try again later, "
                f"or {by_hand}."
            ) from error
        except ValueError as error:
            raise DataError(
                f"{self.name}: what {remote.url} serves does not have the checksum {remote.hash} of {path.name}, and "
                f"was thrown away; try again later, or {by_hand}."
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.name}: {path.name} cannot be written into {path.parent} ({error.strerror or _reason(error)}); "
                "set paths.data to a folder that can be written to."
            ) from error
        log.info(f"Fetched {path} ({path.stat().st_size / 1e6:.1f} MB) from {remote.url}.")
        return True

    def _absent(self, missing: list[Path]) -> DataError:
        first = missing[0]
        remote = self._remote(first)
        what = f"{self.name}: there is no file {first}{f', nor {n} more' if (n := len(missing) - 1) else ''}"
        if remote is None:
            return DataError(f"{what}, and it is not known where to fetch it; put it there.")
        if remote.hash is None:
            ways = f"download {remote.url} by hand into that folder{_unpacked(remote)}"
        else:
            ways = (
                f"fetch {remote.url} with data.download=true or `straylight data fetch {self.fetched_as}`, put it "
                f"into that folder by hand{_unpacked(remote)}"
            )
        return DataError(f"{what}; {ways}, or set paths.data to the folder that holds {self.root.name}/.")


def _unpacked(remote: Remote) -> str:
    return " and unpack it" if remote.url.endswith(".gz") and not remote.file.endswith(".gz") else ""


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"{response.status_code} {response.reason}"
