"""All that one run measured, as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from straylight.metrics.ranking import RESOLVABLE
from straylight.objective import CRITERIA, criterion
from straylight.report.leaderboard import NOT_RESOLVABLE
from straylight.report.over_density import excesses, over_density
from straylight.report.sheet import Cell, Column, Sheet, ranged
from straylight.runtimes import MARK, SHARED, shared

Part = Sheet | str
SHORT = ("0.1", "0.01")  # FPRs of the short page


def headed(*headings: str) -> Sheet:
    """An empty table, its first column to the left and the others, which are numbers, to the right."""
    columns = (Column(heading, narrow=heading.replace(" ", "\n")) for heading in headings[1:])
    return Sheet([Column(headings[0], text=True), *columns])


def filled(headings: Sequence[str], rows: Iterable[Sequence[str | Text | Cell]]) -> Iterator[Sheet]:
    """A table of these rows, if there are any."""
    out = headed(*headings)
    for row in rows:
        out.add_row(*row)
    if out.row_count:
        yield out


def overview(result: Mapping[str, Any]) -> Iterator[Part]:
    """AUROC, AP and two working points, overall and per kind."""
    metrics, intervals, kinds = _tested(result)
    if not kinds:
        return
    level = f"{result.get('interval_level', 0.95):.0%} interval".replace("%", " %")
    out = headed("", "AUROC", level, "AP", "TPR @ 1e-1", "TPR @ 1e-2")
    for kind, name in kinds.items():
        interval = intervals.get(f"auroc{kind}")
        out.add_row(
            name,
            number(metrics[f"auroc{kind}"]),
            Cell(f"{interval[0]:.4f}-{interval[1]:.4f}", f"{interval[0]:.4f}-\n{interval[1]:.4f}") if interval else "",
            number(metrics.get(f"ap{kind}")),
            *(number(metrics.get(f"tpr@fpr={f}{kind}")) if _resolves(metrics, f) else NOT_RESOLVABLE for f in SHORT),
        )
    yield out


def ranking(result: Mapping[str, Any]) -> Iterator[Part]:
    """How well anomalies are ranked, overall and per kind, with intervals; what is not resolvable, and what would."""
    metrics, intervals, kinds = _tested(result)
    if not kinds:
        return
    overall = [name for name in metrics if "/" not in name]
    whole = {"auroc": "AUROC", "ap": "AP"}
    whole |= {n: f"partial AUROC, FPR < {n.partition('=')[2]}" for n in overall if n.startswith("partial_auroc@fpr=")}
    whole |= {"max_sic": "largest SIC"} if "max_sic" in metrics else {}
    fprs = [name.partition("=")[2] for name in overall if name.startswith("tpr@fpr=")]

    def cell(name: str) -> str | Cell:
        return _with_interval(metrics.get(name), intervals.get(name))

    yield from filled(["", *whole.values()], ([kinds[k], *(cell(f"{m}{k}") for m in whole)] for k in kinds))
    for measure, chosen in (("tpr", fprs), ("sic", [f for f in fprs if f"sic@fpr={f}" in metrics])):
        if not chosen:
            continue
        out = headed("", *(f"{measure.upper()} @ {float(f):.0e}".replace("e-0", "e-") for f in chosen))
        for kind, name in kinds.items():
            cells = (cell(f"{measure}@fpr={f}{kind}") if _resolves(metrics, f) else NOT_RESOLVABLE for f in chosen)
            out.add_row(name, *cells)
        yield out
    if "max_sic" in metrics:
        yield f"SIC = TPR / sqrt(FPR); the largest, {metrics['max_sic']:.2f}, is at FPR {metrics['max_sic_fpr']:.3g}."
    if unresolved := [f for f in fprs if not _resolves(metrics, f)]:
        needed = result.get("nominal_needed", {})
        sizes = ", ".join(f"{needed[f]:,} for FPR {f}" for f in unresolved if f in needed)
        yield (
            f"{NOT_RESOLVABLE}: not resolvable, fewer than ten of {metrics['nominal']:,.0f} nominal rows lie above the "
            f"threshold{'; it takes ' + sizes if sizes else ''}."
        )


def _tested(result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Text]]:
    """Metrics and intervals of test rows; what their names end with, for all anomalies and each kind."""
    metrics, intervals = (
        {name.removeprefix("test/"): value for name, value in result.get(field, {}).items()}
        for field in ("metrics", "intervals")
    )
    kinds = {k.removeprefix("auroc"): Text(k.removeprefix("auroc/")) for k in metrics if k.startswith("auroc/")}
    return metrics, intervals, {"": Text("all anomalies"), **kinds} if "auroc" in metrics else {}


def _resolves(metrics: Mapping[str, Any], fpr: str) -> bool:
    return metrics.get(f"nominal_above@fpr={fpr}", 0) >= RESOLVABLE


def thresholds(result: Mapping[str, Any]) -> Iterator[Part]:
    """The decisions: where each threshold lies, and what it does on test rows."""
    found: Sequence[Mapping[str, Any]] = result.get("thresholds", [])
    if not found:
        return
    out = headed(
        "threshold", "score >", "FPR expected", "observed", "95 % band", "precision", "recall", "F1", "flagged"
    )
    for t in found:
        rates = (number(t.get(name)) for name in ("value", "expected_fpr", "observed_fpr"))
        band = f"{t['band'][0]:.4g} to {t['band'][1]:.4g}" if t.get("band") else ""
        decided = (number(t.get(name)) for name in ("precision", "recall", "f1"))
        out.add_row(Text(asked(t)), *rates, band, *decided, large(t.get("flagged")))
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
            counts = (["nominal", large(tn), large(fp)], ["anomalous", large(fn), large(tp)])
            yield from filled((asked(t), "not flagged", "flagged"), counts)
        recalls = t.get("recall_per_kind") or {}
        if len(recalls) > 1:
            flagged = ([Text(kind), _with_interval(value, band)] for kind, (value, *band) in recalls.items())
            yield from filled(("kind", "flagged"), flagged)
        if t.get("report"):
            yield t["report"]


def asked(threshold: Mapping[str, Any]) -> str:
    """What a threshold was asked to do, e.g. `fpr 0.01`."""
    values = (f"{value:g}" if isinstance(value, float) else str(value) for value in threshold["asked"].values())
    return " ".join([threshold["rule"], *values])


def latency(result: Mapping[str, Any]) -> Iterator[Part]:
    """How fast a batch is scored, by each runtime."""

    def row(entry: Mapping[str, Any]) -> list[str]:
        runtime = entry["runtime"] + ("" if entry.get("scaling", True) else ", already scaled")
        runtime += "" if entry.get("agrees", True) else ", other scores"
        return [runtime, *(timed(entry.get(key), disturbed and key != "batch") for key in shown)]

    disturbed = shared(result)

    shown = {"batch": "batch", "p50_us": "p50 us", "p95_us": "p95 us", "p99_us": "p99 us", "mean_us": "mean us"}
    shown |= {"events_per_s": "events/s"}
    yield from filled(("runtime", *shown.values()), map(row, entries := result.get("latency", [])))
    if disturbed and entries:
        yield f"{MARK}: {SHARED}."


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
        if (value := found.get(key)) is not None:
            yield f"{label}: {value:,.6g}" if isinstance(value, float) else f"{label}: {value:,}"
    shared = found.get("shared") or {}
    if shared.get("others"):
        used = f"{shared.get('cpu_cores', 0):g} CPU cores"
        if shared.get("gpu_processes"):
            used += f" and, with {shared['gpu_processes']} processes, the card"
        yield f"Others used {used} meanwhile, so that the times may be too long: straylight report --retime FOLDER."
    yield from found.get("remarks") or []


def layers(result: Mapping[str, Any]) -> Iterator[Part]:
    """The network: what each layer gives of one event, its parameters, and those of each part of several layers."""
    found: Sequence[Mapping[str, Any]] = result.get("layers") or []
    if not any(layer["parameters"] for layer in found):
        return
    out = Sheet([*(Column(heading, text=True) for heading in ("network", "layer", "shape")), Column("parameters")])
    for layer in found:
        shape = "" if layer["shape"] is None else " x ".join(map(str, layer["shape"]))
        out.add_row(layer["name"] or "its own", layer["layer"], shape, large(layer["parameters"]))
    yield out
    parts: dict[str, int] = {}
    for layer in found:
        part = layer["name"].partition(".")[0] or "its own"
        parts[part] = parts.get(part, 0) + layer["parameters"]
    of = ", ".join(f"{part} {n:,}" for part, n in parts.items() if n)
    total = sum(parts.values())
    yield f"{total:,} parameters" + (f": {of}." if of.count(" ") > 1 else ".")


def density(result: Mapping[str, Any]) -> Iterator[Part]:
    """Whether the density is right, in a sentence and in numbers."""
    found = result.get("density") or {}
    if found.get("sentence"):
        yield found["sentence"]
    for remark in found.get("remarks") or []:
        yield f"  {remark}"


def criteria(result: Mapping[str, Any]) -> Iterator[Part]:
    """What rows of validation say of it without labels, and which way is better."""
    intervals = result.get("criteria_intervals") or {}
    better = {True: "lower", False: "higher"}
    yield from filled(
        ("without labels", "value", "better"),
        (
            [name, _with_interval(value, intervals.get(name)), better[CRITERIA[whole].lower]]
            for name, value in (result.get("criteria") or {}).items()
            if value is not None and (whole := criterion(name)) in CRITERIA
        ),
    )


def by_epoch(result: Mapping[str, Any]) -> Iterator[Part]:
    """How the test rows were ranked while training."""
    ranked = ([str(e["epoch"]), number(e.get("auroc")), number(e.get("ap"))] for e in result.get("by_epoch", []))
    yield from filled(("epoch", "AUROC", "AP"), ranked)


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str | Cell:
    if value is None or not interval:
        return number(value)
    return ranged(number(value), f"{interval[0]:.3f}", f"{interval[1]:.3f}")


def timed(value: float | None, disturbed: bool) -> str:
    """A time or a rate, with a mark if others used the machine.

    Example:
        >>> timed(1234.5, False), timed(1234.5, True), timed(None, True)
        ('1,234', '~1,234', '')
    """
    return (MARK if disturbed and value is not None else "") + large(value)


def number(value: float | None) -> str:
    """A number to four digits; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def large(value: float | None) -> str:
    """A number of things, its thousands set apart."""
    return "" if value is None else f"{value:,.0f}"


#: What is shown of a run, in brief and in full.
BRIEF = (overview, excesses, latency)
FULL = (ranking, over_density, thresholds, decisions, by_epoch, density, criteria, layers, latency, cost)
