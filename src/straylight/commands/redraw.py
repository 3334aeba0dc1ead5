"""`straylight report --figures FOLDER`: draw the figures of finished runs, one run after the other."""

import json
import time
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from straylight import config
from straylight.callbacks.figures import Figures
from straylight.callbacks.pictures import Drawn, current, draw, marks_of
from straylight.callbacks.tensorboard import log_png
from straylight.callbacks.tracker import Tracker
from straylight.console import say
from straylight.errors import StraylightError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.kept import as_tested, data_of, material_of
from straylight.job.logs import call, tracked
from straylight.job.train import quiet
from straylight.report.choice import NAMES, Only, complete
from straylight.run import Run


def redraw(folder: Path, only: Only, trust: Collection[str] = ()) -> int:
    """Draw figures of the finished runs in a folder and below it, from what each kept, into its own folder.

    Pictures are those that the run itself would have drawn, and go to its TensorBoard, too. A run whose pictures are
    there and show its scores of now is passed over; a data set that runs which follow each other share is loaded once.
    A run that cannot be drawn is named and left alone.

    Args:
        folder: of a run, or above several.
        only: see `straylight.report.choice`.
        trust: what their configs may build, see `Run.open`.

    Returns:
        the number of runs that were left alone, or of which a figure failed.
    """
    quiet()
    finished = [result for result in SweepFolder(folder).results() if result["status"] == "ok"]
    held: dict[str, Any] = {}
    failures = 0
    for number, result in enumerate(finished, 1):
        run = RunFolder(result["folder"])
        what = f"[{number}/{len(finished)}] {result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
        start = time.monotonic()
        try:
            done = _redraw(run, only, held, trust)
        except Exception as error:  # as many sorts as there are detectors and data sets
            failures += 1
            said = str(error) if isinstance(error, StraylightError) else f"{type(error).__name__}: {error}"
            say(f"{what}: left alone, its figures cannot be drawn: {' '.join(said.split())}", error=True)
            continue
        if done is None:
            say(f"{what}: its figures are there")
            continue
        failures += bool(done.failed)
        seconds = f"{time.monotonic() - start:.0f} s"
        say(f"{what}: {', '.join(done.names) or 'no figure applies'}, in {run.figures} ({seconds})")
    return failures


def _redraw(folder: RunFolder, only: Only, held: dict[str, Any], trust: Collection[str]) -> Drawn | None:
    """What was drawn; None if all of it was there."""
    before: Any = folder.sound() or {}
    marks = marks_of(folder)
    there = current(folder.figures, marks)
    if complete(only, there, before.get("figures_none", [])):
        return None
    run = Run.open(folder.path, trust=trust)
    if str(run.result.get("device")).startswith("cuda") and torch.cuda.is_available():
        run.detector.to("cuda")
    key = json.dumps([OmegaConf.to_container(run.cfg.data, resolve=True), run.cfg.seed], sort_keys=True, default=str)
    if key not in held:
        held.clear()  # one at a time: it may fill the memory
        held[key] = data_of(run)
    writers = _Writers(run)
    with as_tested(run), torch.no_grad():
        material = material_of(run, held[key])
        done = draw(material, only, folder.figures, _dpi(run), marks=marks, have=there, show=writers.show)
    writers.close()
    _keep(folder, done, there)
    return done


def _dpi(run: Run) -> int:
    """As the run's own figures have."""
    asked = OmegaConf.select(run.cfg, "callbacks.figures")
    figures = config.build(run.cfg, "callbacks.figures") if asked else None
    return figures.dpi if isinstance(figures, Figures) else 100


def _keep(folder: RunFolder, done: Drawn, there: Collection[str]) -> None:
    """Say in the record which figures there are now."""
    record: Any = dict(folder.read() or {})
    found = Drawn(
        [name for name in NAMES if name in {*there, *done.names}],
        [name for name in NAMES if name in {*(record.get("figures_none", [])), *done.none} - {*done.names}],
        done.failed,
    )
    record.pop("figures_failed", None)
    folder.write_result({**record, **found.result()})


class _Writers:
    """The loggers that a run had and that show pictures, opened when there is a picture for them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trainer: Any = None  # what `log_png` knows of one

    def show(self, name: str, png: bytes, width: int, height: int) -> None:
        if self.trainer is None:
            self.trainer = SimpleNamespace(loggers=self._opened(), global_step=self.run.result.get("steps", 0))
        log_png(self.trainer, f"figures/{name}", png, width, height)

    def _opened(self) -> list[Any]:
        import pytorch_lightning as pl

        chosen: Any = self.run.cfg.get("logger") or {}
        there = [name for name in chosen if chosen[name] is not None and not config.lacks(chosen[name])]
        built = [config.build(self.run.cfg, f"logger.{name}") for name in there]
        folder = RunFolder(self.run.folder)
        call(built, folder, self.run.result)
        again = tracked(self.run.cfg, folder, self.run.result, again=True)
        return [
            logger
            for logger in built
            if isinstance(logger, pl.loggers.TensorBoardLogger) or (isinstance(logger, Tracker) and logger.find(again))
        ]

    def close(self) -> None:
        for logger in self.trainer.loggers if self.trainer is not None else ():
            logger.close() if isinstance(logger, Tracker) else logger.experiment.close()
