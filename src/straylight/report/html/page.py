"""One HTML file out of a template: its styles and its script inside, and a policy that allows no other."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from straylight.atomic import replacing

LONG = 120  # characters of a name that are shown at once
REASON = 1000  # and of a sentence
CONTROL = {code: "\ufffd" for code in (*range(32), 127, *range(0xD800, 0xE000)) if chr(code) not in "\t\n"}


def write(path: Path, template: str, title: str, context: Mapping[str, Any]) -> None:
    """Write a page, whole or not at all.

    Args:
        path: of the file.
        template: in `page/`.
        title: of the page.
        context: what the template takes beside what every page has.
    """
    with replacing(path, durable=False) as aside:
        page = rendered(template, title, context).replace("\r", "&#13;")  # which a browser takes for the end of a line
        aside.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")


def rendered(template: str, title: str, context: Mapping[str, Any]) -> str:
    """The page as text, in which nothing that comes from a run is taken for markup.

    The policy forbids all requests, and all styles and scripts but the page's own, which it knows by their hashes.
    """
    css, js = (_part(name) for name in ("page.css", "page.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(js)}",
            f"style-src {_hash(css)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    own = {"css": Markup(css), "js": Markup(js), "policy": policy, "title": title, "version": version("straylight")}
    page: str = _environment().get_template(template).render(**own, written=time.strftime("%Y-%m-%d"), **context)
    return page


def name(text: object) -> Markup:
    """A text of a run, as text: whatever it holds, it ends where it ends, and a long one can be unfolded.

    Example:
        >>> name("<b>knn</b>")
        Markup('<bdi>&lt;b&gt;knn&lt;/b&gt;</bdi>')
    """
    said = plain(text)
    return _whole(said) if len(said) <= LONG else _folded(said, LONG)


def reason(text: object) -> Markup:
    """As `name`, of a sentence."""
    said = plain(text)
    return _whole(said) if len(said) <= REASON else _folded(said, REASON)


def told(text: object) -> str:
    """A text of a run where nothing can be unfolded: cut to 120 characters, its directions its own.

    Example:
        >>> len(told("x" * 10_000))
        122
    """
    said = plain(text)
    cut = said if len(said) <= LONG else f"{said[: LONG - 1]}…"
    return f"\u2068{cut}\u2069"


def _whole(said: str) -> Markup:
    return Markup(f"<bdi>{escape(said)}</bdi>")  # the quickest way: a page has tens of thousands


def _folded(said: str, most: int) -> Markup:
    folded = Markup("<details><summary><bdi>{}…</bdi> ({} characters)</summary><bdi>{}</bdi></details>")
    return folded.format(said[:most], f"{len(said):,}", said)


def plain(text: object) -> str:
    """A text of a run as every place of a page has it: without what no page may hold.

    Example:
        >>> plain("nul\\0") == "nul\\ufffd", plain(None)
        (True, '')
    """
    return ("" if text is None else str(text)).translate(CONTROL)


def _part(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_part),
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,  # in attributes, too
    )
    made.filters |= {"name": name, "reason": reason, "told": told}
    return made
