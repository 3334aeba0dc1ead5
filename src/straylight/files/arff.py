"""The head of an ARFF file, the format of Weka: names of its columns, and where its rows begin.

Reference:
    https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/
"""

import re
from typing import IO

from straylight.errors import DataError

ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+?))(?:\s+|(?=\{))(.+)""", re.IGNORECASE
)


def head(file: IO[str], path: object) -> tuple[list[str], int]:
    """The columns' names, and how many lines stand before the first row of data.

    Raises:
        DataError: if it has no rows of data, or they are sparse.

    Example:
        >>> from io import StringIO
        >>> head(StringIO("@relation r\\n@attribute 'a b' real\\n@ATTRIBUTE c {x, y}\\n@data\\n1,x\\n"), "mine.arff")
        (['a b', 'c'], 4)
    """
    names: list[str] = []
    for number, line in enumerate(file, 1):
        word = line.strip()
        if found := ATTRIBUTE.fullmatch(word):
            names.append(next(name for name in found.groups() if name is not None).replace("\\", ""))
        elif word.lower().startswith("@data"):
            for row in file:
                if row.strip() and not row.lstrip().startswith("%"):
                    if row.lstrip().startswith("{"):
                        raise DataError(f"{path} has sparse rows, which are not read; write all values of each row.")
                    break
            return names, number
    raise DataError(f"{path} is no ARFF: it has no line @data.")
