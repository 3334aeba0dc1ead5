"""Median-of-means kernel density estimation.

Shapes: `B` events, `N` training rows kept, `S` blocks, `n` rows of a block.
"""

import math
from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.base import Detector
from straylight.detectors.kde import KDE


class MoMKDE(KDE):
    """Negative log of the median, over disjoint blocks of training rows, of the blocks' kernel densities.

    Rows are dealt to S blocks at random; all blocks have one bandwidth, that of all rows. As long as fewer than half of
    the blocks hold a contaminated row the median is a density that an uncontaminated block gave. The constant that
    would make it integrate to one is left out, since it changes no ranking.

    References:
        P. Humbert, B. Le Bars, L. Minvielle, Robust kernel density estimation with median-of-means principle, ICML
        2022, arXiv:2006.16590

    Args:
        blocks: S, best odd; one more than twice the number of contaminated rows are safe against any of them.
        shape, bandwidth, max_rows, common: see `KDE`.

    Example:
        >>> kde = MoMKDE((1,), blocks=3, bandwidth=1.0, scaling="none")
        >>> kde.fit(torch.tensor([[0.], [0.], [9.]]), torch.zeros(3, 0), torch.ones(3))
        >>> kde(torch.tensor([[0.]]))  # as if the third row were not there
        tensor([0.9189])
    """

    density = False
    sample = Detector.sample  # the rows of all blocks together are not what it scores by
    dealt_to: Tensor  # the number of blocks

    def __init__(self, shape: tuple[int, ...], *, blocks: int = 11, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", blocks=blocks)
        self.blocks = blocks
        self.register_buffer("dealt_to", torch.tensor(blocks))
        self._dealt = blocks  # the same, known without waiting for a device

    def arrange(self, weight: Tensor) -> None:
        n = len(weight)
        blocks = min(self.blocks, n)
        if blocks < self.blocks:
            self.notice(f"MoMKDE has {n} rows for detector.blocks={self.blocks} blocks and takes {blocks}.")
        each = math.ceil(n / blocks)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed)).to(weight.device)
        # dealt like cards, line after line of blocks; places left empty in the last line get no weight
        order = torch.cat([order, order.new_zeros(each * blocks - n)]).view(each, blocks).T
        dealt = weight[order]
        empty = n <= torch.arange(each * blocks, device=weight.device).view(each, blocks).T
        dealt = torch.where(empty, 0.0, dealt)
        self.memory = self.memory[order.flatten()]
        self.log_weight = (dealt / dealt.sum(1, keepdim=True)).log().flatten()
        self.dealt_to = torch.tensor(blocks, device=weight.device)
        self._dealt = blocks

    def merge(self, exponents: Tensor) -> Tensor:
        blocks = self._dealt
        each = (exponents + self.log_weight).unflatten(1, (blocks, -1)).logsumexp(2)
        ordered = each.sort(1).values
        middle = torch.stack([ordered[:, (blocks - 1) // 2], ordered[:, blocks // 2]], 1)
        return middle.logsumexp(1) - math.log(2)  # ONNX's translation of logaddexp overflows

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._dealt = int(self.dealt_to)
