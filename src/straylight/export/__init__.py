"""A detector as a graph of its predict path, whether the graph is the detector, and a folder for other programs."""

from straylight.export.agreement import MISORDERED, TOLERANCE, Finding, Usual, difference, findings, misordered, parity
from straylight.export.choice import compared
from straylight.export.exporter import to_onnx, to_pt2
from straylight.export.predicted import Exported, ExportError, Refused
from straylight.export.sessions import program, run, session
from straylight.export.tracing import traced

__all__ = [
    "MISORDERED",
    "TOLERANCE",
    "ExportError",
    "Exported",
    "Finding",
    "Refused",
    "Usual",
    "compared",
    "difference",
    "findings",
    "misordered",
    "parity",
    "program",
    "run",
    "session",
    "to_onnx",
    "to_pt2",
    "traced",
]
