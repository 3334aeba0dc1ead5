"""How a network is trained: the optimiser, its learning rate over the steps, and the clipping of gradients."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from straylight import checks

Schedule = Literal["constant", "cosine", "linear"]


class Optimization:
    """Any torch optimiser, with a learning-rate schedule that is a function of the step alone.

    lr(t) = lr * min(1, (t + 1) / (warmup T)) * s(t / T), with s = 1, (1 + cos(pi t / T)) / 2 or 1 - t / T. Because it
    has no state, a resumed run continues on the same curve, and several mini-batches per Trainer step change nothing.

    References:
        D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR 2015, arXiv:1412.6980
        I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, arXiv:1608.03983

    Args:
        method: `(parameters, lr=...) -> Optimizer`; a class of `torch.optim` or a partial of one. By default Adam,
            fused, the quickest for small networks.
        lr: the largest learning rate.
        schedule: `constant`, `cosine` or `linear`, the last two ending at zero.
        warmup: the fraction of all steps over which the rate rises linearly, between 0 and 1.
        clip: the largest norm of the gradient; `None` leaves it alone.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> recipe = Optimization(lr=0.1, schedule="linear")
        >>> [round(recipe.rate(step, 4), 3) for step in range(4)]
        [0.1, 0.075, 0.05, 0.025]
    """

    def __init__(
        self,
        method: Callable[..., Optimizer] | None = None,
        lr: float = 1e-3,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        clip: float | None = None,
    ) -> None:
        checks.positive("optimizer", lr=lr)
        checks.between("optimizer", 0, 1, warmup=warmup)
        checks.positive("optimizer", also="null", clip=clip)
        checks.one_of("optimizer", Schedule, schedule=schedule)
        self.method, self.lr, self.schedule, self.warmup, self.clip = method, lr, schedule, warmup, clip
        #: Whether the rate never changes, so that nobody need set it.
        self.constant = schedule == "constant" and not warmup

    def build(self, parameters: Iterable[Parameter] | Iterable[dict[str, Any]]) -> Optimizer:
        """The optimiser over these parameters."""
        if self.method is None:
            return torch.optim.Adam(parameters, lr=self.lr, fused=True)
        return self.method(parameters, lr=self.lr)

    def rate(self, step: int, total: int) -> float:
        """The learning rate of mini-batch `step` of `total`."""
        done = min(step / max(total, 1), 1.0)
        rise = min(1.0, (step + 1) / (self.warmup * total)) if self.warmup and total else 1.0
        fall = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done}[self.schedule]
        return self.lr * rise * fall
