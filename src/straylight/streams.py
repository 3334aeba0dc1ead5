"""What is printed: no character that a file or a path brings along ends a program, or commands a terminal."""

import codecs
import io
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

#: What stands for characters of our own sentences where there is nothing but ASCII.
PLAINER = str.maketrans(
    {"±": "+-", "µ": "u", "μ": "u", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "√": "sqrt "}
)


#: What terminals act on, but for the end of a line and a tab: C0, DEL and C1, and what turns the direction of writing.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A text whose control characters are shown and not sent.

    Example:
        >>> plain("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def with_names() -> None:
    """Begin anew in Python's UTF-8 mode where the locale knows ASCII alone.

    Other characters of what was typed would be no text there, which neither a config nor a table can hold. What is
    printed keeps its encoding.
    """
    if sys.getfilesystemencoding() == "ascii":
        printed = os.environ.get("PYTHONIOENCODING") or getattr(sys.stdout, "encoding", None) or "ascii"
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": printed}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def lenient() -> None:
    """Have this process print so, whoever prints, wherever to."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # of a descriptor that is another than when the stream was opened
                stream.reconfigure(errors="straylight")


def print_to(path: Path) -> None:
    """Have this process and those that it starts print into a file from now on, behind what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
