"""The pages in docs/: every one is led to, each detector and data set has one, and they are built without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from straylight.groups import choices

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / ".mkdocs" / "mkdocs.yml"
PAGES = sorted(path.name for path in (PROJECT / "docs").glob("*.md"))
builds = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="without `pip install 'straylight[docs]'` no page is built",
)


class Loose(yaml.SafeLoader):
    """Of YAML with tags of MkDocs's own."""


Loose.add_multi_constructor("!", lambda *_: None)


def led_to(nav: Any) -> list[str]:
    match nav:
        case str():
            return [nav]
        case dict():
            return [page for part in nav.values() for page in led_to(part)]
        case _:
            return [page for part in nav for page in led_to(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = led_to(yaml.load(CONFIG.read_text(), Loose)["nav"])
    assert sorted(nav) == sorted([*PAGES, "index.md", "benchmarks.md"])


def test_warnings_are_errors_and_no_other_host_is_asked() -> None:
    config = yaml.load(CONFIG.read_text(), Loose)
    assert config["strict"] and config["theme"]["font"] is False
    assert set(config["validation"]["links"].values()) == {"warn"}
    target = (PROJECT / "Makefile").read_text().partition("\ndocs:")[2].partition("\n\n")[0]
    assert "--strict" in target and str(CONFIG.relative_to(PROJECT)) in target
    site = (CONFIG.parent / config["site_dir"]).resolve().relative_to(PROJECT)
    assert f"{site.parts[0]}/" in (PROJECT / ".gitignore").read_text().split()


def test_the_packages_that_build_them_are_pinned() -> None:
    import tomllib

    extra = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    pinned = {line.partition("==")[0] for line in (PROJECT / "constraints.txt").read_text().split()}
    assert {re.split(r"[\[><=]", package)[0] for package in extra} <= pinned


@builds
def test_every_detector_and_data_set_has_a_page() -> None:
    pages = hooks()
    made = dict(pages.made())
    for group, folder in (("detector", "detectors"), ("data", "data")):
        for name in choices(group):
            text = made[f"{folder}/{name}.md"]
            assert text.startswith(f"# {name}\n") and "## Settings" in text and "\n::: straylight." in text
            assert re.search(rf"^straylight \w+ .*\b{name}\b", text, re.MULTILINE)
    nav = led_to(pages.on_config(config()).nav)
    assert sorted(nav) == sorted({*PAGES, *made})


@builds
@pytest.mark.parametrize(
    ("link", "source", "here", "wanted"),
    [
        ("docs/data.md#settings", "README.md", "index.md", "data.md#settings"),
        (".readme/roc.png", "README.md", "index.md", "pictures/roc.png"),
        ("notebooks", "README.md", "index.md", "python.md#a-study"),
        ("../.readme/roc.png", "docs/figures.md", "figures.md", "pictures/roc.png"),
        ("../tests/benchmarks/README.md", "docs/measured.md", "measured.md", "benchmarks.md"),
        ("../../docs/data.md", "tests/benchmarks/README.md", "benchmarks.md", "data.md"),
        ("adbench.csv", "tests/benchmarks/README.md", "benchmarks.md", "benchmarks/adbench.csv"),
        ("../detectors.md#all-of-them", "docs/detectors/knn.md", "detectors/knn.md", "../detectors.md#all-of-them"),
        ("#here", "docs/data.md", "data.md", "#here"),
    ],
)
def test_links_of_the_repository_are_turned_to_pages(link, source, here, wanted) -> None:
    assert hooks().turned(link, source, here) == wanted


@builds
@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path) -> None:
    ended = build(CONFIG, tmp_path)
    assert ended.returncode == 0 and "WARNING" not in ended.stderr, ended.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES) + len(choices("detector")) + len(choices("data"))
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=[\"']?(https?:)?//", page.read_text())
        assert not loaded, page
    assert "fonts.googleapis" not in "".join(path.read_text() for path in tmp_path.rglob("*.css"))


@builds
@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["", "[gone](gone.md)", "[no anchor](#gone)", "![no picture](gone.png)", "[absolute](/data/)", "[odd](gone)"],
)
def test_a_link_that_leads_nowhere_ends_the_build(fault, tmp_path) -> None:
    """By the settings that the site has, on a page of its own."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n[Page](#page)\n\n{fault}\n")
    own = {"INHERIT": str(CONFIG), "docs_dir": "docs", "hooks": [], "nav": ["index.md"], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(own))
    assert bool(build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode) == bool(fault)


def build(settings: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(settings), "-d", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(PROJECT / "src")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("pages", PROJECT / ".mkdocs" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages"] = module
    spec.loader.exec_module(module)
    return module


def config() -> Any:
    from mkdocs.config import load_config

    return load_config(str(CONFIG))
