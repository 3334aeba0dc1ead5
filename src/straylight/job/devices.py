"""What a config asks for: so many processes, so many GPUs, so many threads."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """What a job asks for.

    Attributes:
        ranks: the processes it is made of, on each machine.
        gpus: none, or as many, on each machine.
        threads: of each process on the CPU; `None` takes what there is.
        alone: whether its process must have done no other job before.
        patience_s: how long one of several processes may show no sign of life; `None` is for ever.
        nodes: machines.
    """

    ranks: int = 1
    gpus: int = 0
    threads: int | None = None
    alone: bool = False
    patience_s: float | None = None
    nodes: int = 1


def asked_for(trainer: Mapping[str, Any], threads: int | None = None) -> Asked:
    """Read it off the Trainer's config.

    Example:
        >>> asked_for({"accelerator": "cpu", "devices": 2})[:2], asked_for({"accelerator": "gpu", "devices": "0,3"})[:2]
        ((2, 0), (2, 2))
    """
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and bool(visible_gpus()))
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    if str(devices) in ("auto", "-1"):
        count = len(visible_gpus()) if on_gpu else 1
    elif str(devices).isdigit():
        count = int(devices)
    else:
        count = len(devices) if not isinstance(devices, str) else 1  # what is none of these, the Trainer refuses
    count = max(1, count)
    own = any(word in str(trainer.get("strategy")) for word in ("spawn", "fork", "notebook"))  # Lightning starts those
    patience_s = trainer.get("timeout_s")
    nodes = given if isinstance(given := trainer.get("num_nodes", 1), int) and given > 0 else 1
    return Asked(1 if own else count, count if on_gpu else 0, threads, patience_s=patience_s, nodes=nodes)


def rank_here() -> int | None:
    """Which rank this process is, where a job starter such as `torchrun` made several; `None` where none did."""
    number = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
    return None if number is None else int(number)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by name; without a CUDA context, so that jobs can still be forked."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
