"""All that one run measured, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from straylight.metrics.ranking import RESOLVABLE
from straylight.report.leaderboard import NOT_RESOLVABLE

Part = Table | str


def table(*headings: str, left: int = 1) -> Table:
    """An empty table, its first columns to the left and the others to the right."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        out.add_column(heading, justify="left" if i < left else "right")
    return out


def overview(result: Mapping[str, Any]) -> Iterator[Part]:
    """AUROC, AP and two working points, overall and per kind."""
    metrics = {k.removeprefix("test/"): v for k, v in result.get("metrics", {}).items()}
    intervals = {k.removeprefix("test/"): v for k, v in result.get("intervals", {}).items()}
    if "auroc" not in metrics:
        return
    out = table(
        "",
        "AUROC",
        f"{result.get('interval_level', 0.95):.0%} interval".replace("%", " %"),
        "AP",
        "TPR @ 1e-1",
        "TPR @ 1e-2",
    )
    for kind in ["", *(k.removeprefix("auroc") for k in metrics if k.startswith("auroc/"))]:
        low, high = intervals.get(f"auroc{kind}") or (None, None)
        cells = [number(metrics[f"auroc{kind}"]), "" if low is None else f"{low:.4f}-{high:.4f}"]
        cells.append(number(metrics.get(f"ap{kind}")))
        for fpr in ("0.1", "0.01"):
            enough = metrics.get(f"nominal_above@fpr={fpr}", 0) >= RESOLVABLE
            cells.append(number(metrics.get(f"tpr@fpr={fpr}{kind}")) if enough else NOT_RESOLVABLE)
        out.add_row(Text(kind[1:] or "all anomalies"), *cells)
    yield out


def ranking(result: Mapping[str, Any]) -> Iterator[Part]:
    """How well anomalies are ranked, overall and per kind, with intervals; what is not resolvable, and what would."""
    metrics = {k.removeprefix("test/"): v for k, v in result.get("metrics", {}).items()}
    intervals = {k.removeprefix("test/"): v for k, v in result.get("intervals", {}).items()}
    if "auroc" not in metrics:
        return
    kinds = ["", *(k.removeprefix("auroc") for k in metrics if k.startswith("auroc/"))]
    whole = {"auroc": "AUROC", "ap": "AP"}
    whole |= {
        name: f"partial AUROC, FPR < {name.partition('=')[2]}"
        for name in metrics
        if _overall(name, "partial_auroc@fpr=")
    }
    whole |= {"max_sic": "largest SIC"} if "max_sic" in metrics else {}
    fprs = [name.partition("=")[2] for name in metrics if _overall(name, "tpr@fpr=")]

    out = table("", *whole.values())
    for kind in kinds:
        name = kind[1:] or "all anomalies"
        cells = [_with_interval(metrics.get(f"{m}{kind}"), intervals.get(f"{m}{kind}")) for m in whole]
        out.add_row(Text(name), *cells)
    yield out
    resolved = {f: metrics.get(f"nominal_above@fpr={f}", 0) >= RESOLVABLE for f in fprs}
    for measure in ("tpr", "sic"):
        chosen = fprs if measure == "tpr" else [f for f in fprs if f"sic@fpr={f}" in metrics]
        if not chosen:
            continue
        out = table("", *(f"{measure.upper()} @ {float(f):.0e}".replace("e-0", "e-") for f in chosen))
        for kind in kinds:
            names = {f: f"{measure}@fpr={f}{kind}" for f in chosen}
            cells = [
                _with_interval(metrics.get(name), intervals.get(name)) if resolved[f] else NOT_RESOLVABLE
                for f, name in names.items()
            ]
            out.add_row(Text(kind[1:] or "all anomalies"), *cells)
        yield out
    if "max_sic" in metrics:
        yield f"SIC = TPR / sqrt(FPR); the largest, {metrics['max_sic']:.2f}, is at FPR {metrics['max_sic_fpr']:.3g}."
    if not all(resolved.values()):
        needed = result.get("nominal_needed", {})
        sizes = ", ".join(f"{needed[f]:,} for FPR {f}" for f in fprs if not resolved[f] and f in needed)
        yield (
            f"{NOT_RESOLVABLE}: not resolvable, fewer than ten of {metrics['nominal']:,.0f} nominal rows lie above the "
            f"threshold{'; it takes ' + sizes if sizes else ''}."
        )


def _overall(name: str, start: str) -> bool:
    return name.startswith(start) and "/" not in name


