"""Which tests `make test-quick` leaves out: those that took long in a whole run, by its JUnit report.

PYTEST_ADDOPTS=--junitxml=report.xml make test
python tests/slow.py report.xml --seconds 0.4 > tests/slow.txt
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET
from pathlib import Path

LISTED = Path(__file__).with_suffix(".txt")


def listed() -> frozenset[str]:
    """The tests of the list, as pytest names them without their case."""
    return frozenset(LISTED.read_text(encoding="utf-8").split()) if LISTED.is_file() else frozenset()


def slow(report: Path, seconds: float) -> list[str]:
    """Tests whose quickest case took more than so many seconds."""
    quickest: dict[str, float] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        took = float(case.get("time", 0))
        quickest[name] = min(took, quickest.get(name, took))
    return sorted(name for name, took in quickest.items() if took > seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--seconds", type=float, default=0.4)
    given = parser.parse_args()
    print("\n".join(slow(given.report, given.seconds)))
