"""Timing a detector, batch size by batch size, runtime by runtime: what the callback and `--retime` share.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from straylight.callbacks.cost import energy, flops, peak_memory, size
from straylight.callbacks.scored import said
from straylight.callbacks.sharing import busy, card, sharing
from straylight.errors import StraylightError
from straylight.export import MISORDERED, TOLERANCE, Usual, compared, difference, misordered, run
from straylight.metrics.cost import Busy
from straylight.metrics.latency import measure

Runtime = Literal["eager", "compile", "onnx"]
Entry = dict[str, Any]
Score = Callable[[Tensor, Tensor], Any]


class Timing:
    """Times a detector as it scores, at several batch sizes and in several runtimes.

    * `eager`: torch, scaling included and, where events are scaled, without it; `compiled` for a detector whose
      networks are.
    * `compile`: torch again, the networks compiled for the occasion, which may take minutes.
    * `onnx`: ONNX Runtime on one thread of the CPU, wherever the detector is, after its scores were compared with
      torch's. A detector without a graph is timed without it, and the reason kept.

    A batch is scored in parts of the detector's `rows_at_once`, as in a test. Sizes are taken in their order; one of
    which a call would take more than `longest_s`, going by the size before, is left out, and the reason kept; so is
    the time without scaling where a call takes more than ten budgets, beside which scaling is nothing.

    Args:
        batches: batch sizes.
        runtimes: see above; `eager` is always among them.
        budget_s: seconds spent on each size, see `straylight.metrics.latency.measure`.
        longest_s: seconds that a call may take.
        clock: seconds; replaced in tests.
        reader: of the processors' load, see `straylight.callbacks.sharing`; replaced in tests.

    Raises:
        ValueError: if a number or a name cannot be used.
    """

    def __init__(
        self,
        batches: Sequence[int],
        runtimes: Sequence[Runtime],
        budget_s: float,
        longest_s: float,
        clock: Callable[[], float] = time.perf_counter,
        reader: Callable[[], Busy] = busy,
    ) -> None:
        if not batches or min(batches) < 1:
            raise ValueError(f"callbacks.latency.batches must be one or more positive sizes, not {list(batches)}")
        if "eager" not in runtimes or (unknown := set(runtimes) - set(Runtime.__args__)):  # type: ignore[attr-defined]
            given = sorted(unknown)[0] if "eager" in runtimes else list(runtimes)
            raise ValueError(
                f"callbacks.latency.runtimes must hold eager, and may hold compile and onnx, not {given!r}"
            )
        if not budget_s > 0 or not longest_s > 0:
            raise ValueError(
                f"callbacks.latency.budget_s and longest_s must be positive, not {budget_s} and {longest_s}"
            )
        self.batches, self.runtimes = tuple(batches), tuple(dict.fromkeys(runtimes))
        self.budget_s, self.longest_s, self.clock, self.reader = budget_s, longest_s, clock, reader

    @torch.inference_mode()
    def __call__(
        self,
        detector: nn.Module,
        x: Tensor,
        context: Tensor,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ) -> tuple[list[Entry], dict[str, Any]]:
        """The entries of `latency` and the fields of `cost` for a record.

        Args:
            detector: in evaluation mode, on the device that it is timed on.
            x, context: ordinary events on that device, `(B, *shape)` and `(B, C)`, repeated where a batch is larger.
            precision: the context that scores are computed in.
        """
        device, at_once = x.device, max(1, getattr(detector, "rows_at_once", 2**62))
        found: dict[str, Any] = {}
        cost: dict[str, Any] = dict(size(detector))
        remarks: list[str] = []
        synchronise, on_card = _synchronise(device), card(device)

        def scoring(score: Score, n: int, on: torch.device = device, scaled: bool = False) -> Callable[[], Any]:
            rows = torch.arange(n, device=device) % len(x)
            events = detector.scaling(x[rows]) if scaled else x[rows]  # type: ignore[operator]
            parts = list(zip(events.to(on).split(at_once), context[rows].to(on).split(at_once), strict=True))
            return partial(score, *parts[0]) if len(parts) == 1 else lambda: [score(*part) for part in parts]

        def timed(runtime: str, score: Score, most: int | None = None, on_cpu: bool = False) -> list[Entry]:
            entries: list[Entry] = []
            where, wait = (torch.device("cpu"), lambda: None) if on_cpu else (device, synchronise)
            for n in self.batches:
                if most is not None and n > most:
                    remarks.append(f"{runtime}: batch {n} is left out, the graph takes rows in turns of {most}.")
                    continue
                if (wait_s := _foreseen(entries, n)) > self.longest_s:
                    remarks.append(
                        f"{runtime}: batch {n} is left out, it would take some {wait_s:.0f} s a call "
                        f"(callbacks.latency.longest_s={self.longest_s:g})."
                    )
                    continue
                times = self._measure(scoring(score, n, where), n, wait)
                entries.append({"runtime": runtime, "batch": n, "scaling": True, **times, "device": str(where)})
            return entries

        with sharing(found, on_card, self.reader):
            with precision():
                name = "compiled" if getattr(detector, "compiled", False) else "eager"
                entries = timed(name, detector)
                unscaled = self._without_scaling(detector, entries, scoring, synchronise)
                largest = max((e["batch"] for e in entries), default=1)
                call = scoring(detector, largest)
                if (peak := peak_memory(call, device)) is not None:
                    cost["peak_device_memory_bytes"] = peak
                if on_card is not None:
                    joules = energy(call, largest, on_card, synchronise=synchronise)
                    if joules is None and on_card.energy_mj() is not None:
                        remarks.append("energy_j_per_million_events: not given, the card's counter does not tick.")
                    if joules:
                        cost["energy_j_per_million_events"] = joules
                if "compile" in self.runtimes and name == "eager":
                    n = next((n for n in self.batches if n > 1), 1)  # one event says nothing of their order
                    eager = scoring(detector, n)()
                    with _compiled(detector) as any_network:
                        if any_network:
                            alike = {} if agree(eager, scoring(detector, n)()) else {"agrees": False}
                            unscaled += [{**entry, **alike} for entry in timed("compiled", detector)]
                            if alike:
                                remarks.append("compiled: its scores are not those of eager torch.")
                        else:
                            remarks.append("compiled: left out, the detector has no network to compile.")
            if "onnx" in self.runtimes:
                cost["onnx"] = self._onnx(detector, x, context, entries, unscaled, timed)
        entries += unscaled
        few = torch.arange(min(32, len(x)), device=device)
        with _eager(detector):
            cost["flops_per_event"] = flops(detector, x[few], context[few])
        if cost["flops_per_event"] is None:
            remarks.append("flops_per_event: not counted, the score leaves torch.")
        return entries, {**cost, "shared": found, "remarks": remarks}

    def _measure(self, call: Callable[[], Any], n: int, wait: Callable[[], object]) -> Entry:
        return measure(call, events=n, budget_s=self.budget_s, synchronise=wait, clock=self.clock)

    def _quick(self, entries: list[Entry]) -> list[Entry]:
        """Those of which a call takes no more than ten budgets."""
        return [entry for entry in entries if entry["p50_us"] <= 1e7 * self.budget_s]

    def _without_scaling(
        self, detector: Any, entries: list[Entry], scoring: Callable, wait: Callable[[], object]
    ) -> list[Entry]:
        if getattr(detector.scaling, "identity", False):
            return []
        found = []
        for entry in self._quick(entries):
            call = scoring(detector, entry["batch"], scaled=True)
            with _unscaled(detector):
                found.append({**entry, "scaling": False, **self._measure(call, entry["batch"], wait)})
        return found

    def _onnx(
        self, detector: nn.Module, x: Tensor, context: Tensor, entries: list[Entry], into: list[Entry], timed: Callable
    ) -> str:
        """Add ONNX Runtime's entries; its version, or why there are none."""
        if x.dtype != torch.float32:
            return f"left out: the detector scores {x.dtype}, and its graph float32."
        try:
            with torch.inference_mode(False), tempfile.TemporaryDirectory() as folder:
                few, sizes = min(256, len(x)), [entry["batch"] for entry in self._quick(entries)]
                own = x[:few].clone(), context[:few].clone()
                exported, ready = compared(detector, f"{folder}/model.onnx", *own, batches=sizes)
                into += timed("onnx", lambda rows, columns: run(ready, rows, columns), exported.largest, on_cpu=True)
        except StraylightError as error:
            return str(error)
        except Exception as error:  # a failing export never fails a run
            return f"left out: {said(error, 200)}"
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, one thread"


