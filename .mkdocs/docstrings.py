"""Docstrings as the house writes them, turned to what the pages are made of."""

from __future__ import annotations

import re
from typing import Any

import griffe

from straylight.catalogue import references


class Docstrings(griffe.Extension):
    """Examples are code, and each reference is a line of a list."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        if found := references(text):
            listed = "\n".join(f"* {reference}" for reference in found)
            given = re.search(r"^References:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
            assert given is not None
            text = text[: given.start()] + f"**References**\n\n{listed}\n\n" + text[given.end() :]
        obj.docstring.value = text
