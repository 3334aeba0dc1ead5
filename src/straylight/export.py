"""A detector as an ONNX graph of its predict path, and whether the graph is the detector.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

import functools
import importlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from straylight.errors import StraylightError

#: The largest difference that two runtimes may show: on ordinary rows as a fraction of the spread of their scores, and
#: relative to the score on rows far outside the training range, where flows multiply by exponentials of large numbers.
TOLERANCE, FAR_TOLERANCE = 1e-3, 1e-2
#: The largest share of pairs of ordinary rows that the graph may rank otherwise.
MISORDERED = 1e-3
#: What float32 rounds of a score, as a fraction of it: a difference that no graph could do without.
ROUNDING = 4 * float(np.finfo(np.float32).eps)
#: Operations of a score that are put into a graph, at most: a search in steps has one for each of them.
MOST_OPERATIONS = 5000
#: Operations on shapes that a traced graph may have. The exporter folds them away; with many of them, as in a flow, the
#: traced graph takes up to half as long again.
OF_SHAPES, MOST_OF_SHAPES = {"Shape", "ConstantOfShape", "Range", "Expand", "NonZero", "ScatterND", "If", "Loop"}, 2
OPSET = 18  # of traced graphs
#: Operations without a counterpart in ONNX, which are known before a second is spent on finding out.
ABSENT = {"searchsorted", "bucketize", "histc"}


class ExportError(StraylightError):
    """A detector without an ONNX graph, or whose graph scores otherwise than the detector."""


class Refused(ExportError):
    """A detector of which it is known at once that it has no graph."""


class Exported(NamedTuple):
    """An ONNX file. Inputs `x` `(B, *shape)` and, where there are any, `context` `(B, C)`; output `score` `(B,)`."""

    path: Path
    largest: int | None  # B that the graph is good for; `None` for any


class _Predict(nn.Module):
    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.detector(x, x.flatten(1)[:, :0] if context is None else context)


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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = to_onnx(AutoEncoder((3,), hidden=[4], latent=2), folder + "/model.onnx").path
        ...     run(session(file), torch.zeros(5, 3)).shape
        (5,)
    """
    path = Path(path)
    with _as_exported(detector):
        predict, example = _seen(detector)
        with _in_a_sentence(detector):
            with _quietly(), _collected_once():
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
            program.save(str(path), external_data=False)
    return Exported(path, largest)


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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = traced(AutoEncoder((3,), hidden=[4], latent=2), folder + "/model.onnx").path
        ...     run(session(file), torch.zeros(5, 3)).shape
        (5,)
    """
    path = Path(path)
    with _as_exported(detector):
        predict, example = _seen(detector)
        names = ["x", "context"][: len(example)]
        try:
            with _in_a_sentence(detector), _quietly(), _traced_otherwise():
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


def _seen(detector: nn.Module) -> tuple[nn.Module, list[Tensor]]:
    """The predict path, and what it is shown.

    Raises:
        Refused: if it is known at once that it has no graph.
    """
    sizes: Any = detector.shape, detector.context
    predict = _Predict(detector).eval()
    example = [torch.zeros(3, *sizes[0])] + [torch.zeros(3, sizes[1])] * bool(sizes[1])
    with _in_a_sentence(detector, Refused), _Probe(), _Inside():
        predict(*example)
    return predict, example


@contextmanager
def _in_a_sentence(detector: nn.Module, kind: type[ExportError] = ExportError) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            raise
        reason = str(error) if isinstance(error, ExportError) else f"torch's exporter fails ({_innermost(error)})"
        raise kind(f"{type(detector).__name__} cannot be exported to ONNX: {reason}.") from error


def session(path: str | Path) -> Any:
    """ONNX Runtime's session of a file: on the CPU, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # an error is raised, and need not be printed too
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: Any, x: Tensor, context: Tensor | None = None) -> NDArray[np.float32]:
    """Scores of events in the data's own units, `(B, *shape)` and `(B, C)` to `(B,)`."""
    fed = {"x": x.numpy()}
    if len(session.get_inputs()) > 1:
        assert context is not None
        fed["context"] = context.numpy()
    return session.run(None, fed)[0]


