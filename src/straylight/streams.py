"""What is printed where the encoding lacks it: no character that a file or a path brings along ends a program."""

import codecs
import io
import sys

#: What stands for characters of our own sentences where there is nothing but ASCII.
PLAINER = str.maketrans(
    {"±": "+-", "µ": "u", "μ": "u", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "√": "sqrt "}
)


def plainer(error: UnicodeError) -> tuple[str, int]:
    """Stand in for what cannot be encoded, as an error handler of `codecs`: others are shown by their number.

    Example:
        >>> "2 ± 1 µs in Zürich".encode("ascii", "straylight")
        b'2 +- 1 us in Z\\\\xfcrich'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(PLAINER)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("straylight", plainer)


def lenient() -> None:
    """Have this process print so, whoever prints, wherever to."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="straylight")
