"""A detector as a graph of its predict path, whether the graph is the detector, and a folder for other programs."""

from straylight.export.agreement import MISORDERED, TOLERANCE, Finding, Usual, difference, findings, misordered, parity
from straylight.export.choice import compared
from straylight.export.exporter import to_onnx, to_pt2
from straylight.export.model import Model
from straylight.export.predicted import Exported, ExportError, Refused
from straylight.export.sessions import program, run, session
from straylight.export.tracing import traced
from straylight.export.written import Written, to_folder

__all__ = [
    "MISORDERED",
    "TOLERANCE",
    "ExportError",
    "Exported",
    "Finding",
    "Model",
    "Refused",
    "Usual",
    "Written",
    "compared",
    "difference",
    "findings",
    "misordered",
    "parity",
    "program",
    "run",
    "session",
    "to_folder",
    "to_onnx",
    "to_pt2",
    "traced",
]
