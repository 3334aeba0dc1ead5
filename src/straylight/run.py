"""A run folder is the model: open it and score new events."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from straylight import config
from straylight.callbacks.gallery import drawn
from straylight.callbacks.material import Material
from straylight.detectors import Detector
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.checkpoints import read_checkpoint
from straylight.job.kept import as_tested, data_of, material_of
from straylight.job.train import load, put
from straylight.judged import Judged
from straylight.metrics.judge import Judge
from straylight.report.card import of_folder
from straylight.report.kept import calibration_of

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


log = logging.getLogger(__name__)


class Run(Judged):
    """A finished run.

    Example: `Run.open("outputs/runs/2026-11-23_10-00-00-000000").score(rows)`.

    Attributes:
        folder: of the run.
        cfg: its composed config.
        detector: rebuilt, with the weights it was tested with, ready to score.
        kinds: names of the labels.
        result: what `result.json` says, empty if there is none.
        known: what `shape.json` says of the events: their shape, context, kinds, and how they were made of a file.
    """

    def __init__(
        self, folder: Path, cfg: DictConfig, detector: Detector, known: dict[str, Any], result: Mapping[str, Any]
    ) -> None:
        self.folder, self.cfg, self.detector, self.known, self.result = folder, cfg, detector, known, result
        self.kinds = tuple(known["kinds"])

    @classmethod
    def open(cls, folder: str | Path, *, trust: Collection[str] = ()) -> Run:
        """Rebuild the detector of a run, which somebody else may have made: nothing that came with it is run.

        Args:
            folder: of the run.
            trust: modules or packages, apart from Straylight's own, that its config may build classes of.

        Raises:
            ConfigError: if the folder is not a run's, is damaged, holds no checkpoint, or names what nobody trusts.
        """
        place = RunFolder(folder)
        cfg = config.opened(place, trust)
        result: Mapping[str, Any] = place.sound() or {}
        known = _known(place)
        named = result.get("checkpoint")
        checkpoint = place.newest_checkpoint if named is None else place.checkpoint(Path(named).stem)
        if checkpoint is None or not checkpoint.is_file():
            raise ConfigError(f"{place} holds no checkpoint: none was kept, or training stopped before there was one.")
        _check_size(place, known, checkpoint)
        detector = config.build(cfg, "detector", shape=tuple(known["shape"]), context=known["context"])
        place.check_same_run(checkpoint, load(detector, checkpoint))
        place.check_whole(checkpoint)
        return cls(place.path, cfg, detector, known, result)

    @property
    def rows(self) -> pa.Table:
        """The rows of its test with their scores, as it wrote them: `index`, `score`, `y`, `kind` and what names them.

        A table of Arrow: `run.rows.to_pandas()`, `polars.from_arrow(run.rows)`. `docs/runs.md` says what its columns
        are.

        Example: `Run.open(folder).rows.sort_by([("score", "descending")]).slice(0, 10)`, the ten strangest.

        Raises:
            ConfigError: if the run kept no scores, or they are damaged.
        """
        place = RunFolder(self.folder)
        if not place.scores.is_file():
            raise ConfigError(f"{place} holds no scores of test rows ({place.scores.name}): its test has not ended.")
        return place.table(place.scores)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: see `straylight.report.card`."""
        return of_folder(self.folder)

    @property
    def called(self) -> str:
        return str(self.folder)

    @cached_property
    def material(self) -> Material:
        """What its figures are drawn from: the scores of the test as the run wrote them, and its data set, loaded.

        Raises:
            ConfigError: if the data set is not to be had, or is another one now.
        """
        return material_of(self, data_of(self))

    def draw(self, name: str) -> Figure:
        """A figure of the run by its name, such as `scores` or `latent_2d`, as the run itself would have drawn it.

        Example: `Run.open("outputs/runs/2026-11-23_10-00-00-000000").draw("latent_2d").savefig("codes.png")`.

        Raises:
            ConfigError: see `material`.
            ValueError: if there is no such figure, or it does not apply.
        """
        with as_tested(self), torch.no_grad():
            return drawn(name, self.material)

    def training_data(self) -> Any:
        return data_of(self)

    @cached_property
    def judge(self) -> Judge:
        """The thresholds and calibration scores of the run."""
        place = RunFolder(self.folder)
        return Judge(str(self.folder), list(self.result.get("thresholds", [])), calibration_of(place))

    @cached_property
    def fold_detectors(self) -> list[Detector]:
        """The detectors that were fitted without a fold each, if it calibrated across folds."""
        place = RunFolder(self.folder)
        saved = read_checkpoint(place.folds)
        place.check_same_run(place.folds, saved.get("run"))
        place.check_whole(place.folds)
        found = []
        for fold in range(len(self.judge.folds)):
            prefix = f"{fold}."
            state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
            detector = copy.deepcopy(self.detector)
            put(detector, state, place.folds)
            found.append(detector)
        return found

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that were set on calibration rows, by rule: `quantile`, `fpr=0.01`, `rate`, `f1`.

        Of several accepted rates each has its number, as `rate=100`. A score must exceed its threshold; infinite is one
        by which nothing may be flagged. The rule `fdr` has none, nor has any that was set across folds.
        """
        return self.judge.thresholds


LARGE = 2**22  # numbers in an event of which nothing is said


class _Known(BaseModel, extra="allow"):
    """What `shape.json` holds."""

    shape: list[PositiveInt]
    context: NonNegativeInt
    kinds: list[str]
    recipe: dict[str, Any] = {}  # runs of earlier versions have none
    run: str | None = None


def _known(place: RunFolder) -> dict[str, Any]:
    if not place.shape.is_file():
        raise ConfigError(f"{place} stopped before its data were read (no shape.json): there is nothing to open.")
    try:
        known = _Known.model_validate_json(place.shape.read_bytes(), strict=True).model_dump()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{place.shape} cannot be read: {' '.join(str(error).split())}") from error
    place.check_same_run(place.shape, known["run"])
    place.check_whole(place.shape)
    return known


def _check_size(place: RunFolder, known: Mapping[str, Any], checkpoint: Path) -> None:
    """Make sure that what `shape.json` says is no larger than a checkpoint as small can be of."""
    count, size = math.prod(known["shape"]) + known["context"], checkpoint.stat().st_size
    if count > max(LARGE, size):  # a scaling alone holds more bytes than there are numbers in an event
        raise ConfigError(
            f"{place.shape} says that an event has {count:,} numbers, and {checkpoint.name} of {size:,} bytes is of a "
            "smaller one."
        )
