"""As many threads for other libraries as torch has: their own take every core, and wait for each other there."""

from contextlib import AbstractContextManager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_pool() -> AbstractContextManager:
    """No more threads than torch has, as long as this lasts."""
    return _pools().limit(limits=torch.get_num_threads())
