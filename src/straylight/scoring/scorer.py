"""What scores the rows of a file: a run, or an exported folder, in torch or in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.detectors import Ensemble
from straylight.detectors.scores import BATCH, scores_of
from straylight.errors import ConfigError
from straylight.export.model import Model
from straylight.export.written import MODEL
from straylight.files.dialect import Dialect
from straylight.files.fitting import Part, Rules, Tally
from straylight.files.formats import open_file
from straylight.files.recipe import Recipe
from straylight.files.source import Source
from straylight.rows.batch import HIDDEN, Batch
from straylight.rows.loaders import read_ahead
from straylight.run import Run
from straylight.scoring.exported import Exported
from straylight.scoring.ranges import Rows
from straylight.scoring.runtime import WORTH, Function, faster, onnx, put

Scores = NDArray[np.float32]


class Asked(NamedTuple):
    """How rows are to be scored.

    Attributes:
        scratch: a place for a graph.
        runtime: `torch`, `onnx` or `auto`; `None` for what suits the folder.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        threads: that may compute.
        trust: see `Run.open`.
    """

    scratch: Path
    runtime: str | None = None
    device: str = "cpu"
    threads: int = 1
    trust: Collection[str] = ()


class Scorer:
    """Scores rows as a run does.

    Args:
        run: the run, or an exported folder.
        runtime: `torch`; `onnx`, in which the detector's graph scores, once it was seen to score the first rows as
            torch does; or `auto`, the faster one where they agree, if there are rows enough.
        scratch: a place for a graph.
        threads: that it may use.
    """

    def __init__(
        self, run: Run | Exported, runtime: str = "torch", scratch: Path | None = None, threads: int = 1
    ) -> None:
        self.run, self.judge, self.runtime = run, run.judge, runtime
        self._scratch, self._threads = scratch, threads
        self._function: Function | None = None
        self._recipes: dict[Path, Recipe] = {}

    @property
    def trained(self) -> str:
        """What was done about values that were missing in training."""
        return str(self.run.known.get("recipe", {}).get("missing", "error"))

    def identity(self) -> dict[str, Any]:
        """What tells its scores from those of another."""
        made = (
            (self.run.folder / MODEL).stat().st_mtime_ns
            if isinstance(self.run, Exported)
            else self.run.known.get("run")
        )
        return {"run": self.run.folder.name, "made": made, "runtime": self.runtime}

    def opened(self, path: Path, rows: range | None = None) -> Source:
        """A file of new rows, or of some of those of a Parquet file."""
        recipe = self.run.recipe(path)
        self._recipes[path] = recipe
        return open_file(path, dialect=Dialect.of(recipe.csv)) if rows is None else Rows(path, rows)

    def recipe_of(self, source: Source) -> Recipe:
        """How the events of a file are read that was opened here."""
        return self._recipes[source.path]

    def identifiers(self, source: Source) -> list[str]:
        """The columns of a file that name its rows: those of `data.meta` that it has, and its own index."""
        meta = self.run.known.get("recipe", {}).get("meta", [])
        return [name for name in dict.fromkeys([*meta, *sorted(source.index)]) if name in source.columns]

    @property
    def others(self) -> set[str]:
        """Columns that training had for something else, of which nothing is said where they are not used."""
        kept = self.run.known.get("recipe", {})
        return {kept[name] for name in ("label", "weight", "group") if kept.get(name)}

    def parts(self, source: Source, rules: Rules, tally: Tally, also: Sequence[str]) -> Iterator[Part]:
        """Its rows as the detector takes them."""
        start = source.rows.start if isinstance(source, Rows) else 0
        return read_ahead(self.recipe_of(source).of(source, self._multiple, rules, tally, also, start))

    def rows_of_chunk(self, source: Source, keep: Sequence[str]) -> int:
        """How many of its rows are scored together, with so many columns beside the scores."""
        also = list(dict.fromkeys([*self.identifiers(source), *keep]))
        return self.recipe_of(source).rows_of_chunk(source, self._multiple, also)

    @property
    def _multiple(self) -> int:
        return min(BATCH, self.run.detector.rows_at_once)

    def scores(self, part: Part, members: bool = False) -> tuple[Scores, NDArray[np.float32] | None]:
        """The scores of a part, `(m,)`, and of an ensemble's members, `(m, M)`, if they are wanted.

        Raises:
            ConfigError: if members are wanted of what has none.
        """
        if members:
            return self._of_members(part)
        if isinstance(self.run, Exported):
            return self.run.scored(part), None
        if not len(part.x):
            return np.empty(0, np.float32), None
        if self._function is None:
            self._function = self._chosen(self.run, part.x, part.context)
        return self._function(part.x, part.context), None

    def _chosen(self, run: Run, x: Tensor, context: Tensor) -> Function:
        def torch_scores(x: Tensor, context: Tensor) -> Scores:
            return scores_of(run.detector, x, context)

        if self.runtime == "torch" or (self.runtime == "auto" and len(x) < WORTH):
            return torch_scores
        assert self._scratch is not None
        if self.runtime == "onnx":
            return onnx(run, self._scratch, x, context, self._threads)
        try:
            other = onnx(run, self._scratch, x, context, self._threads)
        except ConfigError:
            return torch_scores
        return faster(torch_scores, other, x, context)

    @torch.inference_mode()
    def _of_members(self, part: Part) -> tuple[Scores, NDArray[np.float32]]:
        detector, n = self.run.detector, len(part.x)
        if not isinstance(detector, Ensemble):
            what = f"{self.run.folder}" if isinstance(self.run, Exported) else type(detector).__name__
            raise ConfigError(f"{what} has no members: --members is for a run of detector=ensemble.")
        hidden, one = torch.full((1,), HIDDEN).expand(n), torch.ones(1).expand(n)
        batch = Batch(part.x, hidden, part.context, one, torch.arange(n)).to(detector.device)
        scored = detector.predict_step(batch, 0)
        assert scored.members is not None
        return scored.score.cpu().numpy(), scored.members.cpu().numpy()

    def p_values(self, part: Part, scores: Scores) -> NDArray[np.float64]:
        """Conformal p-values of a part, `(m,)`."""
        return self.run.p_of(part, scores)

    def explained(self, part: Part, most: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The K features that contribute most, and their contributions, `(m, K)` each.

        Raises:
            ConfigError: if it is an exported folder.
        """
        if isinstance(self.run, Exported):
            raise ConfigError(f"{self.run.folder} was exported, and a graph is not taken apart: --explain takes a run.")
        return self.run.explainer.strongest(part.x, part.context, most)


def scorer_of(folder: Path, asked: Asked) -> Scorer:
    """What scores rows as a run does, whose folder this is, or an exported one.

    Raises:
        ConfigError: if it is neither, or what is asked for is not for it.
    """
    if not (folder / MODEL).is_file():
        run = Run.open(folder, trust=asked.trust)
        put(run, asked.device)
        return Scorer(run, asked.runtime or "torch", asked.scratch, asked.threads)
    model = Model.open(folder, threads=asked.threads)
    if asked.runtime not in (None, "auto", "onnx" if model.kind == "onnx" else "torch"):
        raise ConfigError(f"{folder} was exported as {model.kind}, and scores by that: leave --runtime out.")
    if asked.device not in ("cpu", "auto"):
        raise ConfigError(f"{folder} was exported, and scores on the processor: leave --device out.")
    return Scorer(Exported(model), model.kind)
