"""Restricted Boltzmann machine.

Shapes: `B` events, `D` visible units, `H` hidden units, `M` Markov chains.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from straylight import checks
from straylight.detectors.base import Detector
from straylight.rows.batch import Batch

Visible = Literal["bernoulli", "gaussian"]


class RBM(Detector):
    """Restricted Boltzmann machine with binary hidden units, scored by its free energy.

    With weights W, visible biases a and hidden biases b, up to one constant for all events,

    * `bernoulli`: F(v) = -a v - sum_j log(1 + exp(b_j + (v W)_j)), features between 0 and 1 (`scaling="minmax"`),
      read as probabilities; what lies outside is put at the nearer bound, and its distance added;
    * `gaussian`: F(v) = |v - a|^2 / 2 - sum_j log(1 + exp(b_j + (v W)_j)), features of unit variance
      (`scaling="standard"`).

    It is trained by contrastive divergence: the gradient of F at events, less that at what k steps of Gibbs sampling
    make of them, or, if `persistent`, of chains that go on from mini-batch to mini-batch. Both are means of the
    surrogate F(v_0) - F(v_k), whose value says nothing; `train/reconstruction` is the squared error of one step back.

    References:
        P. Smolensky, Information processing in dynamical systems: foundations of harmony theory, 1986
        G. E. Hinton, Training products of experts by minimizing contrastive divergence, Neural Comput. 14 (2002) 1771,
        doi:10.1162/089976602760128018
        T. Tieleman, Training restricted Boltzmann machines using approximations to the likelihood gradient, ICML 2008,
        doi:10.1145/1390156.1390290 (persistent chains)
        U. Fiore et al., Network anomaly detection with the restricted Boltzmann machine, Neurocomputing 122 (2013) 13,
        doi:10.1016/j.neucom.2012.11.050 (the score)

    Args:
        shape: the shape of one event; it is flattened to D visible units.
        hidden: H.
        visible: `bernoulli` or `gaussian`.
        k: steps of Gibbs sampling.
        persistent: whether chains go on.
        chains: M, how many of them there are.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Example:
        >>> RBM((2,), hidden=4)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    selects = False  # the surrogate does not tell a good epoch from a bad one
    chain: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: int = 64,
        visible: Visible = "gaussian",
        k: int = 1,
        persistent: bool = False,
        chains: int = 128,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", hidden=hidden, k=k, chains=chains)
        if visible not in Visible.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"detector.visible must be bernoulli or gaussian, not {visible!r}")
        if visible == "bernoulli":
            self.needs_bounds("detector.visible=bernoulli")
        features = math.prod(self.shape)
        self.visible, self.k, self.persistent = visible, k, persistent
        # widths as in G. E. Hinton, A practical guide to training restricted Boltzmann machines, UTML TR 2010-003
        self.weight = nn.Parameter(0.01 * torch.randn(features, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(features))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        if persistent:
            start = torch.randn(chains, features)
            self.register_buffer("chain", start if visible == "gaussian" else (start > 0).float())

    def free_energy(self, v: Tensor) -> Tensor:
        """F of visible units, `(B, D)` to `(B,)`."""
        hidden = F.softplus(torch.addmm(self.hidden_bias, v, self.weight)).sum(1)
        if self.visible == "gaussian":
            return (v - self.visible_bias).square().sum(1) / 2 - hidden
        return -v @ self.visible_bias - hidden

    @torch.no_grad()
    def gibbs(self, v: Tensor, k: int) -> Tensor:
        """Visible units after k steps of Gibbs sampling, `(B, D)` to the same."""
        for _ in range(k):
            h = torch.bernoulli(torch.addmm(self.hidden_bias, v, self.weight).sigmoid())
            mean = torch.addmm(self.visible_bias, h, self.weight.T)
            v = mean + torch.randn_like(mean) if self.visible == "gaussian" else torch.bernoulli(mean.sigmoid())
        return v

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        v = batch.x.flatten(1)
        if self.persistent:
            self.chain.copy_(self.gibbs(self.chain, self.k))
            model = self.free_energy(self.chain.clone()).mean()
        else:
            model = batch.mean(self.free_energy(self.gibbs(v, self.k)))
        with torch.no_grad():
            hidden = torch.addmm(self.hidden_bias, v, self.weight).sigmoid()
            back = torch.addmm(self.visible_bias, hidden, self.weight.T)
            back = back if self.visible == "gaussian" else back.sigmoid()
            reconstruction = batch.mean((back - v).square().mean(1))
        return {"loss": batch.mean(self.free_energy(v)) - model, "reconstruction": reconstruction}

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        v = x.flatten(1)
        if self.visible == "gaussian":
            return self.free_energy(v)
        inside = v.clamp(0, 1)
        return self.free_energy(inside) + (v - inside).abs().sum(1)
