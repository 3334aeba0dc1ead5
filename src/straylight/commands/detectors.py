"""`straylight detectors`: which detectors there are, and what one assumes, costs, is good for and can be set to."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from straylight.catalogue import FAMILIES, FIELDS, Entry, entries, entry, settings, target_of, written
from straylight.checks import meant
from straylight.console import say
from straylight.errors import StraylightError
from straylight.groups import choices, told

HELP = """\
Detectors: which there are, and what one assumes, costs and is good for.

usage: straylight detectors [--config-dir DIR]         which there are, by family
       straylight detectors NAME [--config-dir DIR]    its settings and papers
       with --json the same for programs

examples:
  straylight detectors
  straylight detectors knn
"""
WIDEST = 110
#: What to try first, by the kind of data, and by which numbers: they stand in docs/detectors.md and docs/data.md.
FIRST = (
    ("tables", "views, residual, knn", "mean AUROC 0.868, 0.859, 0.848 over 31 sets of ADBench"),
    (
        "few rows",
        "views, residual, random_features",
        "mean AUROC 0.841, 0.841, 0.838 over its 10 sets of fewer than 250 training rows",
    ),
    (
        "many rows",
        "views, knn, random_features",
        "mean AUROC 0.899, 0.888, 0.884 over its 8 sets of more than 15,000 training rows; random_features keeps "
        "none of them",
    ),
    ("images", "autoencoder_conv, autoencoder", "AUROC 0.989, 0.991 on digits_contaminated; 0.996, 0.971 on mnist"),
    (
        "particles",
        "multiplicity, autoencoder, isolation_forest",
        "mean AUROC 0.84, 0.83, 0.83 over four signals of a stand-in for adc2021: the count is what has to be beaten",
    ),
    (
        "a plane",
        "maf, realnvp, bayesian_gmm",
        "AUROC 0.886, 0.888, 0.888 on moons, where 0.892 is the most that can be expected",
    ),
    (
        "a narrow signal in a spectrum",
        "cwola, cathode",
        "0.95, 0.94 of the largest significance improvement that there can be, on bump; cathode also where features "
        "hang on the mass",
    ),
    (
        "transactions",
        "autoencoder, isolation_forest",
        "AUROC 0.996, 0.993 on the connections of kddcup99, the nearest that was measured",
    ),
)


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
    try:
        folders, names = told([word for word in arguments if word != "--json"])
        _refuse(folders, names)
        if "--json" in arguments:
            found = [entry("detector", names[0], folders)] if names else entries("detector", folders)
            print(json.dumps([plain(one, folders, whole=bool(names)) for one in found]))
            return
        lines = one(entry("detector", names[0], folders), folders, width) if names else listing(folders, width)
        say("\n".join(lines))
    except StraylightError as error:
        say(f"Error: {error}", error=True)
        sys.exit(1)


def listing(folders: Sequence[Path] = (), width: int = 80) -> Iterator[str]:
    """Lines with every detector by its family, and with what to try first."""
    found = entries("detector", folders)
    order = {family: number for number, family in enumerate(FAMILIES)}
    found.sort(key=lambda e: (order.get(e.family, len(order)), e.family, e.name))
    for family, members in groupby(found, key=lambda e: e.family):
        yield family
        for member in members:
            what = member.what or f"{target_of(member, folders)}, whose YAML file has no head"
            yield from _block(f"  {member.name}: ", f"{what}.", 6, width)
            for field in ("Assumes", "Cost", "Good for"):
                if field in member.fields:
                    yield from _block("", f"{field}: {member.fields[field]}", 6, width)
        yield ""
    yield "which first, by the kind of data, and by which numbers"
    for kind, names, numbers in FIRST:
        yield from _block(f"  {kind}", names, 27, width)
        yield from _block("", f"{numbers}.", 27, width)
    yield ""
    yield "`straylight detectors NAME` has settings and papers."


def plain(found: Entry, folders: Sequence[Path] = (), *, whole: bool) -> dict[str, Any]:
    """What is known of a detector, as plain values; with `whole` its settings and papers, too."""
    known = {"name": found.name, "family": found.family, "what": found.what or None, **found.fields}
    if not whole:
        return known
    target = target_of(found, folders)
    place = written(target)
    own = [{"key": s.key, "default": s.default, "comment": s.comment} for s in settings(found, folders)]
    return {**known, "class": target or None, "settings": own, "papers": list(place.papers) if place else []}


def one(found: Entry, folders: Sequence[Path] = (), width: int = 80) -> Iterator[str]:
    """Lines with what is known of a detector."""
    target = target_of(found, folders)
    place = written(target)
    first = (place.docstring if place else "").partition("\n\n")[0]
    yield from _block("", f"{found.name}: {found.about or ' '.join(first.split())}", 0, width)
    yield ""
    for field in (f for f in FIELDS if f in found.fields and f != "Example"):
        yield from _block(field.lower(), found.fields[field], 10, width)
    yield from _block("class", target or "none: the config names no _target_", 10, width)
    yield from _block("config", str(found.path), 10, width)
    keys = settings(found, folders)
    if keys:
        yield ""
        yield "settings, typed as detector.KEY=VALUE, with their defaults"
        indent = 2 + max(len(s.key) for s in keys) + 2
        column = indent + min(20, max(len(s.default) for s in keys)) + 2
        for s in keys:
            head = f"  {s.key}".ljust(indent) + s.default
            if s.comment and len(head) + 2 > column:
                yield head
                head = ""
            yield from _block(head, s.comment, column, width)
    if papers := place.papers if place else []:
        yield ""
        yield "papers"
        for paper in papers:
            yield from _block("  *", paper, 4, width)
    yield ""
    yield "example"
    yield f"  {found.fields.get('Example') or f'straylight train detector={found.name} data=digits'}"


def _block(head: str, text: str, indent: int, width: int) -> list[str]:
    """A text with what stands before it; its other lines are indented."""
    head, rest = head.ljust(indent), " " * indent
    return textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [head.rstrip()]


def _refuse(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Say what is wrong with the names that were typed."""
    if len(names) > 1:
        raise StraylightError(f"give one detector, such as `straylight detectors {names[0]}`.")
    known = choices("detector", *folders)
    if names and names[0] not in known:
        raise StraylightError(
            f"There is no detector {names[0]!r}{meant(names[0], known)}; choose one of {', '.join(known)}."
        )
