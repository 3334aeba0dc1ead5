"""What people type out of habit that does not work here, or would be heard by nobody, and what it is called instead."""

import pydoc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from straylight.errors import ConfigError
from straylight.job.world import disagreement, world_here

Config = Mapping[str, Any]

#: What the Trainer is given by us, and where it is asked for.
OURS = {
    "logger": "choose one by logger=tensorboard, csv, both, wandb, mlflow or none",
    "callbacks": "add one as callbacks.NAME, with its _target_",
    "enable_checkpointing": "callbacks.checkpoint=null leaves checkpoints out",
    "default_root_dir": "a run's folder is hydra.run.dir",
}
#: What would turn rows and weights themselves into numbers of too few digits, and what computes by these alone.
HALVES = {"16-true": "16-mixed", "bf16-true": "bf16-mixed"}


def refuse(config: Config) -> None:
    """Look for them in a config, as plain values.

    Raises:
        ConfigError: for the first, in one sentence that names the setting of ours.

    Example:
        >>> refuse({"trainer": {"gradient_clip_val": 0.5}})
        Traceback (most recent call last):
        straylight.errors.ConfigError: trainer.gradient_clip_val=0.5 clips nothing here: set optimizer.clip=0.5.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping):
        return
    for rule in (_ours, _clipping, _accumulation, _precision, _waiting):
        for sentence in rule(config, trainer):
            raise ConfigError(sentence)


def refuse_ranks(trainer: Config) -> None:
    """Look for ranks that nobody starts, or others than somebody has started, before a run here.

    Raises:
        ConfigError: if there are any.
    """
    nodes = trainer.get("num_nodes")
    if (world := world_here()) is not None:
        if (fault := disagreement(world, trainer)) is not None:
            raise ConfigError(fault)
    elif isinstance(nodes, int) and nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={nodes} would wait for machines that nobody starts: start every rank by torchrun or "
            "srun, or leave it out and set trainer.devices to how many this machine has."
        )


def _ours(config: Config, trainer: Config) -> Iterator[str]:
    for key, instead in OURS.items():
        if key in trainer and trainer[key] is not None:
            yield f"trainer.{key} is not read: {instead}."


def _clipping(config: Config, trainer: Config) -> Iterator[str]:
    if value := trainer.get("gradient_clip_val"):
        yield f"trainer.gradient_clip_val={value} clips nothing here: set optimizer.clip={value}."
    if (kind := trainer.get("gradient_clip_algorithm")) not in (None, "norm"):
        yield f"trainer.gradient_clip_algorithm={kind} is not there: optimizer.clip is the largest norm of a gradient."


def _accumulation(config: Config, trainer: Config) -> Iterator[str]:
    batches = trainer.get("accumulate_grad_batches")
    if batches not in (None, 1):
        size = (config.get("data") or {}).get("batch_size")
        both = isinstance(size, int) and isinstance(batches, int)
        yield (
            f"trainer.accumulate_grad_batches={batches} is not there, since every mini-batch is a step: set "
            f"data.batch_size{f'={size * batches}, not {size}' if both else ' to as many times as many rows'}."
        )


def _precision(config: Config, trainer: Config) -> Iterator[str]:
    if (instead := HALVES.get(str(precision := trainer.get("precision")))) is not None:
        yield f"trainer.precision={precision} would round the rows themselves: set trainer.precision={instead}."


def _waiting(config: Config, trainer: Config) -> Iterator[str]:
    """Early stopping, by a measure of validation, of a training without any."""
    data, epochs, every = config.get("data") or {}, trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch")
    without = [
        (data.get("val_fraction") == 0, "data.val_fraction=0", "data.val_fraction=0.1"),
        (
            (protocol := data.get("protocol")) in ("unsupervised", "dte"),
            f"data.protocol={protocol}",
            "data.protocol=nominal_only",
        ),
        (trainer.get("limit_val_batches") == 0, "trainer.limit_val_batches=0", "it to 1.0"),
        (
            isinstance(every, int) and isinstance(epochs, int) and 0 < epochs < every,
            f"trainer.check_val_every_n_epoch={every}",
            f"it to at most trainer.max_epochs={epochs}",
        ),
    ]
    reason = next(((given, instead) for there, given, instead in without if there), None)
    if reason is None or not _selects(config.get("detector")):
        return
    for name, callback in (config.get("callbacks") or {}).items():
        if isinstance(callback, Mapping) and str(callback.get("_target_")).endswith("EarlyStopping"):
            monitor = str(callback.get("monitor", "val/loss"))
            if monitor.startswith("val"):
                yield (
                    f"callbacks.{name} waits for {monitor}, and {reason[0]} leaves no validation: set {reason[1]}, or "
                    f"callbacks.{name}=null."
                )


def _selects(detector: Any) -> bool:
    """Whether a detector is certain to have a loss of validation."""
    found: Callable[..., Any] | None = None
    with suppress(Exception):  # whoever builds it will say what is wrong
        found = pydoc.locate(str(detector["_target_"]))  # type: ignore[assignment]
    return getattr(found, "selects", False) is True
