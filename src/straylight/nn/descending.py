"""Like networks trained side by side, each on rows of its own.

Shapes: `M` networks, `B` rows for each in a mini-batch, `N` rows in all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from straylight.errors import Interrupted, StraylightError
from straylight.stopping import STOP

Loss = Callable[[Tensor], Tensor]
Tell = Callable[[str], None]


class Descent(NamedTuple):
    """How networks are trained.

    Attributes:
        epochs: of the network that has most rows; the others begin theirs anew as often.
        batch_size: rows of a mini-batch, for each network.
        lr: learning rate of Adam.
        decay: whether it falls to zero along a cosine.
        kept: epochs of least loss on held-out rows, whose weights are kept for each network.
    """

    epochs: int
    batch_size: int
    lr: float
    decay: bool = False
    kept: int = 1


@torch.enable_grad()
def descend(
    module: nn.Module,
    loss: Loss,
    train: Sequence[Tensor],
    held: Sequence[Tensor],
    weight: Tensor,
    how: Descent,
    generator: torch.Generator,
    tell: Tell | None = None,
) -> dict[str, Tensor]:
    """Train M networks side by side and return the weights of their best epochs.

    Args:
        module: whose every parameter is that of M networks, `(M, ...)`, as `stack` makes them.
        loss: of rows by their places, those of the first network first, `(M * B,)` to `(M * B,)`.
        train, held: places of the rows that each network is trained on, and of those that choose its epochs.
        weight: of all rows, `(N,)`.
        how: the recipe.
        generator: draws mini-batches.
        tell: told how far it is.

    Returns:
        by the names of the parameters, `(M, kept, ...)`, the best epoch first; fewer where there are fewer epochs.

    Raises:
        StraylightError: if a network has no row, or a loss is not finite.
        Interrupted: if the process was asked to end.
    """
    if not all(len(rows) for rows in (*train, *held)):
        raise StraylightError("There are too few rows to train on and to choose an epoch by; lower detector.folds.")
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=how.lr)
    steps = max(1, max(map(len, train)) // how.batch_size)
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    for epoch in range(how.epochs):
        module.train()
        for step, places in enumerate(_batches(train, how.batch_size, steps, generator)):
            if how.decay:
                done = (epoch * steps + step) / (how.epochs * steps)
                optimizer.param_groups[0]["lr"] = how.lr * (1 + math.cos(math.pi * done)) / 2
            optimizer.zero_grad(set_to_none=True)
            losses = loss(places.flatten()) * weight[places].flatten()
            (losses.sum() / places.shape[1]).backward()
            optimizer.step()
            if STOP.asked:
                raise Interrupted
        module.eval()
        found = _mean(loss, held, weight)
        if not found.isfinite().all():
            raise StraylightError(f"Training diverged: losses of epoch {epoch} are {found.tolist()}; lower its lr.")
        if tell is not None:
            tell(f"epoch {epoch + 1}/{how.epochs}  held-out loss {found.mean():.4g}")
        seen.append((found, {name: p.detach().clone() for name, p in parameters.items()}))
    order = torch.stack([found for found, _ in seen]).argsort(dim=0, stable=True)[: how.kept]  # (kept, M)
    return {
        name: torch.stack(
            [torch.stack([seen[int(epoch)][1][name][m] for epoch in order[:, m]]) for m in range(len(train))]
        )
        for name in parameters
    }


def parted(rows: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places to train on and, drawn from them, a share that is held out, one at least; each in their order."""
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    n = max(1, round(share * len(rows)))
    return rows[order[n:].sort().values], rows[order[:n].sort().values]


def _batches(train: Sequence[Tensor], size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """So many mini-batches of an epoch, `(M, B)`; a network with fewer rows sees them several times."""
    size = min(size, max(map(len, train)))
    columns = []
    for rows in train:
        rounds = -(-steps * size // len(rows))
        order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(rounds)])
        columns.append(rows[order[: steps * size].to(rows.device)])
    yield from torch.stack(columns).split(size, 1)


@torch.no_grad()
def _mean(loss: Loss, held: Sequence[Tensor], weight: Tensor, at_once: int = 8192) -> Tensor:
    """Mean loss of the rows of each network, `(M,)` float64."""
    longest = max(map(len, held))
    places = torch.stack([rows[torch.arange(longest, device=rows.device) % len(rows)] for rows in held])
    counted = torch.stack([torch.arange(longest, device=rows.device) < len(rows) for rows in held])
    total = torch.zeros(len(held), dtype=torch.float64, device=places.device)
    sums = torch.zeros_like(total)
    for some, there in zip(places.split(at_once, 1), counted.split(at_once, 1), strict=True):
        own = weight[some].double() * there
        total += (loss(some.flatten()).view(some.shape).double() * own).sum(1)
        sums += own.sum(1)
    return total / sums.clamp(min=1e-300)
