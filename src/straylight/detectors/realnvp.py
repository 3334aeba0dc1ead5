"""Real-valued non-volume-preserving flow."""

from typing import Any

from straylight import checks
from straylight.detectors.flow import FlowDetector
from straylight.nn import coupling_flow


class RealNVP(FlowDetector):
    """Affine coupling flow: half of the features are shifted and stretched by what the other half says, in turns.

    z_b = x_b exp(s(x_a)) + t(x_a), z_a = x_a. As fast to draw from as to score with. Needs two or more features.

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, ICLR 2017, arXiv:1605.08803

    Args:
        largest_log_scale: s stays within plus and minus this.
        shape, layers, hidden, blocks, noise, common: see `FlowDetector`.

    Raises:
        ValueError: if there is a single feature, or the bound is not positive.

    Example:
        >>> import torch
        >>> RealNVP((2,), layers=2, hidden=8)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        layers: int = 8,
        hidden: int = 64,
        blocks: int = 1,
        largest_log_scale: float = 2.0,
        **common: Any,
    ) -> None:
        super().__init__(shape, layers=layers, hidden=hidden, blocks=blocks, **common)
        checks.positive("detector", largest_log_scale=largest_log_scale)
        self.flow = coupling_flow(self.features, **self.network, largest_log_scale=largest_log_scale)
