"""Checkpoints as files: written whole, and read only if they are."""

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from straylight.atomic import replacing
from straylight.errors import ConfigError
from straylight.folder import RunFolder

log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's own goes through the folder for temporary files, and from another disk by a copy that may be cut."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.save(checkpoint, buffer)
        with replacing(path) as aside:
            aside.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain values, nothing that runs.

    Raises:
        ConfigError: if it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:  # torch itself does not compare the sums that it writes
            if (broken := file.testzip()) is not None:
                raise ValueError(f"{broken} in it is not what was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
            raise ValueError("it holds no state of a detector")
    except Exception as error:  # as many sorts as there are ways to be damaged
        raise ConfigError(f"{path} cannot be read as a checkpoint ({' '.join(str(error).split())[:300]}).") from error
    return state


def to_go_on_from(folder: RunFolder, epochs: int | None = None) -> Path | None:
    """The newest checkpoint of a run that is whole and its own, and says which; `None`, and says so, if none is.

    Args:
        folder: of the run.
        epochs: that are wanted in all; `None` or -1 is no limit.

    Raises:
        ConfigError: if more epochs than these were trained.
    """
    run = folder.run
    for path in folder.by_age():
        try:
            folder.check_whole(path)
            state = read_checkpoint(path)
        except ConfigError as error:
            log.warning(f"{error} An older one is tried.")
            continue
        if run and state.get("run") not in (None, run):
            log.warning(f"{path} is of another run and left alone.")
            continue
        if (begun := int(state.get("epoch", 0)) + 1) > (epochs or -1) >= 0:
            raise ConfigError(f"{path} is of epoch {begun}, and trainer.max_epochs={epochs} asks for fewer.")
        log.info(f"Going on from {path}, epoch {state.get('epoch')}.")
        return path
    log.info(f"{folder} holds no checkpoint that can be gone on from: training starts anew.")
    return None