def thresholds(result: Mapping[str, Any]) -> Iterator[Part]:
    """The decisions: where each threshold lies, and what it does on test rows."""
    found: Sequence[Mapping[str, Any]] = result.get("thresholds", [])
    if not found:
        return
    out = table("threshold", "score >", "FPR expected", "observed", "95 % band", "precision", "recall", "F1", "flagged")
    for t in found:
        band = t.get("band")
        out.add_row(
            Text(asked(t)),
            number(t.get("value")),
            number(t.get("expected_fpr")),
            number(t.get("observed_fpr")),
            "" if not band else f"{band[0]:.4g} to {band[1]:.4g}",
            *(number(t.get(name)) for name in ("precision", "recall", "f1")),
            large(t.get("flagged")),
        )
    yield out
    for t in found:
        if t.get("accept_hz") is not None and t.get("expected_hz") is not None:
            yield f"{asked(t)}: {t['expected_hz']:,.4g} Hz of nominal events expected."
        if t.get("in_band") is False:
            yield f"{asked(t)}: the observed FPR lies outside the band; calibration and test rows may differ."
        if t.get("remark"):
            yield f"{asked(t)}: {t['remark']}"


def decisions(result: Mapping[str, Any]) -> Iterator[Part]:
    """Confusion matrices and classification reports of the thresholds that flag anything."""
    for t in result.get("thresholds", []):
        if not t.get("flagged"):
            continue
        if t.get("confusion"):
            (tn, fp), (fn, tp) = t["confusion"]
            out = table(asked(t), "not flagged", "flagged")
            out.add_row("nominal", large(tn), large(fp))
            out.add_row("anomalous", large(fn), large(tp))
            yield out
        recalls = t.get("recall_per_kind") or {}
        if len(recalls) > 1:
            out = table("kind", "flagged")
            for kind, (value, low, high) in recalls.items():
                out.add_row(Text(kind), _with_interval(value, (low, high)))
            yield out
        if t.get("report"):
            yield t["report"]


def asked(threshold: Mapping[str, Any]) -> str:
    """What a threshold was asked to do, e.g. `fpr 0.01`."""
    said = threshold.get("asked") or {}
    return (
        f"{threshold['rule']} {' '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in said.values())}".strip()
    )


def latency(result: Mapping[str, Any]) -> Iterator[Part]:
    """How fast a batch is scored, by each runtime."""
    entries = result.get("latency", [])
    if not entries:
        return
    out = table("runtime", "batch", "p50 us", "p95 us", "p99 us", "mean us", "events/s")
    for e in entries:
        runtime = e["runtime"] + ("" if e.get("scaling", True) else ", already scaled")
        times = (large(e.get(key)) for key in ("p50_us", "p95_us", "p99_us", "mean_us", "events_per_s"))
        out.add_row(runtime, large(e["batch"]), *times)
    yield out


def cost(result: Mapping[str, Any]) -> Iterator[Part]:
    """What a score costs beside time, and whether other jobs disturbed the timing."""
    found = result.get("cost") or {}
    named = {
        "state_bytes": "bytes of state",
        "flops_per_event": "FLOPs per event",
        "peak_device_memory_bytes": "peak device memory, bytes",
        "energy_j_per_million_events": "energy per million events, J",
    }
    for key, label in named.items():
        if found.get(key) is not None:
            yield f"{label}: {found[key]:,.6g}" if isinstance(found[key], float) else f"{label}: {found[key]:,}"
    shared = found.get("shared") or {}
    if shared.get("others"):
        used = f"{shared.get('cpu_cores', 0):g} CPU cores"
        if shared.get("gpu_processes"):
            used += f" and, with {shared['gpu_processes']} processes, the card"
        yield f"Others used {used} meanwhile, so that the times may be too long: straylight report --retime FOLDER."
    yield from found.get("remarks") or []


def density(result: Mapping[str, Any]) -> Iterator[Part]:
    """Whether the density is right, in a sentence and in numbers."""
    found = result.get("density") or {}
    if not found:
        return
    if found.get("sentence"):
        yield found["sentence"]
    for remark in found.get("remarks") or []:
        yield f"  {remark}"


def by_epoch(result: Mapping[str, Any]) -> Iterator[Part]:
    """How the test rows were ranked while training."""
    entries = result.get("by_epoch", [])
    if not entries:
        return
    out = table("epoch", "AUROC", "AP")
    for e in entries:
        out.add_row(str(e["epoch"]), number(e.get("auroc")), number(e.get("ap")))
    yield out


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return ""
    return number(value) + ("" if not interval else f"\n{interval[0]:.3f}-{interval[1]:.3f}")


def number(value: float | None) -> str:
    """A number to four digits; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def large(value: float | None) -> str:
    """A number of things, its thousands set apart."""
    return "" if value is None else f"{value:,.0f}"
