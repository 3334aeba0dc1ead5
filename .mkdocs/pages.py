"""What MkDocs shows beside the pages in docs/: the README as the first one, and a page for each detector and data set.

They are made of the heads of YAML files and the docstrings of classes when the site is built, and are never committed.
Links are written for the repository, as who reads a file there needs them; here they are turned to where the pages are.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from straylight.catalogue import FAMILIES, FIELDS, FILES, Entry, entries, settings, target_of, written

PROJECT = Path(__file__).parents[1]
#: Files of the repository that are pages, by what they are called here.
PAGES = {"index.md": "README.md", "benchmarks.md": "tests/benchmarks/README.md"}
#: Folders whose files are shown or handed out, and what they are called here.
FOLDERS = {
    ".readme": ("pictures", "*.png"),
    ".mkdocs": ("pictures", "*.[cs][sv][sg]"),
    "notebooks": ("notebooks", "*.ipynb"),
    "tests/benchmarks": ("benchmarks", "*.csv"),
}
#: What is a folder there and a part of a page here.
PLACES = {"notebooks": "python.md#a-study"}
#: What of the package is explained from its docstrings, a page each.
REFERENCE = {
    "study": ("straylight.study.study", "straylight.study.Study"),
    "run": ("straylight.run.Run",),
    "detector": (
        "straylight.detectors.base.Detector",
        "straylight.detectors.fitted.FittedDetector",
        "straylight.detectors.phased.Phased",
    ),
    "data": (
        *("straylight.data.base.AnomalyDataModule", "straylight.rows.batch.Events"),
        *("straylight.data.steps.splits", "straylight.data.steps.dte"),
    ),
    "metrics": tuple(
        f"straylight.metrics.{path.stem}"
        for path in sorted((PROJECT / "src" / "straylight" / "metrics").glob("*.py"))
        if path.stem != "__init__"
    ),
}
LINK = re.compile(r"\]\(([^)\s:]+)\)")
PICTURE = re.compile(r'<img src="([^"]+)" width="([^"]+)" alt="([^"]+)">')


def on_config(config: Any) -> Any:
    """Put the pages that are made into the navigation."""
    parts = {name: pages for part in config.nav if isinstance(part, dict) for name, pages in part.items()}
    for family, members in groupby(_by_family(entries("detector")), key=lambda e: e.family):
        parts["Detectors"].append({family.capitalize(): [f"detectors/{e.name}.md" for e in members]})
    parts["Data"].append({"Data sets": [f"data/{e.name}.md" for e in entries("data")]})
    parts["Python"].append({"Reference": [f"reference/{name}.md" for name in REFERENCE]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and what pages show."""
    for name, text in made():
        files.append(File.generated(config, name, content=text))
    for folder, (name, pattern) in FOLDERS.items():
        for path in sorted((PROJECT / folder).glob(pattern)):
            files.append(File.generated(config, f"{name}/{path.name}", abs_src_path=str(path)))
    return files


def made() -> Iterator[tuple[str, str]]:
    """The names and texts of the pages that are made."""
    for name, source in PAGES.items():
        yield name, (PROJECT / source).read_text(encoding="utf-8")
    for group, folder in (("detector", "detectors"), ("data", "data")):
        for found in entries(group):
            yield f"{folder}/{found.name}.md", page(found)
    for name, targets in REFERENCE.items():
        yield f"reference/{name}.md", "\n\n".join([f"# {name.capitalize()}", *(f"::: {target}" for target in targets)])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of the repository to pages, and names in the first column of tables to links."""
    here = page.file.src_uri
    folder = {"detectors.md": "detectors", "data.md": "data"}.get(here)
    if here == "index.md":
        page.meta["hide"] = ["navigation"]
    if folder:
        page.meta["hide"] = ["toc"]  # which leaves its tables more room
        known = {posixpath.basename(f.src_uri)[:-3] for f in files if f.src_uri.startswith(f"{folder}/")}
        markdown = re.sub(r"^\|[^|]*\|", lambda cell: _linked(cell[0], folder, known), markdown, flags=re.MULTILINE)
    source = PAGES.get(here, f"docs/{here}")
    markdown = PICTURE.sub(r'![\3](\1){ width="\2" }', markdown)
    return LINK.sub(lambda link: f"]({turned(link[1], source, here)})", markdown)


def turned(link: str, source: str, here: str) -> str:
    """A link in a file of the repository, as the page needs it that the file becomes.

    Example:
        >>> turned("docs/data.md#settings", "README.md", "index.md"), turned("../.readme/roc.png", "docs/a.md", "a.md")
        ('data.md#settings', 'pictures/roc.png')
    """
    path, mark, anchor = link.partition("#")
    if not path:
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    folder, name = posixpath.split(path)
    if path in PLACES:
        place = PLACES[path]
    elif path in PAGES.values():
        place = next(page for page, file in PAGES.items() if file == path)
    elif folder in FOLDERS:
        place = f"{FOLDERS[folder][0]}/{name}"
    else:
        place = path.removeprefix("docs/")
    return posixpath.relpath(place, posixpath.dirname(here) or ".") + mark + anchor


def page(found: Entry) -> str:
    """The page of a detector or of a data set."""
    target = target_of(found)
    place = written(target)
    lines = [f"# {found.name}", "", found.about, ""]
    if found.fields:
        lines += ["| | |", "|---|---|"]
        known = [f for f in (*FIELDS, FILES) if f in found.fields and f != "Example"]
        lines += [f"| {f.lower()} | {_cell(found.fields[f])} |" for f in known]
    lines += ["", "```sh", found.fields.get("Example", f"straylight data {found.name}"), "```", ""]
    if reached := _reached(found):
        lines += ["## What it reached", "", *reached, "", "See [all detectors](../detectors.md#all-of-them).", ""]
    lines += ["## Settings", "", f"Typed as `{found.group}.KEY=VALUE`", ""]
    lines[-2] += ", beside [those of every data set](../data.md#settings)." if found.group == "data" else "."
    if keys := settings(found):
        lines += ["| key | default | what |", "|---|---|---|"]
        lines += [f"| `{s.key}` | `{_cell(s.default)}` | {_cell(s.comment)} |" for s in keys]
    if place:
        module = f"{target.rpartition('.')[0]}.{place.path.stem}"
        lines += ["", "## Class", "", f"::: {module}.{place.tree.name}"]
    return "\n".join(lines)


def _reached(found: Entry) -> list[str]:
    """The numbers of its row in the table of detectors."""
    if found.group != "detector":
        return []
    table = (PROJECT / "docs" / "detectors.md").read_text(encoding="utf-8").partition("<!-- detectors -->\n")[2]
    head, rule, *rows = table.splitlines()
    row = next((row for row in rows if row.startswith(f"| `{found.name}` |")), "")
    cells = row.strip("|").split("|")[4:]
    if not any(cell.strip() for cell in cells):
        return []
    return [f"|{'|'.join(line.strip('|').split('|')[4:])}|" for line in (head, rule, row)]


def _by_family(found: Iterable[Entry]) -> list[Entry]:
    return sorted(found, key=lambda e: (FAMILIES.index(e.family), e.name))


def _linked(cell: str, folder: str, known: Collection[str]) -> str:
    return re.sub(r"`(\w+)`", lambda name: f"[{name[0]}]({folder}/{name[1]}.md)" if name[1] in known else name[0], cell)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
