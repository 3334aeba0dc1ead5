"""Monotonic rational-quadratic splines with linear tails.

Shapes: `...` any; `K` bins.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-3  # of a bin's share of the box, and of a slope
SLOPE_ONE = math.log(math.e - 1)  # softplus of it is one


def rational_quadratic_spline(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, *, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """A monotonic function that bends inside of a box and is the identity outside, and the log of its derivative.

    Between knots (x_k, y_k) with slopes d_k, with s = (y_k+1 - y_k) / (x_k+1 - x_k) and t = (x - x_k) / (x_k+1 - x_k),

        y = y_k + (y_k+1 - y_k) (s t^2 + d_k t (1 - t)) / (s + (d_k+1 + d_k - 2 s) t (1 - t)).

    What lies outside is clamped into the box, computed there like the rest, and replaced: no row takes another path
    than the others, so that a graph can be exported and no row can make it fail.

    References:
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, Neural spline flows, NeurIPS 2019, arXiv:1906.04032
        J. A. Gregory, R. Delbourgo, Piecewise rational quadratic interpolation to monotonic data, IMA J. Numer. Anal. 2
        (1982) 123, doi:10.1093/imanum/2.2.123

    Args:
        x: `(...)`.
        widths, heights: of the bins, `(..., K)`, any real numbers; softmax makes them shares of the box.
        slopes: at the K - 1 inner knots, `(..., K - 1)`, any real numbers; zero is slope 1.
        bound: the box is -bound to bound in both directions.
        inverse: from y to x.

    Returns:
        the function's value and the log of its derivative, both `(...)`.

    Example:
        >>> zero = torch.zeros(1, 4)
        >>> rational_quadratic_spline(torch.tensor([0.3]), zero, zero, zero[:, 1:], bound=1.0)
        (tensor([0.3000]), tensor([0.]))
    """
    xs, ys = _knots(widths, bound), _knots(heights, bound)
    slopes = F.pad(SMALLEST + (1 - SMALLEST) * F.softplus(slopes + SLOPE_ONE), (1, 1), value=1.0)
    inside = x.clamp(-bound, bound)
    bins = (inside[..., None] >= (ys if inverse else xs)[..., 1:-1]).sum(-1, keepdim=True)

    def at(knots: Tensor, shift: int = 0) -> Tensor:
        return knots.gather(-1, bins + shift)[..., 0]

    x0, y0, d0, d1 = at(xs), at(ys), at(slopes), at(slopes, 1)
    width, height = at(xs, 1) - x0, at(ys, 1) - y0
    s = height / width
    bend = d0 + d1 - 2 * s
    if inverse:
        rise = inside - y0
        a, b, c = height * (s - d0) + rise * bend, height * d0 - rise * bend, -s * rise
        t = (2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
    else:
        t = (inside - x0) / width
    u = t * (1 - t)
    below = s + bend * u
    log_slope = (s.square() * (d1 * t.square() + 2 * s * u + d0 * (1 - t).square())).log() - 2 * below.log()
    y = x0 + t * width if inverse else y0 + height * (s * t.square() + d0 * u) / below
    outside = x.abs() > bound
    return torch.where(outside, x, y), torch.where(outside, 0.0, -log_slope if inverse else log_slope)


def _knots(raw: Tensor, bound: float) -> Tensor:
    """Increasing positions from -bound to bound, `(..., K + 1)`, of any K real numbers."""
    shares = SMALLEST + (1 - SMALLEST * raw.shape[-1]) * raw.softmax(-1)
    inner = 2 * bound * shares[..., :-1].cumsum(-1) - bound
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)