def parity(
    detector: nn.Module,
    session: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    far_tolerance: float = FAR_TOLERANCE,
    batches: Sequence[int] = (1,),
) -> float:
    """The largest difference between torch and ONNX Runtime, of ordinary rows by `difference`.

    Rows are compared as they are, in batches of several sizes, and far outside the training range: 10, 1000 and a
    million times as large, and constant. A row that torch scores with no finite number is not compared, any other must
    have a finite score from both.

    Ordinary rows are judged by what ranks them: the spread of their scores, beside which what all scores have in common
    is nothing, and their order. Rows far outside are judged relative to their score, |a - b| / max(|a|, spread).

    Args:
        detector: scores in float32 on the CPU.
        session: see `session`.
        x, context: ordinary events in the data's own units, `(B, *shape)` and `(B, C)`.
        tolerance, far_tolerance: the largest difference, on ordinary rows and on those far outside.
        batches: further batch sizes; rows are repeated.

    Raises:
        ExportError: if the difference is larger, or the graph does not run.
    """
    x = x.detach().to("cpu", torch.float32)
    context = x.flatten(1)[:, :0] if context is None else context.detach().to("cpu", torch.float32)
    largest = float(x[x.isfinite()].abs().max()) if x.isfinite().any() else 1.0
    constants = torch.tensor([0.0, 1.0, -1.0, 1e4, -1e4]).view(-1, *[1] * (x.ndim - 1)) * max(largest, 1.0)
    few = torch.arange(len(constants)) % len(x)
    sets = [("ordinary rows", x, context, False)]
    sets += [(f"batches of {n}", x[i], context[i], False) for n in batches for i in [torch.arange(n) % len(x)]]
    sets += [(f"rows {factor:g} times as large", x * factor, context, True) for factor in (10, 1000, 1e6)]
    sets += [("constant rows", constants.expand(-1, *x.shape[1:]).contiguous(), context[few], True)]
    worst, usual = 0.0, None
    with _as_exported(detector):
        for what, rows, columns, far in sets:
            a = detector(rows, columns).double().numpy()
            try:
                b = run(session, rows, columns).astype(np.float64)
            except Exception as error:
                raise _differs(detector, f"no scores on {what} ({_innermost(error)})") from error
            if a.shape != b.shape:
                raise _differs(detector, f"{b.shape} scores instead of {a.shape} on {what}")
            a, b = _finite(a), _finite(b)
            if not np.isfinite(b[np.isfinite(a)]).all():
                raise _differs(detector, f"a score that is not finite, where torch has one that is, on {what}")
            if usual is None:
                usual = Usual.of(a)
                if (share := misordered(a, b)) > MISORDERED:
                    raise _differs(detector, f"another order of {share:.2%} of the pairs of rows")
            found = relative_difference(a, b, usual.spread) if far else difference(a, b, usual)
            if found > (far_tolerance if far else tolerance):
                of = "relative to the score" if far else "of the scores' spread"
                raise _differs(
                    detector,
                    f"a difference of {found:.2g} {of}, above {far_tolerance if far else tolerance:g}, on {what}",
                )
            worst = max(worst, found)
    return worst


class Usual(NamedTuple):
    """Where the scores of ordinary rows lie, whatever a few of them are: their median, and their spread about it."""

    centre: float
    spread: float

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> "Usual":
        """The spread is a standard deviation, that of normal scores with these quartiles; of scores half of which are
        the same, their own; of scores all of which are, their size.

        Example:
            >>> Usual.of(np.array([1e6, 1e6 + 1.349, 1e6 + 2.698, 1e6 + 4.047, 1e30])).spread < 2.01
            True
        """
        seen = scores[np.isfinite(scores)]
        if not len(seen):
            return cls(0.0, 0.0)
        low, centre, high = np.percentile(seen, (25, 50, 75))
        return cls(float(centre), float((high - low) / 1.349 or np.std(seen) or abs(centre)))


def difference(a: NDArray[np.float64], b: NDArray[np.float64], usual: Usual) -> float:
    """The largest |a - b|, less what float32 rounds, where a is finite: as a fraction of the spread of ordinary scores,
    or, of a row that is stranger, of how far its score lies from theirs.

    Example:
        >>> difference(np.array([1e4, 1e4 + 1]), np.array([1e4, 1e4 + 1.5]), Usual(1e4, 1.0)) > 0.49
        True
    """
    seen = np.isfinite(a)
    off = np.maximum(np.abs(a[seen] - b[seen]) - ROUNDING * np.abs(a[seen]), 0)
    return _largest_ratio(off, np.maximum(np.abs(a[seen] - usual.centre), usual.spread))


