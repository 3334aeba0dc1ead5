"""How a table is written as text: what stands between columns, in numbers, in the first line, and what is missing.

`N` rows.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from straylight.errors import DataError
from straylight.files.table import is_text
from straylight.files.words import is_number

if TYPE_CHECKING:
    import pyarrow as pa

PACKED = (".gz", ".xz", ".bz2", ".zip")
HEAD = 2**26  # bytes in which the first line must end
LINES, BLOCK = 10, 2**16  # that are read for it, as bytes are


@dataclass(frozen=True)
class Dialect:
    """What is said of a table in text, beside what its ending says.

    Args:
        separator: between columns; `None` is a comma, and a tab in `.tsv` and `.tab`.
        decimal: between whole and decimal places.
        thousands: between groups of three digits; `None` if they are not grouped.
        strip: what is taken off numbers, such as `%`; it changes no digit.
        null_values: texts that stand for nothing, beside empty ones, `NA`, `NaN`, `null` and their like.
        header: whether the first line names the columns; otherwise they are called `0`, `1` and so on. `None` takes it
            for names, and refuses it if half of them or more are numbers.
        repeated: what is done about names that stand twice, or are empty: refuse, or number them, `a`, `a.1`.
        encoding: as Python calls it.
        quote: around texts.
        skip_rows: lines before the first one.

    Raises:
        DataError: if a value is none of these.

    Example:
        >>> import pyarrow as pa
        >>> Dialect(decimal=",", thousands=".").tidied(pa.chunked_array([["1.234,5", "-7", "x"]])).to_pylist()
        ['1234.5', '-7', 'x']
    """

    separator: str | None = None
    decimal: str = "."
    thousands: str | None = None
    strip: Sequence[str] = ()
    null_values: Sequence[str] = ()
    header: bool | None = None
    repeated: Literal["refuse", "number"] = "refuse"
    encoding: str = "utf-8"
    quote: str = '"'
    skip_rows: int = 0

    def __post_init__(self) -> None:
        if self.separator == "\\t":  # as it is typed
            object.__setattr__(self, "separator", "\t")
        for name in ("separator", "decimal", "thousands", "quote"):
            if (value := getattr(self, name)) is not None and len(str(value)) != 1:
                raise DataError(f"data.csv.{name} must be one character, not {value!r}.")
        if self.thousands == self.decimal:
            raise DataError(f"data.csv.thousands and data.csv.decimal are both {self.decimal!r}.")
        if self.repeated not in ("refuse", "number"):
            raise DataError(f"data.csv.repeated must be refuse or number, not {self.repeated!r}.")
        if not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise DataError(f"data.csv.skip_rows must be a whole number of 0 or more, not {self.skip_rows!r}.")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise DataError(f"data.csv.encoding is {self.encoding!r}, which Python does not know.") from error
        for name in ("strip", "null_values"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(map(str, [value] if isinstance(value, str | int | float) else value)))

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> "Dialect":
        """From a mapping of its settings.

        Raises:
            DataError: if one is not known.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in said or {} if name not in known]:
            raise DataError(f"data.csv has no setting {unknown[0]!r}; it has {', '.join(known)}.")
        return cls(**(said or {}))

    def delimiter(self, path: Path) -> str:
        """What stands between the columns of a file."""
        tabs = {".tsv", ".tab"} & {suffix.lower() for suffix in path.suffixes}
        return self.separator or ("\t" if tabs else ",")

    def names(self, path: Path) -> tuple[list[str], int]:
        """The columns' names, and how many lines stand before the first row of data.

        Raises:
            DataError: if the first line holds data, or names stand twice.
        """
        import io

        head = b""
        with opened(path) as file:
            while len(head) < HEAD and head.count(b"\n") < self.skip_rows + LINES and (block := file.read(BLOCK)):
                head += block
        if len(head) >= HEAD and head.count(b"\n") <= self.skip_rows:
            raise DataError(f"{path} has a first line of more than {HEAD >> 20} MiB, which names no columns.")
        text = io.TextIOWrapper(io.BytesIO(head), encoding=self._python, newline="")
        for _ in range(self.skip_rows):
            text.readline()
        lines = csv.reader(text, delimiter=self.delimiter(path), quotechar=self.quote)
        first: list[str] = next(filter(None, lines), [])
        if self.header is False:
            return [str(i) for i in range(len(first))], self.skip_rows
        before = self.skip_rows + lines.line_num
        if self.repeated == "number":
            return _numbered(first), before
        data = [name for name in first if is_number(name)]
        counted = [str(i) for i in range(len(first))]
        if self.header is None and first and 2 * len(data) >= len(first) and first != counted:
            raise DataError(
                f"{path} has numbers in its first line ({', '.join(data[:3])}), where the columns' names must be; set "
                "data.csv.header=false if it has no names, and data.csv.header=true if these are they."
            )
        return first, before

    @property
    def _python(self) -> str:
        return "utf-8-sig" if self.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else self.encoding

    @property
    def tidies(self) -> bool:
        """Whether numbers are written otherwise than Python does."""
        return bool(self.decimal != "." or self.thousands or self.strip)

    def tidied(self, column: "pa.ChunkedArray") -> "pa.ChunkedArray":
        """Texts that are numbers by these settings as Python writes them; any other stays as it is."""
        import pyarrow as pa
        import pyarrow.compute as pc

        mark = re.escape(self.thousands) if self.thousands else ""
        off = f"(?:{'|'.join(map(re.escape, self.strip))})?" if self.strip else ""
        grouped = rf"\d{{1,3}}(?:{mark}\d{{3}})+|\d+" if mark else r"\d+"
        point = re.escape(self.decimal)
        number = rf"^\s*[-+]?\s*{off}\s*[-+]?(?:(?:{grouped})(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?\s*{off}\s*$"
        words = pc.cast(column, pa.string())
        plain = words
        for text in (*self.strip, *([self.thousands] if self.thousands else [])):
            plain = pc.replace_substring(plain, text, "")
        plain = pc.utf8_trim(pc.replace_substring(plain, self.decimal, "."), " \t\u00a0")
        return pc.if_else(pc.fill_null(pc.match_substring_regex(words, number), False), plain, words)

    @staticmethod
    def tidied_table(table: "pa.Table", tidy: "pa.Table") -> "pa.Table":
        """A table in which columns that hold numbers by these settings are numbers.

        Args:
            table: as it was read by rules that know nothing of them.
            tidy: the same as text, tidied.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for i, name in enumerate(table.column_names):
            if not (is_text(kind := table[name].type) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                continue
            for number in (pa.int64(), pa.float64()):
                try:
                    table = table.set_column(i, name, pc.cast(tidy[name], number))
                    break
                except pa.ArrowInvalid:
                    continue
        return table


PLAIN = Dialect()


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked if its ending says that they are packed.

    Raises:
        DataError: if a `.zip` holds anything but one file.
    """
    import bz2
    import gzip
    import lzma
    import zipfile

    match path.suffix.lower():
        case ".gz":
            with gzip.open(path) as unzipped:
                yield cast(IO[bytes], unzipped)
        case ".xz":
            with lzma.open(path) as file:
                yield file
        case ".bz2":
            with bz2.open(path) as file:
                yield file
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
                if len(inside) != 1:
                    raise DataError(
                        f"{path} holds {len(inside)} files, and must hold one; unpack the one that is meant."
                    )
                with archive.open(inside[0]) as file:
                    yield file
        case _:
            with path.open("rb") as file:
                yield file


def _numbered(names: Sequence[str]) -> list[str]:
    """Each name once: an empty one is the number of its column, and one that stood before gets a number."""
    found: dict[str, None] = {}
    times: Counter[str] = Counter()
    for i, name in enumerate(names):
        own = new = name or str(i)
        while new in found:
            times[own] += 1
            new = f"{own}.{times[own]}"
        found[new] = None
    return list(found)
