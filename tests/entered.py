"""A command as it is typed, in this process."""

from __future__ import annotations

import sys
from typing import Any

from straylight import cli


def entered(monkeypatch: Any, capfd: Any, *words: object) -> tuple[int, str, str]:
    """The exit status of `straylight WORDS`, and what it printed, apart from errors, and of errors."""
    monkeypatch.setattr(sys, "argv", ["straylight", *map(str, words)])
    capfd.readouterr()
    try:
        cli.main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    said = capfd.readouterr()
    return status, said.out, said.err
