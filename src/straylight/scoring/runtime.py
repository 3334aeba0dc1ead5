"""Which runtime scores: torch, or ONNX Runtime where it gives the same scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import ConfigError
from straylight.export import ExportError, compared
from straylight.run import Run

WORTH = 200_000  # rows from which on it is worth finding out which is faster
Function = Callable[[Tensor, Tensor], NDArray[np.float32]]


def put(run: Run, device: str) -> None:
    """Put the detector of a run where it scores: `cpu`, `cuda`, `cuda:1`, or `auto`, a GPU where there is one.

    Raises:
        ConfigError: if there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
        if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
            raise RuntimeError
        run.detector.to(where)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"there is no device {device!r} here; --device is cpu, cuda, cuda:1 or auto.") from error


def set_threads(threads: int | None) -> int:
    """How many threads compute; all processors if none are said."""
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


def onnx(run: Run, folder: Path, x: Tensor, context: Tensor, threads: int) -> Function:
    """The graph of a run's detector as what scores, once it was seen to score these rows as torch does.

    Args:
        run: the run.
        folder: a place for the graph.
        x, context: rows, `(n, *shape)` and `(n, C)`.
        threads: that it may use.

    Raises:
        ConfigError: if it has no such graph.
    """
    try:
        exported, _ = compared(run.detector, folder / "model.onnx", x[:1024], context[:1024])
    except ExportError as error:
        raise ConfigError(f"{str(error).rstrip('.')}; score it by --runtime torch.") from error
    return of_graph(exported.path, exported.largest, threads)


def of_graph(path: Path, largest: int | None, threads: int) -> Function:
    """A graph as what scores, in batches that it is good for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size = min(largest or 16384, 16384)
    with_context = len(session.get_inputs()) > 1

    def function(x: Tensor, context: Tensor) -> NDArray[np.float32]:
        found = [np.empty(0, np.float32)]
        for rows, given in zip(x.split(size), context.split(size), strict=True):
            fed: dict[str, Any] = {"x": rows.numpy()} | ({"context": given.numpy()} if with_context else {})
            if len(rows):
                found.append(session.run(None, fed)[0])
        return np.concatenate(found)

    return function


def faster(one: Function, other: Function, x: Tensor, context: Tensor) -> Function:
    """The one of two that takes less time for these rows."""

    def seconds(function: Function) -> float:
        function(x, context)
        start = time.perf_counter()
        function(x, context)
        return time.perf_counter() - start

    return min((one, other), key=seconds)
