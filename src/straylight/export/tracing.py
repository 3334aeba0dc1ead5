"""A detector as an ONNX graph, by torch's older exporter, which is quicker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from straylight.export.predicted import Exported, ExportError, as_exported, in_a_sentence, quietly, seen

#: Operations on shapes that a traced graph may have. The exporter folds them away; with many of them, as in a flow, the
#: traced graph takes up to half as long again.
OF_SHAPES, MOST_OF_SHAPES = {"Shape", "ConstantOfShape", "Range", "Expand", "NonZero", "ScatterND", "If", "Loop"}, 2
OPSET = 18  # of traced graphs


def traced(detector: nn.Module, path: str | Path) -> Exported:
    """As `to_onnx`, by torch's older exporter: it follows one call, in a tenth of a second in place of five.

    The graph holds no branch but the one that was taken; one that computes with shapes, which would be slower than the
    exporter's, is refused. What depends on the number of rows may be fixed in it: rely on it only after `parity`, as
    `compared` does. A torch that no longer has that exporter gives none.

    Raises:
        ExportError: if it has no such graph, with the reason in one sentence.

    Example:
        >>> import tempfile
        >>> from straylight.detectors import AutoEncoder
        >>> from straylight.export import run, session
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = traced(AutoEncoder((3,), hidden=[4], latent=2), folder + "/model.onnx").path
        ...     run(session(file), torch.zeros(5, 3)).shape
        (5,)
    """
    path = Path(path)
    with as_exported(detector):
        predict, example = seen(detector)
        names = ["x", "context"][: len(example)]
        try:
            with in_a_sentence(detector), quietly(), _unprinted(), _traced_otherwise():
                torch.onnx.export(
                    predict,
                    tuple(example),
                    str(path),
                    dynamo=False,
                    input_names=names,
                    output_names=["score"],
                    opset_version=OPSET,
                    dynamic_axes={name: {0: "batch"} for name in [*names, "score"]},
                    verbose=False,
                )
        finally:
            turns = [vars(module).pop("turn") for module in detector.modules() if "turn" in vars(module)]
    if (found := _computing_with_shapes(path)) > MOST_OF_SHAPES:
        raise ExportError(f"The traced graph of {type(detector).__name__} has {found} operations on shapes.")
    return Exported(path, min(turns, default=None))


def _computing_with_shapes(path: Path) -> int:
    import onnx

    return sum(node.op_type in OF_SHAPES for node in onnx.load(path).graph.node)


@contextmanager
def _unprinted() -> Iterator[None]:
    """Without the graph that failed, of which torch prints every node: it asks a function, and not what that returns,
    whether it is to."""
    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is None:  # of a torch without that exporter
        yield
        return
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


@contextmanager
def _traced_otherwise() -> Iterator[None]:
    """The same for traced graphs: the loss of logits without their sigmoid, and nan_to_num without torch's six casts.

    What these translations leave out, such as weights of classes, no detector uses, and `parity` would show.
    """
    from torch.onnx import register_custom_op_symbolic, symbolic_helper, unregister_custom_op_symbolic

    def loss_of_logits(g: Any, x: Any, target: Any, *others: Any) -> Any:
        one = g.op("Constant", value_t=torch.tensor(1.0))
        return g.op("Add", g.op("Mul", g.op("Sub", one, target), x), g.op("Softplus", g.op("Neg", x)))

    @symbolic_helper.parse_args("v", "f", "f", "f")
    def nan_to_num(g: Any, x: Any, nan: float, above: float, below: float) -> Any:
        def constant(value: float) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=x.type().dtype()))

        found = g.op("Where", g.op("IsNaN", x), constant(nan), x)
        found = g.op("Where", g.op("IsInf", x, detect_negative_i=0), constant(above), found)
        return g.op("Where", g.op("IsInf", x, detect_positive_i=0), constant(below), found)

    ours: dict[str, Any] = {"aten::binary_cross_entropy_with_logits": loss_of_logits, "aten::nan_to_num": nan_to_num}
    try:
        for name, symbolic in ours.items():
            register_custom_op_symbolic(name, symbolic, OPSET)
        yield
    finally:
        for name in ours:
            unregister_custom_op_symbolic(name, OPSET)
