"""The predict path of a detector, ready to be put into a graph, and what is known at once of one that has none."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from straylight.errors import StraylightError

#: Operations of a score that are put into a graph, at most: a search in steps has one for each of them.
MOST_OPERATIONS = 5000
#: Bytes of weights that go into a file: a message of Protocol Buffers is smaller than 2 GiB, and some are kept twice.
LARGEST_FILE = 10**9
#: Operations without a counterpart in ONNX, which are known before a second is spent on finding out.
ABSENT = {"searchsorted", "bucketize", "histc"}


class ExportError(StraylightError):
    """A detector without an ONNX graph, or whose graph scores otherwise than the detector."""


class Refused(ExportError):
    """A detector of which it is known at once that it has no graph."""


class Exported(NamedTuple):
    """A graph in a file, with inputs `x` `(B, *shape)` and, if there is any, `context` `(B, C)`; and output `score`."""

    path: Path
    largest: int | None  # B that the graph is good for; `None` for any


class _Predict(nn.Module):
    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.detector(x, x.flatten(1)[:, :0] if context is None else context)


def seen(detector: nn.Module, to: str = "ONNX") -> tuple[nn.Module, list[Tensor]]:
    """The predict path, and what it is shown, where it is `as_exported`.

    Raises:
        Refused: if it is known at once that it has no graph.
    """
    held = sum(t.numel() * t.element_size() for t in [*detector.parameters(), *detector.buffers()])
    if held > LARGEST_FILE:
        raise Refused(
            f"{type(detector).__name__} cannot be exported: what it keeps takes {held / 1e9:.1f} GB, and a graph is a "
            f"file of {LARGEST_FILE / 1e9:g} GB at most; train it on fewer rows."
        )
    sizes: Any = getattr(detector, "event_shape", detector.shape), detector.context
    predict = _Predict(detector).eval()
    example = [torch.zeros(3, *sizes[0])] + [torch.zeros(3, sizes[1])] * bool(sizes[1])
    with in_a_sentence(detector, Refused, to), _Probe(), _Inside():
        predict(*example)
    return predict, example


@contextmanager
def in_a_sentence(detector: nn.Module, kind: type[ExportError] = ExportError, to: str = "ONNX") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            raise
        reason = str(error) if isinstance(error, ExportError) else f"torch's exporter fails ({innermost(error)})"
        raise kind(f"{type(detector).__name__} cannot be exported to {to}: {reason}.") from error


@contextmanager
def as_exported(detector: nn.Module, *, graph: bool = True) -> Iterator[None]:
    """Float32 on the CPU, in evaluation mode, eager, without gradients; afterwards as it was.

    Args:
        detector: to be exported, or compared with what was.
        graph: whether it is put into a graph, for which some parts of a detector compute the same otherwise.
    """
    modules, parameters = list(detector.modules()), list(detector.parameters())
    telling = [module for module in modules if graph and hasattr(type(module), "traced")]
    tensors = [*parameters, *detector.buffers()]
    if wrong := {t.dtype for t in parameters} - {torch.float32, torch.float64}:
        raise ExportError(f"{type(detector).__name__} cannot be exported to ONNX: its weights are {wrong.pop()}.")
    device = tensors[0].device if tensors else torch.device("cpu")
    modes = [module.training for module in modules]
    compiled = [module._compiled_call_impl for module in modules]
    needed = [p.requires_grad for p in parameters]
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            for module in telling:
                module.traced = True  # type: ignore[assignment]
            for module in modules:
                module.training, module._compiled_call_impl = False, None
            for p in parameters:
                p.requires_grad_(False)
            if device.type != "cpu":
                detector.to("cpu")
            yield
        finally:
            for module in telling:
                vars(module).pop("traced", None)
            if device.type != "cpu":
                detector.to(device)
            for module, training, call in zip(modules, modes, compiled, strict=True):
                module.training, module._compiled_call_impl = training, call
            for p, grad in zip(parameters, needed, strict=True):
                p.requires_grad_(grad)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what the exporter says of its own progress, and warns of its own names."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# what is known at once, where torch.export takes seconds or minutes to find out


class _Probe(TorchDispatchMode):
    """Refuses a score with too many operations, with any that ONNX lacks, or one that branches on numbers."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        name = func.overloadpacket.__name__
        if self.count > MOST_OPERATIONS:
            raise ExportError(f"its score takes more than {MOST_OPERATIONS:,} operations, as a search does")
        if name in ABSENT:
            raise ExportError(f"ONNX has no {name}")
        masked = func.overloadpacket is torch.ops.aten.index and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        sized = torch.Tag.dynamic_output_shape in func.tags and func.overloadpacket is not torch.ops.aten.index
        if masked or sized or torch.Tag.data_dependent_output in func.tags:
            raise ExportError(f"what its score computes depends on the numbers themselves ({name})")
        return func(*args, **(kwargs or {}))


class _Inside(TorchFunctionMode):
    """Refuses a score that goes through numpy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVING:
            raise ExportError("its score leaves torch")
        return func(*args, **(kwargs or {}))


#: What takes numbers out of torch.
LEAVING = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist)


def innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", lines[0]).strip()  # without colours
    return f"{type(error).__name__}: {plain[:200].rstrip('.')}"