def misordered(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The share of pairs of rows, of those that a tells apart by more than float32 rounds, which b ranks otherwise.

    Kendall's distance: his rank correlation is one less twice this share.

    References:
        M. G. Kendall, A new measure of rank correlation, Biometrika 30 (1938) 81, doi:10.1093/biomet/30.1-2.81

    Example:
        >>> misordered(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == 1 / 3
        True
    """
    seen = np.isfinite(a)
    a, b = a[seen], b[seen]
    margin = ROUNDING * np.abs(a)
    above = a[:, None] - a > margin[:, None] + margin
    return float((above & (b[:, None] < b)).sum() / max(1, above.sum()))


def relative_difference(a: NDArray[np.float64], b: NDArray[np.float64], spread: float = 0.0) -> float:
    """The largest |a - b| / max(|a|, spread) where a is finite.

    Example:
        >>> relative_difference(np.array([0.0, 2.0, np.inf]), np.array([0.0, 3.0, 1.0]), spread=1.0)
        0.5
    """
    seen = np.isfinite(a)
    return _largest_ratio(np.abs(a[seen] - b[seen]), np.maximum(np.abs(a[seen]), spread))


def _finite(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores, infinite where they were clamped to the largest number, as one that overflows is."""
    return np.where(np.abs(scores) < float(np.finfo(np.float32).max), scores, np.inf)


def _largest_ratio(off: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.divide(off, scale, out=np.zeros_like(off), where=off > 0).max(initial=0.0))


def _differs(detector: nn.Module, what: str) -> ExportError:
    return ExportError(f"The ONNX graph of {type(detector).__name__} is not the detector: it gives {what}.")


@contextmanager
def _as_exported(detector: nn.Module) -> Iterator[None]:
    """Float32 on the CPU, in evaluation mode, eager, without gradients; afterwards as it was."""
    modules, parameters = list(detector.modules()), list(detector.parameters())
    tensors = [*parameters, *detector.buffers()]
    if wrong := {t.dtype for t in parameters} - {torch.float32, torch.float64}:
        raise ExportError(f"{type(detector).__name__} cannot be exported to ONNX: its weights are {wrong.pop()}.")
    device = tensors[0].device if tensors else torch.device("cpu")
    modes = [module.training for module in modules]
    compiled = [module._compiled_call_impl for module in modules]
    needed = [p.requires_grad for p in parameters]
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            detector.traced = True  # type: ignore[assignment]
            for module in modules:
                module.training, module._compiled_call_impl = False, None
            for p in parameters:
                p.requires_grad_(False)
            if device.type != "cpu":
                detector.to("cpu")
            yield
        finally:
            vars(detector).pop("traced", None)
            if device.type != "cpu":
                detector.to(device)
            for module, training, call in zip(modules, modes, compiled, strict=True):
                module.training, module._compiled_call_impl = training, call
            for p, grad in zip(parameters, needed, strict=True):
                p.requires_grad_(grad)


@contextmanager
def _quietly() -> Iterator[None]:
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


def _computing_with_shapes(path: Path) -> int:
    import onnx

    return sum(node.op_type in OF_SHAPES for node in onnx.load(path).graph.node)


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


def _translations() -> dict[Any, Any]:
    """In place of torch 2.13's log(sigmoid(x)), which is minus infinity for x below -104."""
    from onnxscript import opset20 as op

    def log_sigmoid(self):
        return op.Neg(op.Softplus(op.Neg(self)))

    return {torch.ops.aten.log_sigmoid.default: log_sigmoid}


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


def _largest(program: Any) -> int | None:
    """The largest batch that a traced graph is good for: one that takes rows in turns was traced for a single turn."""
    (batch,) = {str(n.meta["val"].shape[0]) for n in program.graph.nodes if n.op == "placeholder" and n.name == "x"}
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) == batch and (upper := str(bounds.upper)).isdigit() and int(upper) < 2**31:
            return int(upper)
    return None


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", lines[0]).strip()  # without colours
    return f"{type(error).__name__}: {plain[:200].rstrip('.')}"
