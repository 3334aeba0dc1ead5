"""Two densities of the signal region: that of what is there, and that of what the sidebands say of it.

Shapes: as in `over_density`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from straylight import checks
from straylight.detectors.over_density import Folds, OverDensity, Rows
from straylight.nn.conditional import ConditionalFlows, Flows, mixture

PACE = 10  # by which the fraction of signal is learned faster than weights


class ANODE(OverDensity):
    """The ratio of two flows given the mass, one of the signal region and one of the sidebands.

    score(x, m) = log p_region(x | m) - log p_sidebands(x | m)

    References:
        B. Nachman, D. Shih, Anomaly detection with density estimation (ANODE), Phys. Rev. D 101 (2020) 075042,
        arXiv:2001.04990

    Args:
        shape: the shape of one event; it is flattened to D features.
        flow: settings of both, see `straylight.nn.conditional.Flows`.
        inner: settings of the flow of the signal region that differ from these.
        folds, common: see `OverDensity`.

    Example:
        >>> ANODE((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        flow: Mapping[str, Any] | None = None,
        inner: Mapping[str, Any] | None = None,
        folds: Folds = 5,
        **common: Any,
    ) -> None:
        super().__init__(shape, folds=folds, **common)
        sizes = self.models, self.features, self.context
        self.outer = ConditionalFlows(*sizes, Flows.of("flow", flow))
        self.inner = ConditionalFlows(*sizes, Flows.of("inner", {**(flow or {}), **(inner or {})}))

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        self._fit(self.outer, rows, inside=False)
        self._fit(self.inner, rows, inside=True)

    def _fit(self, flows: ConditionalFlows, rows: Rows, inside: bool) -> None:
        places = [rows.of(k, inside) for k in range(self.models)]
        flows.fit(rows.x, rows.context, rows.weight, places, self.seed + inside, self.tell)

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.inner.log_ratio(self.outer, x, context)


class RANODE(ANODE):
    """ANODE with the signal's own density, fitted to what the background leaves.

    The background p_b(x | m) of the sidebands is held fixed, and w p_s(x | m) + (1 - w) p_b(x | m) is fitted to the
    signal region: a flow for the signal, and its fraction w. The flow begins as that of the background, so that it
    moves only where the region has more.

    score(x, m) = log p_s(x | m) - log p_b(x | m)

    References:
        R. Das, G. Kasieczka, D. Shih, Residual ANODE, Phys. Rev. D 109 (2024) 095027, arXiv:2312.11629

    Args:
        fraction: w to begin with.
        shape, flow, inner, folds, common: see `ANODE`; `inner` is of the flow of the signal.

    Example:
        >>> RANODE((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    logit: Tensor

    def __init__(self, shape: tuple[int, ...], *, fraction: float = 0.05, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.between("detector", 1e-6, 0.5, fraction=fraction)
        own, other = self.inner.settings, self.outer.settings
        for name in ("layers", "hidden", "blocks", "bins", "tail_bound"):
            if getattr(own, name) != getattr(other, name):
                raise ValueError(f"detector.inner.{name} must be that of detector.flow, by whose weights it begins")
        self.fraction = fraction
        self.register_buffer("logit", torch.zeros(self.models))  # of w

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        self._fit(self.outer, rows, inside=False)
        places = [rows.of(k, True) for k in range(self.models)]
        inside = rows.inside.nonzero().flatten()
        background = torch.zeros(self.models, len(rows.x), device=rows.x.device)
        shared = (column[inside].expand(self.models, -1, -1) for column in (rows.x, rows.context))
        background[:, inside] = self.outer.log_prob(*shared)
        start = torch.full((self.models,), self.fraction).logit() / PACE
        share = nn.ParameterDict({"logit": start.to(rows.x.device)})

        def loss(own: Tensor, log_signal: Tensor) -> Tensor:
            by_model = own.view(self.models, -1)
            logit = PACE * share["logit"][:, None].expand(by_model.shape).flatten()
            return -mixture(log_signal, background.gather(1, by_model).flatten(), logit)

        given = rows.x, rows.context, rows.weight, places, self.seed + 1, self.tell
        best = self.inner.fit(*given, loss_of=loss, beside=share, start=self.outer)
        self.logit = PACE * best["logit"]
