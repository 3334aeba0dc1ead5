"""A detector as an ONNX graph, by torch's exporter."""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from straylight.export.predicted import Exported, as_exported, in_a_sentence, quietly, seen

PROGRAM = "a program of torch's"


def to_onnx(detector: nn.Module, path: str | Path) -> Exported:
    """Write the predict path of a detector, scaling and then score, as ONNX with a dynamic batch axis.

    The detector is exported in float32 on the CPU, in evaluation mode and not compiled, and is left as it was found.

    Args:
        detector: has `shape`, `context` and a forward pass of `x` and `context`.
        path: of the file.

    Raises:
        ExportError: if it has no such graph, with the reason in one sentence.

    Example:
        >>> import tempfile
        >>> from straylight.detectors import AutoEncoder
        >>> from straylight.export import run, session
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = to_onnx(AutoEncoder((3,), hidden=[4], latent=2), folder + "/model.onnx").path
        ...     run(session(file), torch.zeros(5, 3)).shape
        (5,)
    """
    path = Path(path)
    with as_exported(detector):
        predict, example = seen(detector)
        with in_a_sentence(detector):
            with quietly(), _collected_once():
                program: Any = torch.onnx.export(
                    predict,
                    tuple(example),
                    dynamo=True,
                    dynamic_shapes=tuple({0: "batch"} for _ in example),
                    input_names=["x", "context"][: len(example)],
                    output_names=["score"],
                    custom_translation_table=_translations(),
                    verbose=False,
                )
            largest = _largest(program.exported_program)
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # where it came from: folders of this machine
            program.save(str(path), external_data=False)
    return Exported(path, largest)


def to_pt2(detector: nn.Module, path: str | Path) -> Exported:
    """As `to_onnx`, as a program that torch runs without the detector's own code, by `torch.export`.

    Raises:
        ExportError: if it has no such graph, with the reason in one sentence.

    Example:
        >>> import tempfile
        >>> from straylight.detectors import AutoEncoder
        >>> from straylight.export import program
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = to_pt2(AutoEncoder((3,), hidden=[4], latent=2), folder + "/model.pt2").path
        ...     program(file)(torch.zeros(5, 3)).shape
        (5,)
    """
    path = Path(path)
    with as_exported(detector):
        predict, example = seen(detector, PROGRAM)
        with in_a_sentence(detector, to=PROGRAM), quietly(), _collected_once():
            shapes = tuple({0: torch.export.Dim.AUTO} for _ in example)
            program = torch.export.export(predict, tuple(example), dynamic_shapes=shapes, strict=False)
            for part in program.graph_module.modules():
                for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
                    node.meta.pop("stack_trace", None)  # folders of this machine
            torch.export.save(program, str(path))
    return Exported(path, _largest(program))


def _largest(program: Any) -> int | None:
    """The largest batch that a traced graph is good for: one that takes rows in turns was traced for a single turn."""
    (batch,) = {str(n.meta["val"].shape[0]) for n in program.graph.nodes if n.op == "placeholder" and n.name == "x"}
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) == batch and (upper := str(bounds.upper)).isdigit() and int(upper) < 2**31:
            return int(upper)
    return None


def _translations() -> dict[Any, Any]:
    """In place of torch 2.13's log(sigmoid(x)), which is minus infinity for x below -104."""
    from onnxscript import opset20 as op

    def log_sigmoid(self):
        return op.Neg(op.Softplus(op.Neg(self)))

    return {torch.ops.aten.log_sigmoid.default: log_sigmoid}


#: Where torch collects what it knows of operators, anew for every graph: a module, and the function in it.
COLLECTING = (
    ("torch._export.utils", "_materialize_cpp_cia_ops"),
    ("torch.onnx._internal._lazy_import", "onnxscript_apis.get_torchlib_ops"),
)
_collected: dict[str, Any] = {}


@contextmanager
def _collected_once() -> Iterator[None]:
    """Torch's exporter with what it collected for an earlier graph of this process: a second of each.

    There is no public way to it. Where a version of torch has these functions elsewhere, nothing is changed.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for place, path in COLLECTING:
            *above, name = path.split(".")
            try:
                owner = functools.reduce(getattr, above, importlib.import_module(place))
                collect = getattr(owner, name)
            except (ImportError, AttributeError):
                continue
            _collected.setdefault(path, functools.cache(collect))
            before.append((owner, name, collect))
            setattr(owner, name, _collected[path])
        yield
    finally:
        for owner, name, collect in before:
            setattr(owner, name, collect)
