"""Detectors of over-densities: too many events where many are expected, each of them ordinary by itself.

Shapes: `B` events, `N` training rows, `K` models, `C` context columns, `*shape` one event.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError, Interrupted
from straylight.rows.folds import folds_of
from straylight.rows.resonance import Resonance, Truth
from straylight.stopping import STOP

Folds = int | Literal["forward"] | None
FOLDS = 5  # of `forward`
PRIMES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class HeldOut(NamedTuple):
    """Scores of events by models that have not seen them.

    Attributes:
        score: `(B,)` float32; NaN where every model that there is has seen the event, or comes after it.
        fold: that of an event that was trained on, `(B,)` int64; -1 of any other, which the mean of all models scores.
    """

    score: Tensor
    fold: Tensor


@dataclass(frozen=True)
class Rows:
    """What models are made of: scaled events with their context, and where they may be used.

    Attributes:
        x, context, weight: `(N, D)`, `(N, C)`, `(N,)`.
        inside: whether they are in the signal region, `(N,)`.
        seen: which of them each model may see, `(K, N)`.
    """

    x: Tensor
    context: Tensor
    weight: Tensor
    inside: Tensor
    seen: Tensor

    def of(self, k: int, inside: bool | None = None) -> Tensor:
        """Places of the rows that model k may see, of the signal region or of the sidebands if it is said."""
        chosen = self.seen[k]
        if inside is not None:
            chosen = chosen & (self.inside if inside else ~self.inside)
        return chosen.nonzero().flatten()


class OverDensity(FittedDetector):
    """Base of detectors of over-densities. A subclass writes `learn` and `each`.

    The data set names a resonant variable, a column of the context, and a signal region in it. What makes events of the
    region unlike those of the sidebands, at equal mass, is taken for a signal. Every event is scored, and none by a
    model that was told which region it is in: rows are dealt to K folds, and each model sees all folds but one. An
    event that was trained on is scored by the model that has not seen it; any other by the mean of all. Which events
    were trained on is known by a hash of their features, which goes into the checkpoint.

    By `folds="forward"` fold j is scored by a model of the folds before it alone, and the first fold by none. Between
    two folds of K, what one has by chance makes the other's model, and the other way round, so that a chance agreement
    counts twice: K-fold scores rank well, and p-values want forward folds.

    Args:
        shape: the shape of one event; it is flattened to D features.
        folds: K, two or more; `forward` for five of them that are scored by those before; `None` for a single model of
            all rows, whose scores of these rows mean nothing.
        common: `context`, `scaling`, see `Detector`.

    Raises:
        ValueError: if the folds are no such number, or there is no context.
        DataError: in training, if the data set has no signal region, or a region has too few rows.

    References:
        J. H. Collins, K. Howe, B. Nachman, Anomaly detection for resonant new physics with machine learning, Phys. Rev.
        Lett. 121 (2018) 241803, arXiv:1805.02664 (of the folds)
        G. Kasieczka et al., The LHC Olympics 2020, Rep. Prog. Phys. 84 (2021) 124201, arXiv:2101.08320
    """

    explained_by: Literal["exact", "gradients", "shapley"] = "shapley"
    #: Whether it reads which events are signal, which nobody knows of real data.
    sees_truth = False
    #: Whether it needs rows of the sidebands.
    needs_sidebands = True
    tries_score = False
    sized_by_data = ("keys", "fold")
    keys: Tensor
    fold: Tensor

    def __init__(self, shape: tuple[int, ...], *, folds: Folds = 5, **common: Any) -> None:
        super().__init__(shape, **common)
        if self.calibrate is not None:
            raise ValueError("detector.calibrate is not for over-densities, whose folds are their own")
        if not self.context:
            raise ValueError(
                f"{type(self).__name__} looks for a resonance, and the data set has no context that holds its mass: "
                "choose data=bump or data=lhco, or set data.resonance=COLUMN of data=file"
            )
        self.direction: Literal["all", "forward", "none"]
        if folds is None:
            self.direction, self.folds = "none", 1
        elif folds == "forward":
            self.direction, self.folds = "forward", FOLDS
        elif isinstance(folds, int) and not isinstance(folds, bool) and folds >= 2:
            self.direction, self.folds = "all", folds
        else:
            raise ValueError(f"detector.folds must be 2 or more, forward or null, not {folds!r}")
        self.models = self.folds - 1 if self.direction == "forward" else self.folds
        self.features = math.prod(self.shape)
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))  # of the rows that were trained on, in order
        self.register_buffer("fold", torch.empty(0, dtype=torch.int16))

    # what a subclass writes

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        """Make the K models.

        Args:
            rows: the training rows.
            truth: background and signal of the signal region, for a yardstick alone; `inside` says which are signal.
        """
        raise NotImplementedError(f"{type(self).__name__} must write learn(rows, truth)")

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        """The score by each model of scaled events of its own, `(K, B, D)` and `(K, B, C)` to `(K, B)`."""
        raise NotImplementedError(f"{type(self).__name__} must write each(x, context)")

    # training

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        resonance: Resonance | None = getattr(data, "resonance", None)
        if resonance is None:
            raise DataError(
                f"{type(self).__name__} looks for a resonance, and {data.name} names none: choose data=bump or "
                "data=lhco, or set data.resonance=COLUMN and data.signal_region=[LOW,HIGH] of data=file."
            )
        known: Truth | None = data.truth() if self.sees_truth else None
        parts = [rows for rows, _ in self.training_rows()] + [part.x for part in known or ()]
        keys = torch.cat([_keys(part) for part in parts])
        group = getattr(getattr(data.splits, "train", None), "meta", {}).get("group")
        fold = torch.from_numpy(self._dealt(keys.numpy(), len(x), group)).to(x.device)
        seen = self._seen(fold)
        rows = Rows(x.flatten(1), context, weight, resonance.holds(context), seen[:, : len(x)])
        truth = None if known is None else self._truth(known, seen[:, len(x) :], x.device)
        self._check(rows, resonance, data.name)
        if known is not None:
            self.notice(f"{type(self).__name__} was told which events are signal: a yardstick, and no result.")
        self.learn(rows, truth)
        order = keys.argsort(stable=True)
        self.keys, self.fold = keys[order].to(x.device), fold.cpu()[order].to(torch.int16).to(x.device)

    def _dealt(self, keys: NDArray[np.int64], rows: int, group: NDArray | None) -> NDArray[np.int64]:
        """The fold of each row; rows that are equal, and those of one group, are in one."""
        if self.direction == "none":
            return np.zeros(len(keys), np.int64)
        alike = np.unique(keys, return_inverse=True)[1].ravel()
        if group is not None:  # what is linked by equal rows or by groups, over however many of them
            own = alike.max(initial=-1) + 1 + np.unique(group, return_inverse=True)[1].ravel()
            n = int(own.max(initial=-1)) + 1
            linked = coo_array((np.ones(rows, np.int8), (alike[:rows], own)), shape=(n, n))
            alike = connected_components(linked, directed=False)[1][alike]
        fold = folds_of(len(keys), self.folds, self.seed, alike)
        if len(np.unique(fold[:rows])) < self.folds:
            raise DataError(
                f"There are fewer events, or groups of them, than the {self.folds} folds of detector.folds: lower it."
            )
        return fold

    def _seen(self, fold: Tensor) -> Tensor:
        """Which rows each model may see, `(K, N)`."""
        number = torch.arange(self.models, device=fold.device)[:, None]
        match self.direction:
            case "forward":
                return fold <= number  # model j - 1 scores fold j
            case "all":
                return fold != number
        return torch.ones(1, len(fold), dtype=torch.bool, device=fold.device)

    def _truth(self, truth: Truth, seen: Tensor, device: torch.device) -> Rows:
        x = torch.cat([part.x.to(device) for part in truth])
        context = torch.cat([part.context for part in truth]).to(device)
        weight = torch.cat([part.weight for part in truth]).to(device)
        signal = torch.arange(len(x), device=device) >= len(truth.background)
        return Rows(self.scaling(x).flatten(1), context, weight, signal, seen)

    def _check(self, rows: Rows, resonance: Resonance, name: str) -> None:
        where = f"the signal region, {resonance.low:g} <= {resonance.name} <= {resonance.high:g}"
        for inside, what in ((True, where), (False, f"the sidebands, beside {where}")):
            least = min(len(rows.of(k, inside)) for k in range(self.models))
            if least < 2 and (inside or self.needs_sidebands):
                more = "" if inside else ", or set data.region=both"
                raise DataError(
                    f"{name}: a model of {type(self).__name__} has {least} training rows of {what}, and needs two or "
                    f"more; set another data.signal_region{more}."
                )

    def tell(self, what: str) -> None:
        """Say how far it is, where somebody watches the Trainer; the end may have been asked for.

        Raises:
            Interrupted: if so.
        """
        if STOP.asked:
            raise Interrupted
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if callable(step := getattr(callback, "step", None)):
                step(f"fitting {type(self).__name__}  {what}")

    # scoring

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        """By the mean of all models, as events that nobody has trained on."""
        both = x.flatten(1), context
        if self.traced:  # an expansion would compute with shapes
            return self.each(*(torch.stack([rows] * self.models) for rows in both)).mean(0)
        return self.each(*(rows.expand(self.models, *rows.shape) for rows in both)).mean(0)

    def as_computed(self, x: Tensor, scaled: Tensor, context: Tensor | None = None) -> Tensor:
        if self.traced or context is None or not len(self.keys):
            return super().as_computed(x, scaled, context)
        held = self._held_out(x, scaled, context)
        return torch.where(held.score.isnan(), -torch.finfo(held.score.dtype).max, held.score)

    @torch.no_grad()
    def held_out(self, x: Tensor, context: Tensor) -> HeldOut:
        """Scores by models that have not seen the events, in the data's own units, `(B, *shape)` and `(B, C)`."""
        parts = zip(x.split(self.rows_at_once), context.split(self.rows_at_once), strict=True)
        found = [self._held_out(own, self.scaling(own), given) for own, given in parts]
        return HeldOut(*(torch.cat(column) for column in zip(*found, strict=True)))

    def unscored(self, x: Tensor) -> Tensor:
        """Which events have no score that means anything, as every model has seen them, `(B, *shape)` to `(B,)`."""
        return self._fold_of(x) == 0 if self.direction == "forward" else torch.zeros(len(x), dtype=torch.bool)

    def _held_out(self, x: Tensor, scaled: Tensor, context: Tensor) -> HeldOut:
        fold, rows = self._fold_of(x), scaled.flatten(1)
        own = {"all": fold, "forward": fold - 1, "none": torch.full_like(fold, -1)}[self.direction]
        places = [(own == k).nonzero().flatten() for k in range(self.models)]
        score = torch.full((len(rows),), math.nan, device=rows.device)
        with torch.autocast(x.device.type, enabled=False):
            new = (fold < 0).nonzero().flatten()
            if len(new):
                score[new] = self.score(rows[new], context[new])
            if longest := max(map(len, places)):  # each model has events of its own
                asked = torch.stack([torch.nn.functional.pad(some, (0, longest - len(some))) for some in places])
                for some, found in zip(places, self.each(rows[asked], context[asked]), strict=True):
                    score[some] = found[: len(some)]
        return HeldOut(score, fold)

    def _fold_of(self, x: Tensor) -> Tensor:
        """The fold of each event that was trained on, `(B,)` int64, and -1 of any other."""
        if not len(self.keys):
            return torch.full((len(x),), -1, device=x.device)
        keys = _keys(x).to(self.keys.device)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.fold[place].long(), -1).to(x.device)


def _keys(x: Any) -> Tensor:
    """A hash of each event's features, `(B, *shape)` to `(B,)` int64, on the CPU; equal events have equal ones."""
    rows = x.detach().to("cpu", torch.float32).flatten(1).numpy() + np.float32(0)  # of zero there are two
    words = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
    found = np.full(len(words), PRIMES[2])
    with np.errstate(over="ignore"):
        for column in words.T:  # of FNV's kind, with the mixing of SplitMix64
            found = (found ^ (column * PRIMES[0])) * PRIMES[1]
            found ^= found >> np.uint64(29)
    return torch.from_numpy(found.view(np.int64))


def resampled(context: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Contexts drawn from some with replacement, `(M, C)` to `(n, C)`."""
    return context[torch.randint(len(context), (n,), generator=generator).to(context.device)]


def padded(parts: Sequence[Tensor], n: int) -> Tensor:
    """Rows of several, each begun anew until there are n, `(K, n, ...)`."""
    return torch.stack([part[torch.arange(n, device=part.device) % len(part)] for part in parts])
