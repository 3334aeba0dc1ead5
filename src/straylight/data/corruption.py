"""Three ways to spoil an image: turn it, invert some of its pixels, black out one half.

Shapes: `N` images, `C` channels, `H` rows, `W` columns; values from 0 to 1.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def rotated(images: Tensor, rng: np.random.Generator, angles: tuple[float, float] = (45.0, 315.0)) -> Tensor:
    """Each image turned counter-clockwise about its centre by an angle of its own, uniform in a range.

    Bilinear between pixels, zero outside the image. The default range leaves no image upright.

    Args:
        images: `(N, C, H, W)`.
        rng: draws the angles.
        angles: the smallest and the largest, in degrees.

    Example:
        >>> image = torch.tensor([[[[1., 0.], [0., 0.]]]])
        >>> rotated(image, np.random.default_rng(0), angles=(90, 90)).round().int().tolist()
        [[[[0, 0], [1, 0]]]]
    """
    if not len(images):
        return images
    turn = torch.from_numpy(np.deg2rad(rng.uniform(*angles, len(images)))).to(images.dtype)
    cos, sin, still = turn.cos(), turn.sin(), torch.zeros_like(turn)
    aspect = images.shape[2] / images.shape[3]  # the grid runs from -1 to 1 along both sides, however long they are
    theta = torch.stack([cos, -sin * aspect, still, sin / aspect, cos, still], 1).view(-1, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def noise(images: Tensor, rng: np.random.Generator, flip: float = 0.1) -> Tensor:
    """Each pixel inverted, x to 1 - x, with probability `flip`.

    Example:
        >>> noise(torch.zeros(1, 1, 2, 2), np.random.default_rng(0), flip=1.0).sum().item()
        4.0
    """
    flipped = torch.from_numpy(rng.random(images.shape) < flip)
    return torch.where(flipped, 1 - images, images)


def blackout(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The upper or the lower half of each image set to 0, by the toss of a coin; of an odd height the smaller half.

    Example:
        >>> blackout(torch.ones(1, 1, 2, 2), np.random.default_rng(0)).sum().item()
        2.0
    """
    half, height = images.shape[2] // 2, images.shape[2]
    upper = torch.from_numpy(rng.random((len(images), 1, 1, 1)) < 0.5)
    row = torch.arange(height)[:, None]
    return images.masked_fill(torch.where(upper, row < half, row >= height - half), 0)
