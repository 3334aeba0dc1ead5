"""Engines whose jobs go on without a launcher, for asking after them by whoever resumes a sweep on another engine."""

import shutil
from pathlib import Path

from straylight.engines.base import Engine


def attached(name: str | None, place: Path) -> Engine | None:
    """An engine that looks after jobs of an earlier launcher and starts none; `None` if none of its jobs is left.

    Args:
        name: of the engine, as `job.json` has it.
        place: the folder of the sweep.
    """
    if name == "slurm" and shutil.which("squeue") is not None:
        from straylight.engines.slurm.engine import SlurmEngine
        from straylight.engines.slurm.options import Options

        return SlurmEngine(Options(), place)
    return None
