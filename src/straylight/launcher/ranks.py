"""A single run of several processes: each rank a clean run of the run's own frozen config.

Lightning would start ranks with the parent's command line. Here they are started as `torchrun` would start them, by a
process that does nothing else, so that it sees which one dies, and Lightning finds them in the environment.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from straylight.launcher import pool
from straylight.launcher.child import Order
from straylight.launcher.outcome import log_file, settle

TICK_S = 0.2
GRACE_S = 20.0  # for ranks that are interrupted to leave a checkpoint


def run_ranks(cfg: DictConfig, folder: Path, fields: Mapping[str, Any], ranks: int, resume: bool) -> dict[str, Any]:
    """Run so many ranks to their end; what `result.json` says.

    The first one prints here, the others into `output.1.log`, ... in the folder. Ctrl-C interrupts all of them, a
    second one ends them.
    """
    pool.warm()
    config = frozen(cfg, folder)
    (folder / "result.json").unlink(missing_ok=True)  # of before: ranks that die at once say nothing
    running = pool.Running(
        [
            Order(
                config=config,
                folder=str(folder),
                rank=rank,
                resume=resume,
                environment={**os.environ, **place},
                threads=None,
                callbacks=None,
                log=str(log_file(folder, rank)) if rank else None,
                keep=False,
                fields=fields,
            )
            for rank, place in enumerate(pool.meeting_place(ranks))
        ]
    )
    stopped = False
    try:
        while True:
            try:
                if running.look():
                    break
                wait(running.waited_for, TICK_S)
            except KeyboardInterrupt:
                if stopped:
                    running.kill()
                else:
                    running.stop(GRACE_S)
                stopped = True
        return settle(folder, fields, running, stopped=stopped)
    finally:
        running.close()


def frozen(cfg: DictConfig, folder: Path) -> DictConfig:
    """A run's config, resolved, for a process that knows nothing of Hydra."""
    task = copy.deepcopy(cfg)
    with read_write(task), open_dict(task):
        task.pop("hydra", None)
        task.paths.run = str(folder)
    plain: Any = OmegaConf.to_container(task, resolve=True)
    return DictConfig(plain)
