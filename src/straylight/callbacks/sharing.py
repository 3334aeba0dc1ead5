"""Who else is on the device while something is timed, and what a card says of itself."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from straylight.metrics.cost import NOTICEABLE, Busy, cores_of_others


def busy() -> Busy:
    """The processors as they are now. Processes that ours have started are ours."""
    import psutil

    own = psutil.Process()
    times = own.cpu_times()
    ours = times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    for child in own.children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.Error:  # it has ended
            continue
        ours += used.user + used.system
    everyone = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are counted with the users
    return Busy(time.perf_counter(), sum(t for name, t in everyone.items() if name not in idle), ours)


class Card:
    """An NVIDIA card through NVML.

    Args:
        nvml: the module `pynvml`, or what stands for it in tests.
        uuid: of the card.
    """

    def __init__(self, nvml: Any, uuid: str) -> None:
        nvml.nvmlInit()
        self.nvml, self.handle = nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)

    def energy_mj(self) -> float | None:
        """Millijoules since the driver was loaded; `None` where the card does not count them."""
        try:
            return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))
        except self.nvml.NVMLError:
            return None

    def others(self) -> int | None:
        """Processes of others that compute on it; `None` where it does not say."""
        try:
            found = {process.pid for process in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)}
        except self.nvml.NVMLError:
            return None
        ours = len(found & {os.getpid(), os.getppid()} | found & _children())
        return len(found) - max(ours, min(1, len(found)))  # in a container, ours goes by a number it does not know


def card(device: torch.device) -> Card | None:
    """The card behind a device of torch's; `None` where there is none, or no NVML (extra `energy`) to ask."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    try:
        return Card(pynvml, uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None


@contextmanager
def sharing(
    found: dict[str, Any], card: Card | None = None, reader: Callable[[], Busy] = busy, threshold: float = NOTICEABLE
) -> Iterator[None]:
    """Put into `found` whether others used the device in the meantime.

    `cpu_cores`: cores that other processes kept busy, on average. `gpu_processes`: those of others on the card.
    `others`: whether that is enough to disturb a measurement.

    Example:
        >>> found, readings = {}, iter([Busy(0.0, 0.0, 0.0), Busy(1.0, 2.0, 1.0)])
        >>> with sharing(found, reader=lambda: next(readings)):
        ...     pass
        >>> found
        {'others': True, 'cpu_cores': 1.0}
    """
    before = reader()
    on_card = [card.others()] if card is not None else []
    yield
    cores = cores_of_others(before, reader())
    if card is not None:
        on_card.append(card.others())
    processes = max((n for n in on_card if n is not None), default=0)
    found |= {"others": cores > threshold or processes > 0, "cpu_cores": round(cores, 2)}
    if any(n is not None for n in on_card):
        found["gpu_processes"] = processes


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True)}
