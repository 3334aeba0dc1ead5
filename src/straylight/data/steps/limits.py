"""What a Trainer's options that count mini-batches ask of the loaders."""

import pytorch_lightning as pl

from straylight.errors import ConfigError

#: A number of mini-batches where it is whole, and a fraction of all of them where it is not: 1 is one, 1.0 is all.
Limit = int | float


def limits(value: Limit) -> bool:
    """Whether it leaves anything out.

    Example:
        >>> limits(1), limits(1.0), limits(0.5)
        (True, False, True)
    """
    return isinstance(value, int) or value != 1


def counts(trainer: pl.Trainer) -> bool:
    """Whether an option, or a callback, of the Trainer counts mini-batches of training, which must then come singly."""
    timed = getattr(trainer, "_val_check_time_interval", None) is not None
    return (
        limits(trainer.limit_train_batches)
        or (not timed and limits(trainer.val_check_interval))
        or any(getattr(callback, "_every_n_train_steps", 0) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def left_by(limit: Limit, batches: int) -> int:
    """How many of so many batches a limit leaves.

    Example:
        >>> left_by(3, 10), left_by(0.25, 10), left_by(1.0, 10), left_by(20, 10)
        (3, 2, 10, 10)
    """
    return min(limit, batches) if isinstance(limit, int) else int(limit * batches)


def check_interval(trainer: pl.Trainer, steps: int) -> None:
    """See that validation comes in an epoch of so many mini-batches.

    Raises:
        ConfigError: if the Trainer is to validate after more of them.
    """
    interval = getattr(trainer, "val_check_interval", None)
    by_epoch = trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches > 0
    if isinstance(interval, int) and interval > steps and by_epoch:
        raise ConfigError(
            f"trainer.val_check_interval={interval} is more mini-batches than the {steps} of an epoch: lower it, or "
            "set trainer.check_val_every_n_epoch=null to count them over epochs."
        )
