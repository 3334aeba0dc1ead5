"""A run as a folder that another program uses without Straylight: its graph, what to know of it, and a program."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from straylight.atomic import replacing_folder, write_json
from straylight.errors import ConfigError, StraylightError
from straylight.export.agreement import Finding, findings
from straylight.export.description import FORMAT, MARK, described
from straylight.export.exporter import to_onnx, to_pt2
from straylight.export.predicted import Exported, ExportError
from straylight.export.sessions import program, session

MODEL, PARITY, PROGRAM, README = "model.json", "parity.json", "score.py", "README.md"
#: Rows of the run's own that are compared, and sizes of batches.
ROWS, BATCHES = 1000, (1, 2, 2048)


class Graph(NamedTuple):
    """A kind of graph: what its file is called, how it is made of a detector, and how it is opened."""

    file: str
    make: Callable[[nn.Module, Path], Exported]
    open: Callable[[Path, int], Any]


GRAPHS = {
    "onnx": Graph("model.onnx", to_onnx, session),
    "pt2": Graph("model.pt2", to_pt2, lambda path, threads: program(path)),
}


class Written(NamedTuple):
    """What an export wrote.

    Attributes:
        folder: where.
        files: bytes of each file, by its name.
        findings: how its scores differ from the detector's, see `straylight.export.findings`.
        rows: which ordinary rows were compared.
    """

    folder: Path
    files: dict[str, int]
    findings: list[Finding]
    rows: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = [one._asdict() for one in self.findings]
        return {"folder": str(self.folder), "files": self.files, "parity": {"rows": self.rows, "findings": found}}


def to_folder(run: Any, folder: str | Path, to: str = "onnx") -> Written:
    """Write a run's detector as a graph, with all that another program must know to score by it.

    The graph's scores are compared with the detector's before; the folder is there whole or not at all, and takes the
    place of one that was exported before.

    Args:
        run: a `straylight.run.Run`.
        folder: to be made.
        to: `onnx` or `pt2`.

    Raises:
        ConfigError: if the folder holds something else.
        ExportError: if the detector has no such graph, or one that scores otherwise.
    """
    kind = GRAPHS[to]
    _check_ours(Path(folder).resolve(), folder)
    with replacing_folder(folder) as aside:
        exported = kind.make(run.detector, aside / kind.file)
        at_once = int(min(run.detector.rows_at_once, exported.largest or run.detector.rows_at_once))
        x, context, what = _rows(run)
        found = findings(
            run.detector,
            kind.open(exported.path, 1),
            x,
            context,
            batches=[n for n in BATCHES if n <= at_once],
            largest=at_once,
        )
        graph = {"to": to, "file": kind.file, "sha256": digest(exported.path), "rows_at_once": at_once}
        write_json(aside / MODEL, described(run, {**graph, **_more(exported.path, to)}))
        write_json(aside / PARITY, {"rows": what, "findings": [one._asdict() for one in found]})
        (aside / PROGRAM).write_text(_program(to), encoding="utf-8")
        (aside / README).write_text(_readme(run, kind.file), encoding="utf-8")
        files = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
    return Written(Path(folder), files, found, what)


def read(folder: str | Path) -> dict[str, Any]:
    """What the `model.json` of an export says.

    Raises:
        ConfigError: if there is none, or it is damaged or of another version.
    """
    path = Path(folder) / MODEL
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no {MODEL}: it is no folder that straylight export wrote.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(held, dict) or held.get("is") != MARK:
        raise ConfigError(f"{path} is not what straylight export writes.")
    if held.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is of format {held.get('format')}, and this Straylight knows {FORMAT}; export the run again."
        )
    return held


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_ours(path: Path, folder: str | Path) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        read(path)
    except ConfigError as error:
        raise ConfigError(
            f"{folder} holds something that straylight export did not write, and is left alone; give another folder."
        ) from error


def _rows(run: Any) -> tuple[Tensor, Tensor, str]:
    """Ordinary rows and their context, and which they are."""
    try:
        test = run.material.data.splits.test
    except StraylightError as error:
        return *_drawn(run.detector, error), f"{ROWS} rows drawn at random, as wide as the training rows ({error})"
    places = torch.linspace(0, len(test) - 1, min(ROWS, len(test))).round().long()
    x, context = (part.index_select(0, places).float() for part in (test.x, test.context))
    return x, context, f"{len(places)} of the run's {len(test)} test rows, evenly spaced"


def _drawn(detector: Any, error: StraylightError) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scaled = torch.randn(ROWS, *detector.shape, generator=generator)
    if detector.scaling.bounded:
        scaled = torch.rand(ROWS, *detector.shape, generator=generator)
    try:
        x = detector.scaling.inverse(scaled)
    except (ValueError, NotImplementedError, AttributeError):
        raise ExportError(f"There are no rows to compare the graph with: {error}") from error
    return x, torch.randn(ROWS, detector.context, generator=generator)


def _more(path: Path, to: str) -> Mapping[str, Any]:
    if to != "onnx":
        return {}
    import onnx

    held = onnx.load(str(path), load_external_data=False)
    return {"opset": {one.domain or "ai.onnx": one.version for one in held.opset_import}}


#: What differs in the program for a graph of torch's.
OF_TORCH = {
    "import onnxruntime\n": "import torch\n",
    'session = onnxruntime.InferenceSession(folder / model["graph"]["file"])': (
        'graph = torch.export.load(folder / model["graph"]["file"]).module()'
    ),
    "session.run(None, part)[0]": "graph(*map(torch.from_numpy, part.values())).detach().numpy()",
}


def _program(to: str) -> str:
    text = Path(__file__).with_name(PROGRAM).read_text(encoding="utf-8")
    for old, new in OF_TORCH.items() if to == "pt2" else ():
        text = text.replace(old, new)
    return text


def _readme(run: Any, file: str) -> str:
    needs = "onnxruntime" if file.endswith(".onnx") else "torch"
    what = f"{run.result.get('detector')} trained on {run.result.get('data')}"
    return (
        f"An anomaly detector, {what}, exported by Straylight. `python {PROGRAM} FILE` prints the scores of a file's "
        f"rows, larger is stranger; it needs numpy and {needs}. `{MODEL}` says what `{file}` takes and gives, "
        f"`{PARITY}` how near its scores are to the detector's.\n"
    )
