"""Importing much at once: what was imported is there to stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Do not look for garbage while modules are imported, nor ever among what they brought.

    A tenth of the CPU time of a short run went into looking through torch and Lightning again and again.

    Example:
        >>> with loading():
        ...     import json
        >>> gc.isenabled() and gc.get_freeze_count() > 0
        True
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
