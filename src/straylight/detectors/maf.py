"""Masked autoregressive flow."""

from typing import Any

from straylight.detectors.flow import FlowDetector
from straylight.nn import autoregressive_flow


class MAF(FlowDetector):
    """Masked autoregressive flow: each feature is shifted and stretched by what the features before it say.

    z_i = x_i exp(s_i(x_1 ... x_i-1)) + t_i(x_1 ... x_i-1), several times over with the order reversed. One pass per
    layer scores an event; drawing one takes a pass per feature.

    References:
        G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density estimation, NeurIPS 2017,
        arXiv:1705.07057
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, nflows, 2020, doi:10.5281/zenodo.4296287

    Args:
        shape, layers, hidden, blocks, noise, common: see `FlowDetector`.

    Example:
        >>> import torch
        >>> MAF((2,), layers=2, hidden=8)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self, shape: tuple[int, ...], *, layers: int = 5, hidden: int = 64, blocks: int = 1, **common: Any
    ) -> None:
        super().__init__(shape, layers=layers, hidden=hidden, blocks=blocks, **common)
        self.flow = autoregressive_flow(self.features, **self.network)
        self.passes = self.features
