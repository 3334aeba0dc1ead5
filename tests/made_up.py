"""Folders of sweeps that nobody has run, for pages and reports of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from test_report import result

DETECTORS = ("autoencoder", "bayesian_gmm", "hbos", "knn", "pca")
KINDS = ("noise", "ring")
LONG = "long " * 2000
#: What a name or a sentence may hold, by what it tries.
HOSTILE: dict[str, str] = {
    "script": "<script>window.hacked=1</script>",
    "styles end": "</style><script>window.hacked=2</script>",
    "scripts end": "</script><script>window.hacked=3</script>",
    "attribute": "\"><img src=x onerror=window.hacked=4>'",
    "comment": "<!--<script>window.hacked=5",
    "template": "{{ 7 * 7 }}{% raw %}${window.hacked=6}",
    "address": "javascript:window.hacked=7",
    "entities": "&lt;b&gt;&amp;&#13;",
    "markup": "[red]not red[/red]",
    "backwards": "\u202egnissim\u2066 knn",
    "emoji": "🦄🏳️‍🌈 Ünï 数据",
    "formula": r"$\frac{x_",
    "hidden": "_x",
    "controls": "nul \x00 bell \x07 escape \x1b[31m return \r delete \x7f line \x85\u2028end",
    "surrogate": "half \ud83d of a pair, and \udc80",
    "long": LONG,
}


def run(root: Path, name: str, values: dict[str, Any] | str, scores: bool = False, seed: int = 0) -> Path:
    """The folder of a run with its result, as it is or as the text of its file."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    if scores:
        y = np.repeat([0, 1], [900, 100])
        table = {"score": np.random.default_rng(seed).normal(size=1000) + 2 * y, "y": y}
        pq.write_table(pa.table(table), folder / "scores.parquet")
    return folder


def named(detector: str, data: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    """The result of a run whose detector and data set have these names, whatever is in them."""
    plain = [ascii(name) for name in (detector, data)]
    values = result(*plain, *arguments, **more) | {"detector": detector, "data": data}
    return values | {"command": f"straylight train detector={detector} data={data}"}


def sweep(
    root: Path,
    detectors: Sequence[str] = DETECTORS,
    sets: Sequence[str] = ("digits", "moons"),
    seeds: Iterable[int] = range(3),
    kinds: Sequence[str] = KINDS,
    scores: bool = True,
    **more: Any,
) -> Path:
    """Runs of every detector on every data set with every seed, all of which ended well.

    The first data set alone has kinds of anomaly, and the second one too few nominal rows for an FPR of 1e-2.
    """
    number = 0
    versions = {"straylight": "0.1.0", "torch": "2.6.0", "python": "3.11.2"}
    for of, data in enumerate(sets):
        for place, detector in enumerate(detectors):
            for seed in seeds:
                auroc = round(0.55 + 0.4 * (place + 1) / (len(detectors) + 1) - 0.05 * of + 0.007 * seed, 6)
                values = named(detector, data, seed, auroc, above=50 if of else 5000, p50=10.0 * 3 ** (place % 5 + 1))
                ranked = {f"test/{m}/{k}": auroc - i / 50 for i, k in enumerate(kinds) for m in ("auroc", "ap")}
                values["metrics"] |= ranked if of == 0 else {}
                values |= {"parameters": 1000 * (place + 1), "duration_s": 2.5 + number}
                values |= {"versions": versions, "device": "cpu", "nominal_needed": {"0.01": 1000} if of else {}} | more
                run(root, str(number), values, scores, number)
                number += 1
    return root


def troubled(root: Path) -> Path:
    """Runs that ended well, failed, were interrupted or go on still, and results that are odd."""
    sweep(root, DETECTORS[:3], seeds=range(2))
    reason = "ValueError: the loss was nan in epoch 3, [batch] 7"
    failed = {"status": "failed", "reason": reason, "metrics": {}, "latency": []}
    run(root, "failed", result("maf", "digits", 0) | failed)
    run(root, "interrupted", result("vae", "moons", 1) | failed | {"status": "interrupted", "reason": "SIGINT"})
    worded = result("knn", "digits", 5)
    worded["metrics"]["test/auroc"] = "0.93"
    run(root, "worded", worded)
    run(root, "bare", {"status": "ok"})
    run(root, "cut", '{"status": "ok", "metr')
    run(root, "empty", "")
    run(root, "list", "[1, 2]")
    run(root, "unknown", result("pca", "moons", 7, 0.61) | {"of_next_year": {"deep": [{}]}, "status": "ok"})
    run(root, "nothing-known", result("pca", "digits", 8) | {"metrics": {}, "latency": [], "parameters": None})
    nan = result("hbos", "digits", 9)
    nan["metrics"] |= {"test/auroc": float("nan"), "test/ap": float("inf")}
    run(root, "not-a-number", nan)
    waiting = root / "waiting" / ".hydra"
    waiting.mkdir(parents=True)
    (waiting / "config.yaml").write_text("seed: 0\n")
    return root


def hostile(root: Path) -> Path:
    """Runs in which every text that may be anyone's tries to be more than text."""
    texts = list(HOSTILE.values())
    sweep(root, texts, [texts[0], texts[3]], range(2), texts, versions={t: t for t in texts}, device=texts[3])
    for text in texts:
        values = named(text, text, 0) | {"status": "failed", "reason": text, "command": text, "notices": [text]}
        name = text.replace("/", "").replace("\0", "").encode(errors="ignore")[:200].decode(errors="ignore")
        run(root, f"{name}.", values)
    return root
