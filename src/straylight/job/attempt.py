"""One attempt at a job: train in its folder, and see to it that `result.json` says how it ended."""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from straylight.errors import Interrupted, StraylightError, no_room
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.stopping import STOP

Tell = Callable[[str], None]


def attempt(order: Order, folder: RunFolder, tell: Tell | None = None) -> dict[str, Any]:
    """Train in `folder` as ordered; what `result.json` says of it, and `refused` if a sentence is all there is to say.

    Args:
        order: what to do.
        folder: where.
        tell: told a line now and then on how far it is.
    """
    from straylight.callbacks.record import versions
    from straylight.job.train import train

    folder.result.unlink(missing_ok=True)  # until it ends nothing looks finished

    def conclude(status: str, reason: str | None) -> dict[str, Any]:
        STOP.careful = True
        if not (order.resume or folder.begun or folder.aside):
            folder.clear()  # of another run, whose numbers are not this one's
        early = {"metrics": {}, "latency": [], "versions": versions(), **order.fields}
        known = folder.read() or {}  # what the callbacks recorded, if there was a Trainer already
        result = {**early, **known, "status": status, "reason": reason}
        with suppress(OSError):  # of a full disk, which is most likely why
            folder.write_result(result)
        return result

    with STOP.listening():
        try:
            result = train(order.cfg, folder, fields=order.fields, resume=order.resume, ranks=order.ranks, tell=tell)
            return result if folder.result.exists() else conclude("ok", None)  # nobody recorded it
        except (KeyboardInterrupt, SystemExit) as error:
            if STOP.asked or interrupts(error):
                return conclude("interrupted", None)
            return conclude("failed", f"Something in the run called sys.exit({getattr(error, 'code', None)!r}).")
        except Exception as error:
            return conclude("failed", _reason(error, folder)) | {"refused": isinstance(error, StraylightError)}


def interrupts(error: BaseException) -> bool:
    """Whether a run was left on a signal; Lightning makes a status of 1 of a Ctrl-C."""
    ways = (KeyboardInterrupt, Interrupted)
    return isinstance(error, ways) or isinstance(error.__context__, ways)


def _reason(error: Exception, folder: RunFolder) -> str:
    """What to say of a run that failed of an error; with its traceback, unless it is a sentence for the user."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    if (full := no_room(error)) is not None:
        return f"{full}. Make room, then go on with resume={folder}."
    said = isinstance(error, StraylightError | MisconfigurationException)
    if not said or os.environ.get("STRAYLIGHT_FULL_ERROR") == "1":
        traceback.print_exc()
    sentence = " ".join(str(error).split())
    return sentence if said else f"{type(error).__name__}: {sentence}"
