"""What each feature adds to a score, by whatever method its detector is taken apart.

Shapes: `N` events, `M` references, `D` numbers in an event, `K` groups of them, `*shape` one event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from straylight.detectors import Detector
from straylight.detectors.finite import absurd
from straylight.errors import ConfigError
from straylight.explain.gradients import STEPS, integrated_gradients
from straylight.explain.shapley import EVALUATIONS, shapley

Method = Literal["auto", "exact", "gradients", "shapley"]
#: How far contributions and baseline may be off the score: by as much of the numbers that they are sums of.
TOLERANCE = 1e-9
AT_ONCE = 16384  # rows that are scored together, at most
OFF = 1e-3  # of the score, that parts of an absurd row may be off it
PATCHES = 256  # of an image, that are told apart by sampling


class Contributions(NamedTuple):
    """What features add to scores: `score = baseline + of.sum(1)`, to within 1e-9 of the largest of them.

    Attributes:
        of: `(N, K)` float64, in units of the score.
        baseline: `(N,)`, the mean score of the references, or what a score is where no part adds anything.
        score: as the detector gives it, `(N,)` float64.
        remainder: what rounding, or the steps along a path, left between the sum and the score, `(N,)`. It is spread
            over the features by the size of what they add.
        method: `exact`, `gradients` or `shapley`.
        words: what an event is like whose score is the baseline; empty where that is the references.
    """

    of: NDArray[np.float64]
    baseline: NDArray[np.float64]
    score: NDArray[np.float64]
    remainder: NDArray[np.float64]
    method: str
    words: str


def contributions(
    detector: Detector,
    x: ArrayLike | Tensor,
    context: ArrayLike | Tensor | None = None,
    *,
    groups: ArrayLike | None = None,
    reference: ArrayLike | Tensor | None = None,
    method: Method = "auto",
    evaluations: int = EVALUATIONS,
    seed: int = 0,
) -> Contributions:
    """What each feature, or group of them, adds to the score of each event above that of its references.

    * `exact`: the score is a sum over features, and its parts are what the sum is of, less those of the references.
    * `gradients`: integrated on the straight way from each reference, see `straylight.explain.gradients`.
    * `shapley`: of mixtures of the event and its references, see `straylight.explain.shapley`.
    * `auto`: see `usual`.

    Scaled features are taken apart, which are the features themselves: of a scaling that mixes them, `unit`, `gcn_l1`
    or `gcn_l2`, those behind it. Principal components that a detector looks at in their place (`detector.reduce`) are
    computed of each mixture, or each point of a way: what is told apart are features still, and never `exact`. The
    context stays the event's own.

    Args:
        detector: trained, in evaluation mode.
        x, context: events in the data's own units, `(N, *shape)`, and `(N, C)`.
        groups: from 0 to K - 1, which group each number of an event is of, `(D,)`; each of its own by default.
        reference: events that it is explained against, `(M, *shape)`, or of each its own, `(N, M, *shape)`; see
            `straylight.explain.nearest`. Without any only `exact` is possible.
        method: see above.
        evaluations: of `shapley`, mixtures of each event that are scored.
        seed: of `shapley`.

    Raises:
        ConfigError: if the score cannot be taken apart so, or shapes do not fit.

    Example:
        >>> from straylight.detectors import HBOS
        >>> hbos = HBOS((2,), bins=2, scaling="none")
        >>> hbos.fit(torch.tensor([[0., 0.], [1., 1.], [2., 9.], [10., 10.]]), torch.zeros(4, 0), torch.ones(4))
        >>> found = contributions(hbos, [[8.0, 1.0]])
        >>> found.of.round(4).tolist(), found.baseline.tolist(), found.method  # 3 to 1 rows, and 2 to 2
        ([[1.0986, 0.0]], [0.0], 'exact')
    """
    if method not in get_args(Method):
        raise ConfigError(f"there is no method {method!r} to explain a score by, but {', '.join(get_args(Method))}.")
    device = detector.device
    rows = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x, np.float32), device=device).float()
    given = rows.new_zeros(len(rows), 0) if context is None else _tensor(context, device)
    shape = tuple(detector.event_shape)
    if rows.shape[1:] != shape or given.shape != (len(rows), detector.context):
        raise ConfigError(
            f"this detector scores events of shape {shape} with {detector.context} columns of context, not "
            f"{tuple(rows.shape[1:])} with {tuple(given.shape[1:])}."
        )
    places = torch.arange(math.prod(shape)) if groups is None else torch.as_tensor(np.asarray(groups))
    if places.shape != (math.prod(shape),) or int(places.min()) < 0:
        raise ConfigError(f"a group from 0 is needed for each of {math.prod(shape)} numbers of an event.")
    others = None if reference is None else _references(reference, rows, device)
    chosen = usual(detector) if method == "auto" else method
    if others is None and chosen != "exact":
        raise ConfigError(
            f"{type(detector).__name__} is explained against reference events ({chosen}), and there are none: give "
            "some training rows as reference."
        )
    n, k = len(rows), int(places.max()) + 1
    if not n:
        none = np.zeros(0)
        return Contributions(np.zeros((0, k)), none, none, none, chosen, "")
    with _still(detector):
        one = _exact if chosen == "exact" else _followed if chosen == "gradients" else _mixed
        of, baseline, words = one(detector, rows, given, others, places, evaluations, seed)
        pairs = zip(rows.split(_few(detector)), given.split(_few(detector)), strict=True)
        score = torch.cat([detector(*pair).double() for pair in pairs])
        scaled = detector.scaling.featurewise(rows)
    found, base, total = (part.cpu().numpy().astype(np.float64) for part in (of, baseline, score))
    beyond = absurd(rows, scaled, detector.scaling.featurewise, given).cpu().numpy()
    far = np.abs(scaled.double().flatten(1).cpu().numpy())
    return Contributions(*_settled(found, base, total, beyond, far, places.numpy()), chosen, words)


def usual(detector: Detector) -> Literal["exact", "gradients", "shapley"]:
    """By what method a detector is explained if none is asked for: what it says of itself, unless it looks at principal
    components, a sum over which is none over features.

    Example:
        >>> from straylight.detectors import HBOS
        >>> usual(HBOS((2,))), usual(HBOS((2,), reduce=1))
        ('exact', 'shapley')
    """
    reduced = detector.scaling.featurewise is not detector.scaling
    return "shapley" if reduced and detector.explained_by == "exact" else detector.explained_by


def explained_in(detector: Detector, references: int = 4) -> int:
    """How many events are scored to explain one, about; a gradient counts as two.

    Example:
        >>> from straylight.detectors import HBOS
        >>> explained_in(HBOS((2,)))
        5
    """
    each = {"exact": 1 + references, "gradients": 3 * STEPS[0] * references, "shapley": EVALUATIONS}
    return each[usual(detector)]


def _exact(
    detector: Detector, x: Tensor, context: Tensor, others: Tensor | None, groups: Tensor, *_: int
) -> tuple[Tensor, Tensor, str]:
    """Contributions `(N, K)`, baselines `(N,)`, and what such an event is like."""
    if usual(detector) != detector.explained_by:
        raise ConfigError(
            f"this {type(detector).__name__} looks at principal components (detector.reduce), so that its score is no "
            "sum over features; explain it by shapley."
        )
    parts, bases, words = [], [], ""
    size = _few(detector)
    for i in range(0, len(x), size):
        rows, own = detector.scaling.featurewise(x[i : i + size]), context[i : i + size]
        found = detector.told_parts(rows, own)
        if found is None:
            raise ConfigError(
                f"the score of this {type(detector).__name__} is no sum over features; explain it by "
                f"{'gradients' if detector.explained_by == 'exact' else detector.explained_by}."
            )
        words = found.words
        each = [found]
        if others is not None:
            words = ""
            behind = (detector.scaling.featurewise(others[i : i + size, j]) for j in range(others.shape[1]))
            each = [one for reference in behind if (one := detector.told_parts_from(reference, rows, own))]
        of = torch.stack([one.of.double() for one in each]).mean(0)
        base = torch.stack([torch.as_tensor(one.baseline).double().expand(len(rows)) for one in each]).mean(0)
        parts.append(_summed(of, groups))
        bases.append(base.to(x.device))
    return torch.cat(parts), torch.cat(bases), words


def _followed(
    detector: Detector, x: Tensor, context: Tensor, others: Tensor | None, groups: Tensor, *_: int
) -> tuple[Tensor, Tensor, str]:
    assert others is not None
    if not _has_gradient(detector, x[:1], context[:1]):
        raise ConfigError(
            f"the score of this {type(detector).__name__} has no gradient; explain it by {detector.explained_by}."
        )
    of, base = [], []
    for i in range(0, len(x), 256):
        rows = detector.scaling.featurewise(x[i : i + 256])
        behind = detector.scaling.featurewise(others[i : i + 256].flatten(0, 1)).unflatten(0, (len(rows), -1))
        found = integrated_gradients(_score(detector), rows, context[i : i + 256], behind, _few(detector))
        of.append(_summed(found[0], groups))
        base.append(found[1])
    return torch.cat(of), torch.cat(base), ""


def _has_gradient(detector: Detector, x: Tensor, context: Tensor) -> bool:
    """Whether the score follows its features smoothly, which comparisons and searches do not."""
    with torch.inference_mode(False), torch.enable_grad():
        scaled = detector.scaling.featurewise(x.clone()).clone().detach().requires_grad_()
        return _score(detector)(scaled, context.clone()).requires_grad


def _mixed(
    detector: Detector, x: Tensor, context: Tensor, others: Tensor | None, groups: Tensor, evaluations: int, seed: int
) -> tuple[Tensor, Tensor, str]:
    assert others is not None
    told = _patches(groups, detector.event_shape)
    of, base = [], []
    for i in range(0, len(x), 256):
        rows = detector.scaling.featurewise(x[i : i + 256])
        behind = detector.scaling.featurewise(others[i : i + 256].flatten(0, 1)).unflatten(0, (len(rows), -1))
        own = context[i : i + 256]
        found = shapley(_score(detector), rows, own, behind, told, _few(detector), evaluations=evaluations, seed=seed)
        of.append(found[0])
        base.append(found[1])
    values = torch.cat(of)
    if told is not groups:  # pixels of a patch share alike
        each = torch.bincount(told).double().to(values.device)
        values = _summed((values / each)[:, told.to(values.device)], groups)
    return values, torch.cat(base), ""


def _score(detector: Detector) -> Callable[[Tensor, Tensor], Tensor]:
    """The score of scaled features."""
    return lambda rows, context: detector.told(detector.scaling.onward(rows), context)


def _patches(groups: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Groups, of an image of more pixels than can be told apart by sampling those of square patches."""
    k = int(groups.max()) + 1
    if k <= PATCHES or len(shape) != 3 or k != shape[1] * shape[2]:
        return groups
    side = math.ceil(math.sqrt(k / PATCHES))
    row, column = torch.arange(shape[1])[:, None] // side, torch.arange(shape[2])[None] // side
    patch = row * (int(column.max()) + 1) + column
    return patch.expand(shape).flatten()