def agree(eager: Tensor | list[Tensor], other: Tensor | list[Tensor]) -> bool:
    """Whether two runtimes score the same rows alike, as `straylight.export.parity` has it of ordinary rows.

    Args:
        eager, other: scores, `(B,)`, or parts of them.

    Example:
        >>> agree(torch.arange(9.0), torch.arange(9.0) + 1e-5), agree(torch.arange(9.0), -torch.arange(9.0))
        (True, False)
    """
    a, b = (torch.cat(p if isinstance(p, list) else [p])[:1000].double().cpu().numpy() for p in (eager, other))
    if not np.isfinite(b[np.isfinite(a)]).all():
        return False
    return difference(a, b, Usual.of(a)) <= TOLERANCE and misordered(a, b) <= MISORDERED


def _foreseen(entries: list[Entry], n: int) -> float:
    """Seconds that a call of n events will take, going by the size before: up to 32 events take the time of one."""
    if not entries:
        return 0.0
    last = entries[-1]
    return last["p50_us"] * 1e-6 * max(1.0, n / max(last["batch"], 32))


def _synchronise(device: torch.device) -> Callable[[], object]:
    match device.type:
        case "cuda":
            return lambda: torch.cuda.synchronize(device)
        case "mps":
            return torch.mps.synchronize
        case _:
            return lambda: None


@contextmanager
def _unscaled(detector: Any) -> Iterator[None]:
    """The detector's forward pass of events that are scaled already."""
    detector.scaling.forward = lambda x: x
    try:
        yield
    finally:
        del detector.scaling.forward


@contextmanager
def _compiled(detector: Any) -> Iterator[bool]:
    """The detector with compiled networks, and whether it has any; afterwards as it was."""
    with _eager(detector):
        detector.compile_networks()
        yield any(module._compiled_call_impl is not None for module in detector.modules())


@contextmanager
def _eager(detector: Any) -> Iterator[None]:
    """The detector without compiled networks; afterwards as it was."""
    modules, flag = list(detector.modules()), vars(detector).get("compiled")
    compiled = [module._compiled_call_impl for module in modules]
    try:
        for module in modules:
            module._compiled_call_impl = None
        yield
    finally:
        for module, call in zip(modules, compiled, strict=True):
            module._compiled_call_impl = call
        vars(detector).pop("compiled", None)
        if flag is not None:
            detector.compiled = flag
