"""`straylight report --retime FOLDER`: measure latency and cost again, of one finished run after the other."""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from straylight import config
from straylight.callbacks import Latency
from straylight.console import say
from straylight.errors import ConfigError, StraylightError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.train import quiet
from straylight.run import Run
from straylight.runtimes import timing

Sample = tuple[Tensor, Tensor]


def retime(folder: Path, trust: Collection[str] = ()) -> int:
    """Time the finished runs in a folder and below it one by one, when nothing else is running, and rewrite their
    `result.json` with the new `latency` and `cost`, and when it was.

    Each is timed as its own config says, on the device that it was tested on, with its own test rows; a data set that
    several runs share is loaded once. A run that cannot be opened is named and left alone.

    Args:
        folder: of a run, or above several.
        trust: what their configs may build, see `Run.open`.

    Returns:
        the number of runs that were left alone.
    """
    quiet()
    finished = [result for result in SweepFolder(folder).results() if result["status"] == "ok"]
    samples: dict[str, Sample] = {}
    failures, threads = 0, torch.get_num_threads()
    for number, result in enumerate(finished, 1):
        run = RunFolder(result["folder"])
        what = f"[{number}/{len(finished)}] {result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
        try:
            latency, cost = _timed(run, samples, trust)
        except Exception as error:  # as many sorts as there are detectors and data sets
            failures += 1
            said = str(error) if isinstance(error, StraylightError) else f"{type(error).__name__}: {error}"
            say(f"{what}: left alone, {run} cannot be timed: {' '.join(said.split())}", error=True)
            continue
        finally:
            torch.set_num_threads(threads)
        now = {"latency": latency, "cost": cost, "retimed": {"time": datetime.now(UTC).isoformat(timespec="seconds")}}
        run.write_result({**(run.read() or result), **now})
        numbers = [f"p50 {_first(r)}" for r in (now, result) if _first(r)]
        say(f"{what}: {', before '.join(numbers)}")
        if cost["shared"].get("others"):
            print("  others used the device in the meantime: time it again when they do not")
    return failures


def _first(result: Any) -> str:
    found = timing([result], 1, "p50_us")
    return f"{found.values[0]:.0f} us ({found.runtime})" if found.values else ""


def _timed(
    folder: RunFolder, samples: dict[str, Sample], trust: Collection[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import pytorch_lightning as pl
    from lightning_fabric.plugins.environments import LightningEnvironment

    run = Run.open(folder.path, trust=trust)
    cfg = run.cfg
    device = _device(run)
    latency = config.build(cfg, "callbacks.latency") if (cfg.get("callbacks") or {}).get("latency") else Latency()
    if cfg.get("threads") is not None:
        torch.set_num_threads(cfg.threads)
    rows, context = samples.get(key := _identity(cfg)) or samples.setdefault(key, _sample(cfg))
    detector: torch.nn.Module = run.detector.to(device)
    if cfg.get("compile"):
        run.detector.compile_networks()
    trainer = pl.Trainer(  # what it knows of precision
        accelerator=device.type,
        devices=1,
        precision=cfg.trainer.get("precision") or "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
    )
    plugin = trainer.precision_plugin
    detector = plugin.convert_module(detector)
    most = max(latency.timing.batches)
    x, columns = (plugin.convert_input(part[:most].to(device)) for part in (rows, context))
    return latency.timing(detector.eval(), x, columns, plugin.forward_context)


def _device(run: Run) -> torch.device:
    device = torch.device(run.result.get("device") or "cpu")
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, True):
        raise ConfigError(f"it was tested on {device}, which is not here.")
    return torch.device(device.type, 0) if device.type == "cuda" else device


def _sample(cfg: DictConfig) -> Sample:
    """The first test batch of a run's data set: what its own test was timed with."""
    data = config.build(cfg, "data")
    if "seed" not in cfg.data:
        data.seed = cfg.seed
    data.setup()
    batch = next(iter(data.test_dataloader()))
    return batch.x.clone(), batch.context.clone()


def _identity(cfg: DictConfig) -> str:
    """What the rows of a run depend on."""
    plain = OmegaConf.to_container(cfg.data, resolve=True)
    return json.dumps([plain, cfg.seed], sort_keys=True, default=str)
