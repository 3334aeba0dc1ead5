"""Several of one detector, trained side by side, and their mean.

Shapes: `B` events, `M` members.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from straylight import checks
from straylight.detectors.base import Detector
from straylight.detectors.finite import absurd, finite, sound
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts
from straylight.nn import Optimization
from straylight.nn.stacked import stack, stackable
from straylight.rows.batch import Batch, Group, Scored

SAMPLE = 4096  # training rows that scores are standardised by


class Ensemble(Detector):
    """M detectors that differ by their initial weights, scored by the mean of their standardised scores.

    score(x) = mean_m (s_m(x) - mean s_m) / std s_m, with mean and standard deviation over training rows; members that
    are calibrated (`calibrate`, see `FittedDetector`) are on one scale, and their plain mean is taken. Scores of the
    members, whose spread says how far one trained detector can be trusted, are kept in `scores.parquet` as `member_0`,
    `member_1`, ...; `member_scores` gives them as they are.

    All members see the same mini-batches. Dense detectors whose loss is a mean over rows are stacked: one pass, over
    the rows of all members, trains them all, each down its own gradient, without what `torch.func.vmap` costs per call.
    Others take their steps in turn. Gradients are clipped member by member.

    References:
        B. Lakshminarayanan, A. Pritzel, C. Blundell, Simple and scalable predictive uncertainty estimation using deep
        ensembles, NeurIPS 2017, arXiv:1612.01474
        C. C. Aggarwal, S. Sathe, Theoretical foundations and algorithms for outlier ensembles, SIGKDD Explor. 17 (2015)
        24, doi:10.1145/2830544.2830549 (standardised scores)

    Args:
        shape: the shape of one event.
        member: what makes one member, given `shape`, `context` and `optimizer`.
        members: M.
        context, optimizer: see `Detector`; the scaling is the members'.

    Raises:
        ValueError: if there is no member.

    Example:
        >>> from functools import partial
        >>> from straylight.detectors import AutoEncoder
        >>> ensemble = Ensemble((2,), member=partial(AutoEncoder, hidden=[8], latent=1), members=3)
        >>> ensemble(torch.zeros(5, 2)).shape, ensemble.member_scores(torch.zeros(5, 2), torch.zeros(5, 0)).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    centre: Tensor
    width: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        member: Callable[..., Detector],
        members: int = 8,
        context: int = 0,
        optimizer: Optimization | None = None,
    ) -> None:
        checks.counts("detector", members=members)
        built = [member(shape=shape, context=context, optimizer=optimizer) for _ in range(members)]
        first = built[0]
        super().__init__(shape, context=context, scaling=first.scaling.method, optimizer=optimizer)
        for one in built:
            one.scaling = self.scaling  # fitted once, for all
        self.selects, self.one_pass, self.explained_by = first.selects, first.one_pass, first.explained_by
        self.register_buffer("centre", torch.zeros(members))
        self.register_buffer("width", torch.ones(members))
        self.size = members
        self.stacked = members > 1 and first.rowwise and stackable(first)
        self.rows_at_once = max(1, first.rows_at_once // members) if self.stacked else first.rows_at_once
        if self.stacked:
            stack(built)
        self.alternates = not self.stacked  # each in its turn
        self.members = nn.ModuleList(built[:1] if self.stacked else built)

    # training

    def training_step(self, group: Group, batch_idx: int) -> None:
        if not self._fitted:
            return super().training_step(group, batch_idx)
        for member in self._detectors:
            member.training_step(group, batch_idx)
        return None

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        if not self.stacked:
            return _mean([member.step(batch, optimizer, share) for member in self._detectors])
        losses = self.losses(batch)
        # the mean over the rows of all: times M, each member has the gradient of its own mean
        self.descend_on(losses["loss"] * self.size, optimizer, share)
        return losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not self.stacked:
            return _mean([member.losses(batch) for member in self._detectors])
        x, y, context, weight, index = batch
        n = self.size
        weight = weight[:1].expand(n * len(x)) if batch.even else weight.repeat(n)
        rows = Batch(self._repeat(x), y.repeat(n), self._repeat(context), weight, index.repeat(n))
        return self._detectors[0].losses(rows)

    def _repeat(self, rows: Tensor) -> Tensor:
        """The rows of each member one after the other, `(B, ...)` to `(M * B, ...)`."""
        return rows.expand(self.size, *rows.shape).flatten(0, 1)

    def clip_gradients(self, optimizer: Any, largest: float) -> Tensor:  # type: ignore[override]
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factors = (largest / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))
        return norms.mean()

    def watch(self, means: dict[str, float]) -> None:
        self._detectors[0].watch(means)

    # scoring

    def member_scores(self, x: Tensor, context: Tensor) -> Tensor:
        """The scores of all members for scaled events, `(B, *shape)` and `(B, C)` to `(B, M)`."""
        if not self.stacked:
            with torch.autocast(x.device.type, enabled=not self._fitted and torch.is_autocast_enabled(x.device.type)):
                return torch.stack([member.told(x, context) for member in self._detectors], 1)
        return self._detectors[0].score(self._repeat(x), self._repeat(context)).view(self.size, -1).T.contiguous()

    def standardised(self, scores: Tensor) -> Tensor:
        """Scores of members in units of their own spread over training rows, `(B, M)` to the same."""
        return (scores - self.centre) / self.width

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return self.standardised(self.member_scores(x, context)).mean(1)

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        each = self._parts_of_all(x, context) if self.stacked else [m.told_parts(x, context) for m in self._detectors]
        if any(one is None for one in each):
            return None
        own = cast(list[Parts], each)
        baselines = torch.stack([torch.as_tensor(one.baseline, device=x.device).expand(len(x)) for one in own], 1)
        of = sum(one.of / width for one, width in zip(own, self.width, strict=True)) / self.size
        return Parts(cast(Tensor, of), self.standardised(baselines).mean(1), f"to every member {own[0].words}")

    def _parts_of_all(self, x: Tensor, context: Tensor) -> list[Parts | None]:
        found = self._detectors[0].parts(self._repeat(x), self._repeat(context))
        if found is None:
            return [None]
        baselines = torch.as_tensor(found.baseline, device=x.device).expand(self.size * len(x)).split(len(x))
        return [Parts(of, own, found.words) for of, own in zip(found.of.split(len(x)), baselines, strict=True)]

    @property
    def last_phase(self) -> bool:
        return self._detectors[0].last_phase

    def _scored(self, batch: Batch) -> Scored:
        members = self.standardised(self._in_parts(batch.x, batch.context).float())
        if sound(members):
            return Scored(batch.index, members.mean(1), batch.y, members)
        strange = absurd(batch.x, self.scaling(batch.x), self.scaling, batch.context)
        return Scored(batch.index, finite(members.mean(1), strange), batch.y, finite(members, strange))

    def _in_parts(self, x: Tensor, context: Tensor) -> Tensor:
        """`member_scores` of events in the data's own units, a slice at a time."""
        parts = zip(x.split(self.rows_at_once), context.split(self.rows_at_once), strict=True)
        return torch.cat([self.member_scores(self.scaling(x), context) for x, context in parts])

    @torch.no_grad()
    def _standardise(self) -> None:
        """Set mean and standard deviation of each member's scores by training rows."""
        if getattr(self._detectors[0], "tail", None) is not None:
            return
        x, context = (rows.to(self.device) for rows in self.training_sample(SAMPLE))
        scores = self._in_parts(x, context).double()
        self.centre.copy_(scores.mean(0))
        width = scores.std(0, correction=0)
        self.width.copy_(torch.where(width > 0, width, 1))

    # hooks, handed on to the members

    @property
    def _detectors(self) -> list[Detector]:
        return cast(list[Detector], list(self.members))

    @property
    def _fitted(self) -> bool:
        return isinstance(self._detectors[0], FittedDetector)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for number, member in enumerate(self._detectors):
            member.trainer = self.trainer
            member.notices = self.notices  # what all of them say is said once
            member._steps = self._steps  # one mini-batch is one step, however many take it
            member.on_fit_start()
            member._noise_seed = ((self._noise_seed or 0) * 1_000_003 + number) % 2**31  # no two seeds share a member

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for member in self._detectors:
            member.on_train_epoch_start()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self._fitted:
            for member in self._detectors:
                member.on_train_epoch_end()
        # an epoch that cannot be chosen need not be scored, which may be dear
        if self.selects or self.trainer.should_stop or self.done in (None, 1):
            training = self.training
            self.eval()
            self._standardise()
            self.train(training)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["members"] = [{} for _ in self._detectors]
        for member, own in zip(self._detectors, checkpoint["members"], strict=True):
            member.on_save_checkpoint(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for member, own in zip(self._detectors, checkpoint["members"], strict=True):
            member.on_load_checkpoint(own)


def _mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over members of each loss."""
    return {name: torch.stack([one[name].detach() for one in losses]).mean() for name in losses[0]}
