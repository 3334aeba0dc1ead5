"""What loggers wrote of a run that is gone on with."""

import csv
import warnings
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger


def go_on(loggers: Iterable[Logger]) -> None:
    """Have the loggers of the first rank write behind what they wrote before; Lightning's CSVLogger would delete it."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            before = Path(logger.log_dir, "metrics.csv")
            rows = []
            if before.is_file():
                with before.open(newline="", encoding="utf-8") as file:
                    rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Experiment logs directory")
                logger.experiment.metrics[:0] = rows  # texts, which are written as they are
