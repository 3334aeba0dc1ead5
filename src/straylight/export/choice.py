"""The quickest way to a graph that scores as the detector does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from straylight.export.agreement import parity
from straylight.export.exporter import to_onnx
from straylight.export.predicted import Exported, ExportError, Refused
from straylight.export.sessions import session
from straylight.export.tracing import traced


def compared(
    detector: nn.Module, path: str | Path, x: Tensor, context: Tensor | None = None, *, batches: Sequence[int] = (1,)
) -> tuple[Exported, Any]:
    """The graph of a detector, and its session, after `parity` was found: `traced`, which is quick, or else `to_onnx`.

    Args:
        detector, path: see `to_onnx`.
        x, context, batches: see `parity`; larger batches than a graph is good for are left out.

    Raises:
        ExportError: if it has no graph that scores as the detector does.
    """
    try:
        return _compared(detector, traced(detector, path), x, context, batches)
    except Refused:
        raise
    except ExportError:  # it has one by the exporter, or none
        pass
    return _compared(detector, to_onnx(detector, path), x, context, batches)


def _compared(
    detector: nn.Module, exported: Exported, x: Tensor, context: Tensor | None, batches: Sequence[int]
) -> tuple[Exported, Any]:
    most = exported.largest or max(len(x), *batches, 1)
    ready = session(exported.path)
    sizes = [n for n in batches if n <= most][-2:]  # which take longest, and are those that a graph was not traced on
    parity(detector, ready, x[:most], None if context is None else context[:most], batches=sizes)
    return exported, ready
