"""Several of one detector, trained side by side, and their mean.

Shapes: `B` events, `M` members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from straylight.batch import Batch, Group, Scored
from straylight.detectors.base import Detector
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.grouped import GroupedTraining
from straylight.nn import Optimization

SAMPLE = 4096  # training rows that scores are standardised by


class Ensemble(Detector):
    """M detectors that differ by their initial weights, scored by the mean of their standardised scores.

    score(x) = mean_m (s_m(x) - mean s_m) / std s_m, with mean and standard deviation over training rows. The members'
    own scores, whose spread says how far one trained detector can be trusted, come from `member_scores` and are kept in
    `scores.parquet` as `member_0`, `member_1`, ...

    All members see the same mini-batches. Where the detector allows it, their parameters are stacked and one pass
    trains them all, each down its own gradient; otherwise each takes its step in turn. Gradients are clipped member by
    member.

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
    _detectors: list[Detector]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        member: Callable[..., Detector],
        members: int = 8,
        context: int = 0,
        optimizer: Optimization | None = None,
    ) -> None:
        if members < 1:
            raise ValueError(f"detector.members must be positive, not {members}")
        built = [member(shape=shape, context=context, optimizer=optimizer) for _ in range(members)]
        first = built[0]
        super().__init__(shape, context=context, scaling=first.scaling.method, optimizer=optimizer)
        for one in built:
            one.scaling = self.scaling  # fitted once, for all
        self.selects, self.rows_at_once = first.selects, first.rows_at_once
        self.register_buffer("centre", torch.zeros(members))
        self.register_buffer("width", torch.ones(members))
        self.stack = Stack(built) if Stack.takes(first) else None
        self.members = nn.ModuleList([] if self.stack else built)
        self.alternates = not self.stack  # each in its turn
        # past nn.Module, since the parameters of a pattern are nobody's
        self.__dict__["_detectors"] = [first] if self.stack else built

    # training

    def training_step(self, group: Group, batch_idx: int) -> None:
        if not self._fitted:
            return super().training_step(group, batch_idx)
        for member in self._detectors:
            member.training_step(group, batch_idx)
        return None

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        if self.stack is None:
            return _mean([member.step(batch, optimizer, share) for member in self._detectors])
        losses = self.stack(lambda member: member.losses(batch))
        self.descend_on(losses["loss"].sum(), optimizer, share)
        return {name: loss.detach().mean() for name, loss in losses.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.stack is None:
            return _mean([member.losses(batch) for member in self._detectors])
        return {name: loss.mean() for name, loss in self.stack(lambda member: member.losses(batch)).items()}

    def clip_gradients(self, optimizer: Any, largest: float) -> None:  # type: ignore[override]
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factors = (largest / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))

    def watch(self, means: dict[str, float]) -> None:
        self._detectors[0].watch(means)

    # scoring

    def member_scores(self, x: Tensor, context: Tensor) -> Tensor:
        """The scores of all members for scaled events, `(B, *shape)` and `(B, C)` to `(B, M)`."""
        if self.stack is None:
            return torch.stack([member.score(x, context) for member in self._detectors], 1)
        return self.stack(lambda member: {"score": member.score(x, context)})["score"].T

    def standardised(self, scores: Tensor) -> Tensor:
        """The mean of standardised scores, `(B, M)` to `(B,)`."""
        return ((scores - self.centre) / self.width).mean(1)

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return self.standardised(self.member_scores(x, context))

    def _scored(self, batch: Batch) -> Scored:
        parts = zip(batch.x.split(self.rows_at_once), batch.context.split(self.rows_at_once), strict=True)
        members = torch.cat([self.member_scores(self.scaling(x), context).float() for x, context in parts])
        return Scored(batch.index, self.standardised(members), batch.y, members)

    @torch.no_grad()
    def _standardise(self) -> None:
        """Set mean and standard deviation of each member's scores by training rows."""
        x, context = (rows.to(self.device) for rows in self.trainer.datamodule.training_sample(SAMPLE))  # type: ignore[attr-defined]
        parts = zip(x.split(self.rows_at_once), context.split(self.rows_at_once), strict=True)
        scores = torch.cat([self.member_scores(self.scaling(x), context).double() for x, context in parts])
        self.centre.copy_(scores.mean(0))
        width = scores.std(0, correction=0)
        self.width.copy_(torch.where(width > 0, width, 1))

    # hooks, handed on to the members

    @property
    def _fitted(self) -> bool:
        return isinstance(self._detectors[0], FittedDetector)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for number, member in enumerate(self._detectors):
            member.trainer = self.trainer
            member._steps = self._steps  # one mini-batch is one step, however many take it
            member.on_fit_start()
            member._noise_seed = (self._noise_seed or 0) + number

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for member in self._detectors:
            member.on_train_epoch_start()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self._fitted:
            for member in self._detectors:
                member.on_train_epoch_end()
        trainer = self.trainer
        last = trainer.should_stop or self.steps_taken >= self.total_steps() if not self.selects else True
        if last:  # an epoch that cannot be chosen need not be scored, which may be dear
            training = self.training
            self.eval()
            self._standardise()
            self.train(training)

    def train(self, mode: bool = True) -> Ensemble:
        super().train(mode)
        for member in self.__dict__.get("_detectors", ()):
            member.train(mode)
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["members"] = [{} for _ in self._detectors]
        for member, own in zip(self._detectors, checkpoint["members"], strict=True):
            member.on_save_checkpoint(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for member, own in zip(self._detectors, checkpoint["members"], strict=True):
            member.on_load_checkpoint(own)


class Stack(nn.Module):
    """The parameters of M like detectors, joined so that one call computes for all of them.

    Args:
        members: detectors of one class and one set of widths, whose `losses` change none of their buffers.
    """

    def __init__(self, members: list[Detector]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(members)  # type: ignore[arg-type]
        # a dot in a name would be taken for a module inside a module
        self.own = nn.ParameterDict({_key(name): nn.Parameter(p.detach()) for name, p in parameters.items()})
        self.fixed = nn.Module()
        for name, buffer in buffers.items():
            if not name.startswith("scaling."):
                self.fixed.register_buffer(_key(name), buffer)
        self.__dict__["_pattern"] = _Calls(members[0])  # past nn.Module: its own parameters are nobody's

    def forward(self, what: Callable[[Detector], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What a function of a detector returns for each of them, each value with a leading axis of M."""
        state = {**dict(self.own.items()), **dict(self.fixed.named_buffers())}

        def call(one: dict[str, Tensor]) -> dict[str, Tensor]:
            return functional_call(self._pattern, {_name(key): value for key, value in one.items()}, (what,))

        return vmap(call, randomness="different")(state)

    @classmethod
    @torch.no_grad()
    def takes(cls, detector: Detector) -> bool:
        """Whether members like this one can be stacked: they take plain steps, and torch can map their loss."""
        if type(detector).step is not GroupedTraining.step or not list(detector.parameters()):
            return False
        if any(isinstance(module, nn.modules.batchnorm._NormBase) for module in detector.modules()):
            return False
        x = torch.zeros(2, *detector.shape)
        even = torch.ones(1).expand(2)
        batch = Batch(x, torch.full((2,), -1), x.new_zeros(2, detector.context), even, torch.arange(2))
        before = {name: buffer.clone() for name, buffer in detector.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            try:
                detector.eval()
                cls([detector, detector])(lambda member: member.losses(batch))
            except (RuntimeError, ValueError, NotImplementedError):
                return False
            finally:
                detector.train()
        return all(torch.equal(buffer, before[name]) for name, buffer in detector.named_buffers())


class _Calls(nn.Module):
    """Lets `functional_call`, which calls a module's forward, call any method of a detector."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, what: Callable[[Detector], dict[str, Tensor]]) -> dict[str, Tensor]:
        return what(self.detector)


def _key(name: str) -> str:
    return name.replace(".", "/")


def _name(key: str) -> str:
    return f"detector.{key.replace('/', '.')}"


def _mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over members of each loss."""
    return {name: torch.stack([one[name].detach() for one in losses]).mean() for name in losses[0]}
