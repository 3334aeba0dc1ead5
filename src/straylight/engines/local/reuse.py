"""A process that small jobs share: what one of them changed is put back, and where that cannot be, no other follows."""

import gc
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

THREADS = 1  # beside the main one: that which watches the parent


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back what belongs to the whole process: folder, signal handlers, warnings, and how torch and numpy reckon.

    The environment, torch's threads and the random states are set anew by every job.

    Example:
        >>> import torch
        >>> with unchanged():
        ...     torch.set_default_dtype(torch.float64)
        >>> torch.get_default_dtype()
        torch.float32
    """
    import numpy as np
    import torch

    folder, errors = Path.cwd(), np.geterr()
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    exact, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.chdir(folder)
        np.seterr(**errors)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def reusable() -> bool:
    """Whether nothing of the last job runs on; its memory is freed."""
    import psutil

    gc.collect()
    return threading.active_count() <= 1 + THREADS and not psutil.Process().children()
