"""Conditional densities side by side: flows of events given a context, each trained on rows of its own.

Shapes: `K` flows, `B` events, `D` features, `C` context columns, `N` training rows.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from straylight import checks
from straylight.nn import turns
from straylight.nn.classifiers import Settings
from straylight.nn.descending import Descent, Tell, descend, parted
from straylight.nn.flows import Flow, autoregressive_flow, coupling_flow
from straylight.nn.stacked import stack

ROWS = 16384  # that go through the flows together, of all of them


@dataclass(frozen=True)
class Flows(Settings):
    """Coupling flows of rational-quadratic splines, trained by Adam with a learning rate that falls to zero.

    A single feature is left to an autoregressive flow, since there is nothing to couple.

    Attributes:
        layers, hidden, blocks, bins, tail_bound: see `straylight.detectors.NSF`.
        epochs, batch_size, lr: of the training.
        held_out: the share of the rows that chooses the epoch.
    """

    layers: int = 4
    hidden: int = 48
    blocks: int = 1
    bins: int = 8
    tail_bound: float = 5.0
    epochs: int = 8
    batch_size: int = 1024
    lr: float = 3e-3
    held_out: float = 0.1

    def check(self, key: str) -> None:
        checks.counts("detector", **self._named(key, "layers", "hidden", "blocks", "epochs", "batch_size"))
        checks.between("detector", 2, 500, **self._named(key, "bins"))
        checks.positive("detector", **self._named(key, "tail_bound", "lr"))
        checks.above("detector", 0, 0.9, **self._named(key, "held_out"))


class ConditionalFlows(nn.Module):
    """K flows p_k(x | context), the context standardised by training rows.

    Example:
        >>> flows = ConditionalFlows(2, features=3, context=1, settings=Flows(epochs=1))
        >>> x, m = torch.randn(500, 3), torch.rand(500, 1)
        >>> rows = [torch.arange(400), torch.arange(100, 500)]
        >>> _ = flows.fit(x, m, torch.ones(500), rows, seed=0, tell=lambda said: None)
        >>> flows.log_prob(x.expand(2, 500, 3), m.expand(2, 500, 1)).shape, flows.sample(m[:10].expand(2, 10, 1)).shape
        (torch.Size([2, 500]), torch.Size([2, 10, 3]))
    """

    centre: Tensor
    width: Tensor

    def __init__(self, count: int, features: int, context: int, settings: Flows) -> None:
        super().__init__()
        self.count, self.features, self.context, self.settings = count, features, context, settings
        self.register_buffer("centre", torch.zeros(context))
        self.register_buffer("width", torch.ones(context))
        self.flow = self._made()

    def _made(self) -> Flow:
        how = self.settings
        sizes = {"layers": how.layers, "hidden": how.hidden, "blocks": how.blocks, "context": self.context}
        spline = (how.bins, how.tail_bound)
        each = [
            coupling_flow(self.features, **sizes, spline=spline)
            if self.features > 1
            else autoregressive_flow(1, **sizes)
            for _ in range(self.count)
        ]
        stack(each)
        return each[0]

    def fit(
        self,
        x: Tensor,
        context: Tensor,
        weight: Tensor,
        rows: Sequence[Tensor],
        seed: int,
        tell: Tell,
        loss_of: Callable[[Tensor, Tensor], Tensor] | None = None,
        beside: nn.Module | None = None,
        start: Self | None = None,
    ) -> dict[str, Tensor]:
        """Train each flow on rows of its own.

        Args:
            x, context, weight: `(N, D)`, `(N, C)`, `(N,)`.
            rows: places of each flow's own.
            seed: of initial weights and mini-batches.
            tell: told how far it is.
            loss_of: places and log-densities, those of the first flow first, `(K * B,)` each, to losses; by default
                the negative log-density.
            beside: what is trained along with the flows, its parameters `(K, ...)`.
            start: flows of the same form, by whose weights these begin; by default they are drawn.

        Returns:
            the best epoch's parameters of `beside`, by their names.

        Raises:
            StraylightError: if a flow has no rows, or training diverges.
            Interrupted: if the process was asked to end.
        """
        how, generator = self.settings, torch.Generator().manual_seed(seed)
        if start is not None:
            self.flow, self.centre, self.width = copy.deepcopy(start.flow), start.centre.clone(), start.width.clone()
        else:
            self._begin(x, context.index_select(0, torch.cat(list(rows)).unique()), seed)
        given = self._standard(context)
        train, held = zip(*(parted(own, how.held_out, generator) for own in rows), strict=True)

        def loss(places: Tensor) -> Tensor:
            log_prob = self.flow(x.index_select(0, places), given.index_select(0, places) if self.context else None)
            return -log_prob if loss_of is None else loss_of(places, log_prob)

        both = nn.ModuleDict({"flow": self.flow} | ({} if beside is None else {"beside": beside}))
        recipe = Descent(how.epochs, how.batch_size, how.lr, decay=True)
        best = descend(both, loss, train, held, weight, recipe, generator, lambda said: tell(f"flow  {said}"))
        with torch.no_grad():
            for name, parameter in both.named_parameters():
                parameter.copy_(best[name][:, 0])
        return {name: p.detach() for name, p in ({} if beside is None else dict(beside.named_parameters())).items()}

    def _begin(self, x: Tensor, context: Tensor, seed: int) -> None:
        """Draw weights, and standardise by the contexts of training rows."""
        if self.context:
            values = context.double()
            self.centre = values.mean(0).float()
            width = values.std(0, correction=0).float()
            self.width = torch.where(width > 0, width, 1)
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            self.flow = self._made().to(x.device)

    @torch.no_grad()
    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Log-densities in nats by each flow of events of its own, `(K, B, D)` and `(K, B, C)` to `(K, B)`."""
        return self._in_parts(lambda own, given: self.flow(own, given), x, context)

    @torch.no_grad()
    def log_ratio(self, other: Self, x: Tensor, context: Tensor) -> Tensor:
        """Log-densities less those of other flows, `(K, B, D)` and `(K, B, C)` to `(K, B)`.

        Far outside both flows leave events as they are, and the squares of their codes, which are all that is left of
        a log-density there, cancel before they are summed: float32 would round the difference of the sums to noise.

        Example:
            >>> flows = ConditionalFlows(2, features=3, context=0, settings=Flows())
            >>> flows.log_ratio(flows, 1e6 * torch.ones(2, 1, 3), torch.zeros(2, 1, 0)).tolist()
            [[0.0], [0.0]]
        """
        (codes, volume), (codes_of_other, volume_of_other) = self._noise(x, context), other._noise(x, context)
        own, others = (z.abs().sort(-1).values for z in (codes, codes_of_other))  # features are permuted in each
        return volume - volume_of_other + ((others - own) * (others + own)).sum(-1) / 2

    @torch.no_grad()
    def latents(self, x: Tensor, context: Tensor) -> Tensor:
        """Codes by each flow of events of its own, `(K, B, D)` and `(K, B, C)` to `(K, B, D)`.

        They are standard normal where the density is right.
        """
        return self._noise(x, context)[0]

    @torch.no_grad()
    def sample(self, context: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Events of each flow given contexts of its own, `(K, n, C)` to `(K, n, D)`."""
        k, _, _ = context.shape
        parts = []
        for part in context.split(max(1, ROWS // k), 1):
            n = part.shape[1]
            x = torch.randn(k * n, self.features, generator=generator).to(part.device)
            given = self._standard(part.reshape(k * n, -1)) if self.context else None
            for transform in list(self.flow.transforms)[::-1]:
                x, _ = transform.inverse(x, given)  # type: ignore[operator]
            parts.append(x.view(k, n, -1))
        return torch.cat(parts, 1)

    def _noise(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, `(K, B, D)`, and the logarithms of their volume over that of events, `(K, B)`."""

        def both(own: Tensor, given: Tensor | None) -> Tensor:
            codes, volume = self.flow.to_noise(own, given)
            return torch.cat([codes, volume[:, None]], 1)

        found = self._in_parts(both, x, context)
        return found[..., :-1], found[..., -1]

    def _in_parts(self, call: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, context: Tensor) -> Tensor:
        parts = []
        both = (turns.taken(self, rows, ROWS // self.count, 1) for rows in (x, context))
        for own, given in zip(*both, strict=True):
            k, n = own.shape[:2]
            seen = self._standard(given).reshape(k * n, -1) if self.context else None
            found = call(own.reshape(k * n, -1), seen)
            parts.append(found.view(k, n, *found.shape[1:]))
        return torch.cat(parts, 1)

    def _standard(self, context: Tensor) -> Tensor:
        return (context - self.centre) / self.width


def mixture(log_first: Tensor, log_second: Tensor, logit: Tensor) -> Tensor:
    """log(w p + (1 - w) q) of log-densities and the log-odds of w, all of one shape."""
    first, second = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
    return torch.logaddexp(first + log_first, second + log_second)
