"""Several processes for one job: each rank a clean run of the job's own frozen config.

Lightning would start ranks with the parent's command line, and with `-m` in it every rank would run the whole sweep.
Here they are started from the config that the job was composed to, as `torchrun` would start them, and Lightning
finds them in the environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy

from straylight.errors import StraylightError

GRACE_S = 20.0  # for a rank to end by itself after the first one has


class DDP(DDPStrategy):
    """Distributed data-parallel training that lets a detector without parameters pass, which torch's wrapper refuses.

    Args:
        options: see Lightning's `DDPStrategy`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def configure_ddp(self) -> None:
        if any(p.requires_grad for p in self.model.parameters()):  # type: ignore[union-attr]
            super().configure_ddp()


def processes(trainer: pl.Trainer) -> int:
    """How many ranks this process has to start: 1 if another has started them all, itself among them."""
    return 1 if "LOCAL_RANK" in os.environ else trainer.num_devices


@contextmanager
def ranks(count: int, cfg: DictConfig, folder: Path, resume: bool) -> Iterator[None]:
    """Start ranks 1 to `count - 1`; this process is rank 0 inside the block.

    Raises:
        StraylightError: if a rank ended badly, naming it.
    """
    frozen = folder / ".hydra" / "ranks.yaml"
    frozen.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), frozen)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    command = [
        sys.executable,
        "-m",
        "straylight.launcher.rank",
        str(frozen),
        str(folder),
        "resume" if resume else "new",
    ]
    children = {
        rank: subprocess.Popen(command, env={**os.environ, **place, "LOCAL_RANK": str(rank)}, stdin=subprocess.DEVNULL)
        for rank in range(1, count)
    }
    before = dict(os.environ)
    os.environ.update(place, LOCAL_RANK="0")
    ended = False
    try:
        yield
        ended = True
    except Exception as error:
        if dead := _failed(children, wait_s=2.0):
            raise StraylightError(f"{dead} ({' '.join(str(error).split())[:200]}).") from error
        raise
    finally:
        if dist.is_initialized():  # Lightning leaves it behind, and the next job of a sweep would talk to nobody
            dist.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)
        if not ended:
            for child in children.values():
                child.terminate()
        for child in children.values():
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    if dead := _failed(children):
        raise StraylightError(f"{dead}.")


def _failed(children: dict[int, subprocess.Popen], wait_s: float = 0.0) -> str | None:
    for rank, child in children.items():
        try:
            status = child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        if status not in (0, 130):
            return f"Rank {rank} ended with status {status}" + (f" (signal {-status})" if status < 0 else "")
    return None
