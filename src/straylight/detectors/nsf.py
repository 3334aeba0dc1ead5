"""Neural spline flow."""

from typing import Any

from straylight.detectors.flow import FlowDetector
from straylight.nn import coupling_flow
from straylight.nn.spline import SMALLEST


class NSF(FlowDetector):
    """Coupling flow of monotonic rational-quadratic splines, which bend a density much further than a stretch does.

    Each transformed feature goes through a spline of its own whose knots and slopes the other half of the features
    set. Outside of a box the splines are the identity, so the box must hold most of the data. Needs two or more
    features.

    References:
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, Neural spline flows, NeurIPS 2019, arXiv:1906.04032

    Args:
        bins: of each spline.
        tail_bound: half the width of the box, in units of the scaled features: standard deviations with
            `scaling="standard"`, the data's own units with `scaling="none"`.
        shape, layers, hidden, blocks, noise, common: see `FlowDetector`.

    Raises:
        ValueError: if there is a single feature, or the bins or the bound are not usable.

    Example:
        >>> import torch
        >>> NSF((2,), layers=2, hidden=8)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        layers: int = 4,
        hidden: int = 64,
        blocks: int = 1,
        bins: int = 8,
        tail_bound: float = 5.0,
        **common: Any,
    ) -> None:
        super().__init__(shape, layers=layers, hidden=hidden, blocks=blocks, **common)
        if not 2 <= bins < 1 / SMALLEST or not tail_bound > 0:
            raise ValueError(
                f"detector.bins must be between 2 and {1 / SMALLEST:.0f} and tail_bound positive, not {bins} and "
                f"{tail_bound}"
            )
        self.flow = coupling_flow(self.features, **self.network, spline=(bins, tail_bound))
