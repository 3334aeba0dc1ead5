"""One run: from a composed config to a folder that holds the trained detector and what it reached."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from omegaconf import DictConfig, open_dict

from straylight import config
from straylight.callbacks import Checkpoint, Progress, Record
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector
from straylight.documents import read_json
from straylight.errors import ConfigError, StraylightError
from straylight.folder import RunFolder
from straylight.job.checkpoints import WholeCheckpoints, read_checkpoint, to_go_on_from
from straylight.job.ddp import DDP, environment
from straylight.job.logs import begin, call, closing, conclude, go_on, tracked
from straylight.stopping import STOP

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


def train(
    cfg: DictConfig,
    folder: Path | RunFolder,
    *,
    fields: Mapping[str, Any] | None = None,
    resume: bool = False,
    ranks: int = 1,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Build the data set and the detector, train, test, and leave all of it in `folder`.

    Args:
        cfg: the composed config, without `hydra`.
        folder: the run's folder.
        fields: more fields for `result.json`, such as the command.
        resume: go on from the newest checkpoint in the folder.
        ranks: processes that train together, where we have started several.
        tell: told a line now and then on how far it is.

    Returns:
        what `result.json` holds; empty on processes other than the first.

    Raises:
        StraylightError: if the config or the data do not fit, or training diverges.
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    quiet()
    folder = RunFolder(folder)
    with open_dict(cfg):
        cfg.paths.run = str(folder)
    config.check(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    pl.seed_everything(cfg.seed, verbose=False)

    data: AnomalyDataModule = config.build(cfg, "data")
    if tell is not None:
        tell(f"reading {data.name}")
    if "seed" not in cfg.data:  # a data set of the user's own whose config does not say; read when rows are
        data.seed = cfg.seed
    data.setup()
    if resume and folder.shape.is_file():
        data.check_same(read_json(folder.shape).get("recipe") or {})
    STOP.look()
    detector: Detector = config.build(
        cfg, "detector", shape=data.shape, context=data.context, optimizer=config.build(cfg, "optimizer")
    )
    if cfg.get("compile"):
        detector.compile_networks()
    fields = {**(fields or {}), "data": data.title}
    trainer = _trainer(cfg, fields, detector, data, tell)
    if trainer.world_size != ranks and (ranks > 1 or trainer.num_nodes > 1):
        raise StraylightError(f"{ranks} processes were to train together, and Lightning knows of {trainer.world_size}.")
    if trainer.is_global_zero:
        if not resume:
            folder.clear()  # no earlier: what is refused until here costs nobody what was there before
        call(trainer.loggers, folder, fields)
        folder.write_shape({"shape": data.shape, "context": data.context, "kinds": data.kinds, "recipe": data.recipe()})
        if resume:
            go_on(trainer.loggers)
        begin(trainer.loggers, tracked(cfg, folder, {"seed": cfg.seed, **fields}, again=resume))
    with closing(trainer.loggers):
        fit_and_test(trainer, detector, data, to_go_on_from(folder, trainer.max_epochs) if resume else None)
        record = next((c for c in trainer.callbacks if isinstance(c, Record)), None)  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return {}
        folder.checkpoint("interrupt").unlink(missing_ok=True)
        result = record.written if record is not None else {}
        conclude(trainer.loggers, cfg, result)
    return result


def fit_and_test(trainer: pl.Trainer, detector: Detector, data: AnomalyDataModule, start: Path | None = None) -> None:
    """Train, from a checkpoint if one is given, and test the epoch that `Checkpoint` chose, if there is one.

    Raises:
        StraylightError: if training ended before there was anything to test.
    """
    trainer.fit(detector, datamodule=data, ckpt_path=start, weights_only=True)
    if not (trainer.global_step if detector.selects else trainer.current_epoch):
        raise StraylightError("Nothing was trained: trainer.max_epochs or another limit of the Trainer left no step.")
    if not detector.last_phase:
        raise StraylightError(
            "Training ended before the detector's last phase, without which its scores mean nothing: give it more "
            "time, or another share in detector.phases."
        )
    STOP.look()
    checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoint)), None)
    best = checkpoint.chosen if checkpoint is not None and checkpoint.best_epoch >= 0 else None
    trainer.test(detector, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)


def silent(folder: str, callbacks: Sequence[pl.Callback], epochs: int, accelerator: str = "cpu") -> pl.Trainer:
    """A Trainer on one device that logs nothing and prints nothing, for what is trained in memory."""
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[LightningEnvironment()],
    )


def _trainer(
    cfg: DictConfig, fields: Mapping[str, Any], detector: Detector, data: AnomalyDataModule, tell: Any
) -> pl.Trainer:
    callbacks = _all(cfg, "callbacks")
    validated = detector.selects and len(data.selecting)
    for waiting in [c for c in callbacks if isinstance(c, pl.callbacks.EarlyStopping)]:
        if not validated and (not detector.selects or waiting.monitor.startswith("val")):  # for what never comes
            callbacks.remove(waiting)
            if detector.selects:
                data.notice(
                    f"There are no validation rows, so that early stopping does not wait for {waiting.monitor}."
                )
    if (every := cfg.trainer.get("log_every_n_steps")) not in (None, 0, 1):
        detector.notice(f"Losses are logged once an epoch, whatever trainer.log_every_n_steps={every} says.")
    for callback in callbacks:
        if isinstance(callback, Record):
            callback.fields |= {"seed": cfg.seed, **fields}
        if isinstance(callback, Progress):
            callback.tell = tell
    callbacks.sort(key=lambda callback: isinstance(callback, Record))  # it reads what the others measured
    parts = {
        "callbacks": callbacks,
        "logger": _all(cfg, "logger"),
        "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        "default_root_dir": cfg.paths.run,
    }
    own = config.build(cfg, "trainer.plugins") or []
    parts["plugins"] = [environment(), *(own if isinstance(own, list) else [own])]
    if not any(isinstance(plugin, CheckpointIO) for plugin in parts["plugins"]):
        parts["plugins"].append(WholeCheckpoints())
    strategy = cfg.trainer.get("strategy", "auto")
    trainer = config.build(cfg, "trainer", **parts)
    if strategy == "ddp" or (strategy == "auto" and trainer.num_devices * trainer.num_nodes > 1):
        patience = timedelta(seconds=max(1800.0, 2 * (cfg.trainer.get("timeout_s") or 0)))  # whoever watches is first
        strategy = DDP(find_unused_parameters=detector.alternates, timeout=patience)
        return config.build(cfg, "trainer", **parts, strategy=strategy)
    return trainer


def _all(cfg: DictConfig, group: str) -> list[Any]:
    chosen = cfg.get(group) or {}
    return [config.build(cfg, f"{group}.{name}") for name in chosen if chosen[name] is not None]


def load(detector: Detector, checkpoint: Path) -> str | None:
    """Put a checkpoint's state into a detector, which is then ready to score; the run that wrote it, if it says.

    Raises:
        ConfigError: if the file cannot be read or is another detector's.
    """
    state = read_checkpoint(checkpoint)
    put(detector, state["state_dict"], checkpoint)
    return state.get("run")


def put(detector: Detector, state: dict[str, Any], checkpoint: Path) -> None:
    """Put a state into a detector, which is then ready to score.

    Raises:
        ConfigError: if it is another detector's.
    """
    try:
        detector.load_state_dict(state)
    except ConfigError:
        raise
    except Exception as error:  # as many sorts as there are detectors
        raise ConfigError(f"{checkpoint} does not fit this detector ({' '.join(str(error).split())[:300]}).") from error
    detector.eval()


def quiet() -> None:
    """Keep Lightning from telling at every run which devices it did not find."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 under torch 2.13; nothing that a user could act on
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    # the ranks are ours, on a machine of a cluster too
    warnings.filterwarnings("ignore", message=r"The `srun` command is available on your system but is not used")
    # whoever resumes without a callback has said so
    warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint need to be provided")
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval")  # nothing is logged by it