def _summed(of: Tensor, groups: Tensor) -> Tensor:
    flat = of.flatten(1)
    return flat.new_zeros(len(flat), int(groups.max()) + 1).index_add_(1, groups.to(flat.device), flat)


def _settled(
    of: NDArray[np.float64],
    baseline: NDArray[np.float64],
    score: NDArray[np.float64],
    beyond: NDArray[np.bool_],
    far: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Contributions that sum to the score less the baseline, what remained spread by the size of what each adds.

    Of a row with a feature beyond all reason (`beyond`), whose parts overflow or whose score is held at the largest
    number, it is such features that say why: each adds as much as it is far.
    """
    baseline = np.where(np.isfinite(baseline), baseline, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(score - baseline - of.sum(1)) > OFF * (np.abs(score) + np.abs(baseline))
    wild = ~np.isfinite(of).all(1) | (beyond & off)
    if wild.any():
        most = np.nan_to_num(far[wild], nan=0.0, posinf=float(np.finfo(np.float32).max))
        shares = np.zeros((int(wild.sum()), of.shape[1]))
        np.add.at(shares.T, groups, most.T)
        of[wild] = shares / shares.sum(1, keepdims=True) * (score[wild] - baseline[wild])[:, None]
    remainder = score - baseline - of.sum(1)
    size = np.abs(of)
    total = size.sum(1, keepdims=True)
    shares = np.where(total > 0, size / np.where(total > 0, total, 1), 1 / of.shape[1])
    return of + remainder[:, None] * shares, baseline, score, remainder


def _references(reference: ArrayLike | Tensor, x: Tensor, device: torch.device) -> Tensor:
    given = _tensor(reference, device)
    if given.ndim == x.ndim:
        given = given.expand(len(x), *given.shape)
    if given.shape[:1] != x.shape[:1] or given.shape[2:] != x.shape[1:] or not given.shape[1]:
        raise ConfigError(
            f"references of shape {tuple(given.shape)} do not fit events of shape {tuple(x.shape)}: (M, *shape), or "
            "(N, M, *shape)."
        )
    return given


def _tensor(given: ArrayLike | Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given, np.float32), device=device).float()


def _few(detector: Detector) -> int:
    return max(1, min(AT_ONCE, detector.rows_at_once))


@contextmanager
def _still(detector: Detector) -> Iterator[None]:
    """Nothing is trained and no weight has a gradient meanwhile."""
    training = detector.training
    moved = [p for p in detector.parameters() if p.requires_grad]
    detector.eval()
    for p in moved:
        p.requires_grad_(False)
    try:
        with torch.no_grad(), torch.autocast(detector.device.type, enabled=False):
            yield
    finally:
        for p in moved:
            p.requires_grad_(True)
        detector.train(training)
