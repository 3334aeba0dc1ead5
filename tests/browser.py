"""A page in Chromium, the system's own: what it says on its console, and what it asks for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Opened:
    """A page of a file, as a reader has it.

    Attributes:
        page: Playwright's.
        said: what stands on the console, and errors that nobody caught.
        asked: the addresses of all requests.
    """

    def __init__(self, context: Any, path: Path) -> None:
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = path.as_uri()
        self.page.goto(self.address)

    def quiet(self) -> None:
        """Nothing was said, and nothing was asked for but the file, and what the file itself holds."""
        assert self.said == []
        assert {url for url in self.asked if not url.startswith("data:")} == {self.address}

    def wait(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Until the element says so; a function that the page would have to evaluate is against its own policy."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_text(text)

    def texts(self, selector: str) -> list[str]:
        """What the elements that are shown say, each on one line."""
        shown = "found => found.filter(e => e.checkVisibility()).map(e => e.textContent)"
        return [" ".join(text.split()) for text in self.page.eval_on_selector_all(selector, shown)]

    def column(self, table: str, place: int) -> list[str]:
        """A column of the rows that are shown, from 1."""
        return self.texts(f"{table} tbody tr > :nth-child({place})")

    def colours(self, selector: str) -> tuple[float, float]:
        """How light, from 0 to 1, the letters of the first element are, and the ground of the page."""
        found = self.page.evaluate(
            """selector => {
                const element = document.querySelector(selector);
                const drawn = element.namespaceURI.endsWith("svg");
                return [drawn ? getComputedStyle(element).fill : getComputedStyle(element).color,
                        getComputedStyle(document.body).backgroundColor];
            }""",
            selector,
        )
        ink, paper = (_lightness(colour) for colour in found)
        return ink, paper


def _lightness(colour: str) -> float:
    parts = [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    return sum(parts) / 3 / 255


class Browser:
    """A browser that runs, and opens pages in it."""

    def __init__(self, running: Any) -> None:
        self.running = running

    @contextmanager
    def open(self, path: Path, **options: Any) -> Iterator[Opened]:
        """A page in a window of its own, with the options of Playwright's `new_context`."""
        context = self.running.new_context(**options)
        try:
            yield Opened(context, path)
        finally:
            context.close()


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium as long as it is needed; skips the test where it or Playwright is not there."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright, which drives the browser: make setup")
    if CHROMIUM is None:
        pytest.skip("no Chromium, such as Debian's package chromium")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield Browser(running)
        finally:
            running.close()
