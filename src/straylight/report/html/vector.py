"""A figure as SVG that may stand in a page: the same picture as the PNG, in the page's own ink, and told apart by what
it shows.

A page that forbids styles which it does not know takes it: what matplotlib says in `style` is said in attributes. Black
becomes the ink of the page and white its paper, so that a figure can be read in light and in dark.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from straylight.report.figures.about import ABOUT, about
from straylight.report.figures.literal import save

AS_TEXT: Any = {"svg.fonttype": "none", "svg.hashsalt": "straylight"}  # not as outlines; and names that do not change
UNSAID = {"Date": None, "Creator": None, "Format": None, "Type": None}
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML
LONG = re.compile(r"-?\d+\.\d{3,}")
GEOMETRY = frozenset({"d", "transform", "x", "y", "points"})
REFERENCE = re.compile(r"url\(#(?P<there>[^)]+)\)|#(?P<here>.+)")
DARK = 0x66  # greys below it are ink
INK, PAPER = "currentColor", "paper"
ON = "on"  # what a text is written
PIXELS = 4 / 3  # of a point
Called = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def svg(figure: Figure, key: str, label: str, called: Called = dict) -> str:
    """The figure as an element of HTML.

    What artists are about (see `straylight.report.figures.about`) stands in attributes `data-...` of their
    groups; `data-run` of a line with as many markers as runs in those of its markers.

    Args:
        figure: is drawn as it stands.
        key: of letters and digits, before all names in it, which no other figure of the page may have.
        label: what it shows, for who cannot see it.
        called: what the page says of what an artist is about, by name.

    Example:
        >>> figure = Figure(figsize=(3, 2))
        >>> _ = figure.subplots().set_title("<b>not bold</b>")
        >>> made = svg(figure, "f1", "a title")
        >>> "style=" in made, "&lt;b&gt;not bold&lt;/b&gt;" in made
        (False, True)
    """
    _over_images(figure)
    file = io.StringIO()
    with rc_context(AS_TEXT):
        save(figure, file, format="svg", metadata=UNSAID)
    root = ET.fromstring(FORBIDDEN.sub("\ufffd", file.getvalue()))
    for element in root.iter():
        element.tag = _bare(element.tag)
        for name in list(element.attrib):
            element.attrib[_bare(name)] = element.attrib.pop(name)
    _without_styles(root)
    _in_ink(root)
    _tell(root, called)
    _rename(root, key)
    for element in root.iter():
        for name in GEOMETRY & element.attrib.keys():
            element.set(name, _rounded(element.attrib[name]))
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    size = {"width": f"{width * PIXELS:.0f}", "height": f"{height * PIXELS:.0f}", "viewBox": root.attrib["viewBox"]}
    root.attrib = {**size, "role": "img", "aria-label": label, "fill": INK}
    return ET.tostring(root, "unicode")


def _bare(name: str) -> str:
    """Without its namespace; those of SVG and XLink are known to HTML."""
    return name.rpartition("}")[2]


def _without_styles(root: ET.Element) -> None:
    """Say in attributes what `style` says; fonts are the page's."""
    for parent in root.iter():
        for child in [c for c in parent if c.tag in ("style", "metadata")]:
            parent.remove(child)
    for element in root.iter():
        for declaration in filter(None, element.attrib.pop("style", "").split(";")):
            name, _, value = (part.strip() for part in declaration.partition(":"))
            if name == "font":  # the short form: what stands before the families
                element.set("font-size", next((w for w in value.split() if w.endswith("px")), "10px"))
            elif name != "font-family":
                element.set(name, value)


def _over_images(figure: Figure) -> None:
    """Tell what is written on an image, whose colours are not the page's."""
    for panel in figure.axes:
        for text in panel.texts if panel.images else ():
            if panel.bbox.contains(*text.get_transform().transform(text.get_position())):
                about(text, **{ON: "image"})


def _in_ink(root: ET.Element) -> None:
    """Black and white as the page has them, but for what is written on something else, whose colours stay."""
    for child in root:
        name = child.get("id", "")
        if name.startswith(ABOUT) and ON in json.loads(name.removeprefix(ABOUT)):
            for text in child.iter("text"):
                text.attrib.setdefault("fill", "#000000")
            continue
        if child.tag == "text" and child.get("fill") == "#ffffff":
            continue
        if name.startswith("patch_") and root.get("id", "").startswith(("figure_", "axes_", "legend_")):
            for ground in [p for p in child if p.get("fill") == "#ffffff"]:
                child.remove(ground)
        for kind in ("fill", "stroke"):
            colour = child.get(kind, "")
            if colour == "#ffffff":
                child.attrib.pop(kind)
                child.set("class", f"{PAPER}-{kind}")
            elif _dark(colour):
                child.set(kind, INK)
        _in_ink(child)


def _dark(colour: str) -> bool:
    """Whether it is black, or a grey near it."""
    return len(colour) == 7 and colour[1:3] == colour[3:5] == colour[5:7] and int(colour[1:3], 16) < DARK


def _tell(root: ET.Element, called: Called) -> None:
    """What groups are about, in attributes."""
    for element in root.iter():
        if not element.get("id", "").startswith(ABOUT):
            continue
        what = json.loads(element.attrib.pop("id").removeprefix(ABOUT))
        what.pop(ON, None)
        for name, value in called(what).items():
            if not isinstance(value, list):
                element.set(f"data-{name}", str(value))
            elif len(marks := list(element.iter("use"))) == len(value):
                for mark, one in zip(marks, value, strict=True):
                    mark.set(f"data-{name}", str(one))


def _rename(root: ET.Element, key: str) -> None:
    """Names that are referred to get the key before them, and no other is left."""
    named: set[str] = set()
    for element in root.iter():
        for name in ("clip-path", "href", "fill", "mask"):
            match = REFERENCE.fullmatch(element.get(name, ""))
            if match and (name == "href") == bool(match["here"]):  # a colour begins as a reference does
                target = match["here"] or match["there"]
                named.add(target)
                element.set(name, f"#{key}-{target}" if match["here"] else f"url(#{key}-{target})")
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in named:
            element.set("id", f"{key}-{own}")


def _rounded(text: str) -> str:
    """Numbers to a hundredth of a point, which nobody sees."""
    return " ".join(LONG.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), text).split())
