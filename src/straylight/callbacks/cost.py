"""What a detector costs beside time: its size, its work per event, memory and energy of the device.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from straylight.callbacks.sharing import Card
from straylight.metrics.cost import TICKS, joules_per_million


def size(detector: nn.Module) -> dict[str, int]:
    """`parameters`, and the `state_bytes` that a checkpoint must hold: parameters, buffers and extra state.

    Example:
        >>> size(nn.Linear(3, 2))
        {'parameters': 8, 'state_bytes': 32}
    """
    tensors = {t.data_ptr() if t.numel() else id(t): t for t in _tensors(detector.state_dict())}
    return {
        "parameters": sum(p.numel() for p in detector.parameters()),
        "state_bytes": sum(t.numel() * t.element_size() for t in tensors.values()),
    }


class Layers:
    """Watches a network while it scores, to tell what it is made of, in the order in which it is built.

    A layer is a part that has parameters of its own, or that has no parts and is called in scoring. Its `shape` is
    what it gives of one event, `None` where scoring does not call it, as of a discriminator; the axis of events, which
    comes first, is left out. Their parameters add up to those of `size`.

    Args:
        detector: is about to score events.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> watched = Layers(net)
        >>> _ = net(torch.ones(1, 3))
        >>> watched.done()[0]
        {'name': '0', 'layer': 'Linear', 'shape': [2], 'parameters': 8}
    """

    def __init__(self, detector: nn.Module) -> None:
        self.detector = detector
        self._shapes: dict[nn.Module, list[int]] = {}
        self._handles = [p.register_forward_hook(self._gave) for p in detector.modules() if p is not detector]

    def _gave(self, part: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            self._shapes.setdefault(part, list(out.shape[1:]))

    def done(self) -> list[dict[str, Any]]:
        """The layers; the network is watched no longer."""
        for handle in self._handles:
            handle.remove()
        found, counted = [], set[nn.Parameter]()
        for name, part in self.detector.named_modules():
            own = set(part.parameters(recurse=False)) - counted
            counted |= own
            if own or (part in self._shapes and not any(True for _ in part.children())):
                one = {"name": name, "layer": type(part).__name__, "shape": self._shapes.get(part)}
                found.append({**one, "parameters": sum(p.numel() for p in own)})
        return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def flops(score: Callable[[Tensor, Tensor], Tensor], x: Tensor, context: Tensor) -> float | None:
    """Floating-point operations per event as torch counts them: in matrix products, convolutions and attention.

    Args:
        score: of events, `(B, *shape)` and `(B, C)` to `(B,)`, eager.
        x, context: events.

    Returns:
        the number per event; `None` where the score leaves torch, which sees nothing of what follows.

    Example:
        >>> flops(lambda x, context: (x @ torch.ones(5, 1))[:, 0], torch.ones(4, 5), torch.ones(4, 0))
        10.0
    """
    left = _Left()
    # decomposed into what is counted only without inference mode
    with torch.inference_mode(False), torch.no_grad(), left, FlopCounterMode(display=False) as counter:
        score(x.clone(), context.clone())
    return None if left.torch else counter.get_total_flops() / len(x)


class _Left(TorchFunctionMode):
    """Notices whether numbers are handed to numpy."""

    torch = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.torch |= func in (Tensor.numpy, Tensor.__array__)
        return func(*args, **(kwargs or {}))


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that were in use on a CUDA device at once while `call` ran; `None` on other devices."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def energy(
    call: Callable[[], object],
    events: int,
    card: Card,
    *,
    seconds: float = 0.5,
    longest: float = 0.5,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Joules that a card takes for a million events, its idle power included; `None` if it does not count them.

    Energy is counted in ticks, every 20 to 100 ms, and known to one of them: the batch is scored over and over for ten
    or more. None, too, where the counter does not tick within `longest` seconds.

    Args:
        call: scores one batch.
        events: in that batch.
        card: whose counter is read.
        seconds: for which the batch is scored at least.
        longest: seconds that are waited for a tick.
        synchronise: waits until the device has finished.
        clock: seconds; replaced in tests.
    """
    call()
    synchronise()
    if (tick := _tick(card, longest, clock)) is None:
        return None
    before, start, calls = card.energy_mj(), clock(), 0
    while not calls or clock() - start < max(seconds, TICKS * tick):
        call()
        synchronise()
        calls += 1
    after = card.energy_mj()
    return None if before is None or after is None else joules_per_million(before, after, calls * events)


def _tick(card: Card, longest: float, clock: Callable[[], float]) -> float | None:
    """Seconds between two ticks of a card's counter, the longest of three; None where it does not tick."""
    last, start = card.energy_mj(), clock()
    moved: list[float] = []
    while last is not None and len(moved) < 4:
        if (now := card.energy_mj()) != last:
            last, start = now, clock()
            moved.append(start)
        elif clock() - start > longest:
            return None
    return None if last is None else max(later - earlier for earlier, later in itertools.pairwise(moved))
