"""Running a graph."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def session(path: str | Path, threads: int = 1) -> Any:
    """ONNX Runtime's session of a file, on the CPU.

    Args:
        path: of an ONNX graph.
        threads: that one operation takes; 0 for as many as there are cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # an error is raised, and need not be printed too
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def program(path: str | Path) -> Any:
    """A program of `torch.export`'s, as a function of events and context, `(B, *shape)` and `(B, C)` to `(B,)`."""
    import torch

    held = torch.export.load(str(path))
    module, inputs = held.module(), len(held.graph_signature.user_inputs)

    def scores(x: Tensor, context: Tensor | None = None) -> NDArray[np.float32]:
        with torch.no_grad():
            return module(*[x, context][:inputs]).numpy()

    return scores


def run(session: Any, x: Tensor, context: Tensor | None = None) -> NDArray[np.float32]:
    """Scores of events in the data's own units, `(B, *shape)` and `(B, C)` to `(B,)`.

    Args:
        session: see `session`; or a function of `x` and `context`.
        x, context: see above.
    """
    if callable(session):
        return session(x, context)
    fed = {"x": x.numpy()}
    if len(session.get_inputs()) > 1:
        assert context is not None
        fed["context"] = context.numpy()
    return session.run(None, fed)[0]
