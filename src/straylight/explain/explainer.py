"""Explanations of a trained detector's scores, against the nominal rows that it was trained on.

Shapes: `N` events, `K` features, `M` references, `*shape` one event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from straylight.detectors import Detector
from straylight.errors import ConfigError
from straylight.explain.contributions import EVALUATIONS, Contributions, Method, contributions, usual
from straylight.explain.features import Features
from straylight.explain.nearest import REFERENCES, Nominal, centre

NEAREST = "the mean score of the {} nominal training rows that are most like the event"


@dataclass(frozen=True)
class Explanation:
    """Why events have the scores that they have: `score = baseline + contributions.sum(1)`.

    Attributes:
        contributions: `(N, K)` float64, in units of the score.
        baseline: `(N,)`, what the score is without them.
        score: `(N,)`.
        features: what they are called, and of which numbers of an event each consists.
        method: `exact`, `gradients` or `shapley`; see `straylight.explain.contributions`.
        stated: what the baseline is, in words.
        remainder: what rounding or the steps along a path left between the sum and the score, `(N,)`, and was spread.
        x: the events, in the data's own units, `(N, *shape)`.
        nearest: of each the nominal row that is most like it, `(N, *shape)`; `None` where the data cannot be had.
        notices: what was done otherwise than it would be with the training rows at hand.
    """

    contributions: NDArray[np.float64]
    baseline: NDArray[np.float64]
    score: NDArray[np.float64]
    features: Features
    method: str
    stated: str
    remainder: NDArray[np.float64]
    x: NDArray[np.float32]
    nearest: NDArray[np.float32] | None = None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.score)

    @cached_property
    def values(self) -> list[list[Any]]:
        """What each feature is, `N` lists of `K` numbers, words or None; see `Features.values`."""
        return self.features.values(self.x)

    @cached_property
    def nearest_values(self) -> list[list[Any]] | None:
        """The same of the nominal rows that are most like them."""
        return None if self.nearest is None else self.features.values(self.nearest)

    def first(self, i: int, most: int) -> list[int]:
        """The features that add most to the score of an event, the largest first; of equal ones the first."""
        return np.argsort(-self.contributions[i], kind="stable")[:most].tolist()


@dataclass
class Explainer:
    """Explains the scores of a detector.

    Args:
        detector: trained.
        features: see `features_of`.
        load: returns the data set that it was trained on; raises `ConfigError` if that cannot be had.
        recipe: what a run keeps of how values were filled in, of which the medians of its training rows may be.

    Example:
        >>> from straylight.data import Blobs
        >>> from straylight.detectors import PCA
        >>> from straylight.explain import features_of
        >>> from straylight.study import study
        >>> data = Blobs(seed=0)
        >>> found = study(PCA(data.shape), data, progress=False)
        >>> explainer = Explainer(found.detector, features_of(data.shape, data.columns), lambda: data)
        >>> why = explainer(torch.tensor([[2.0, 9.0]]))
        >>> [why.features.names[k] for k in why.first(0, 1)], why.method
        (['x2'], 'exact')
    """

    detector: Detector
    features: Features
    load: Callable[[], Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    why_none: str = field(default="", init=False)

    @cached_property
    def nominal(self) -> Nominal | None:
        """The training rows that are held nominal; `None` where they cannot be had, and then `why_none` says why."""
        try:
            return Nominal.of(self.detector, self.load())
        except ConfigError as error:
            self.why_none = str(error)
            return None

    def __call__(
        self,
        x: Any,
        context: Any = None,
        *,
        method: Method = "auto",
        evaluations: int = EVALUATIONS,
        references: int = REFERENCES,
        reference: ArrayLike | None = None,
        batch_size: int = 1024,
    ) -> Explanation:
        """Explain events, `(N, *shape)` and `(N, C)`.

        Args:
            x, context: in the data's own units.
            method, evaluations: see `straylight.explain.contributions`.
            references: how many of the nearest nominal rows an event is explained against.
            reference: others to take in their place, `(M, *shape)` or `(N, M, *shape)`.
            batch_size: events that are explained together.

        Raises:
            ConfigError: if the training rows are needed and cannot be had, or see `straylight.explain.contributions`.
        """
        rows = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x, np.float32)).float()
        given = rows.new_zeros(len(rows), 0) if context is None else torch.as_tensor(np.asarray(context, np.float32))
        if rows.shape[1:] != tuple(self.detector.event_shape):
            contributions(self.detector, rows, given, method="exact")  # which refuses them
        nominal = self.nominal
        against, stated, notices = self._against(reference, references, method)
        found, near = [], []
        for i in range(0, len(rows), batch_size) or (0,):
            part = rows[i : i + batch_size]
            if nominal is not None:
                rows_near = nominal.near(part, max(1, references))
                near.append(rows_near[:, 0])
            if callable(against):
                use: Any = rows_near[:, : max(1, references)]
            else:
                use = against if against is None or against.ndim == rows.ndim else against[i : i + batch_size]
            found.append(
                contributions(
                    self.detector,
                    part,
                    given[i : i + batch_size],
                    groups=self.features.groups,
                    reference=use,
                    method=method,
                    evaluations=evaluations,
                )
            )
        columns = (np.concatenate([getattr(one, name) for one in found]) for name in Contributions._fields[:4])
        of, baseline, score, remainder = columns
        words = stated or f"the score of an event {found[0].words}"
        return Explanation(
            of,
            baseline,
            score,
            self.features,
            found[0].method,
            words,
            remainder,
            rows.numpy(),
            torch.cat(near).numpy() if near else None,
            notices,
        )

    def strongest(self, x: Tensor, context: Tensor, most: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The names of the features that add most to each score, and what they add, `(N, K)` each, K at most `most`."""
        why = self(x, context)
        places = np.argsort(-why.contributions, axis=1, kind="stable")[:, :most]
        return np.array(self.features.names, dtype=object)[places], np.take_along_axis(why.contributions, places, 1)

    def _against(
        self, reference: ArrayLike | None, references: int, method: Method
    ) -> tuple[Any, str, tuple[str, ...]]:
        """What events are explained against: of each its own rows (a function), rows for all, or nothing."""
        if reference is not None:
            given = torch.as_tensor(np.asarray(reference, np.float32))
            return given, "the mean score of the reference events that were given", ()
        if self.nominal is not None:
            return self.nominal.near, NEAREST.format(min(max(1, references), len(self.nominal.rows))), ()
        lost = f"The nearest nominal rows are left out: {self.why_none}"
        chosen = usual(self.detector) if method == "auto" else method
        if chosen == "exact":
            return None, "", (lost,)
        medians = self._medians
        middle = centre(self.detector, medians)
        if middle is None:
            raise ConfigError(
                f"a score of {type(self.detector).__name__} is explained against training rows, and {self.why_none}"
            )
        words = "median of the training rows" if medians is not None else "middle of the training rows' scaling"
        return middle, f"the score of the event at the {words}", (lost,)

    @property
    def _medians(self) -> NDArray[np.float32] | None:
        """Of the training rows, `(*shape)`, where the run filled in what was missing, and so keeps them."""
        known, columns = self.recipe.get("medians") or {}, self.recipe.get("columns", ())
        if not known:
            return None
        size = self.detector.scaling.shift.numel()
        values = list(known.values()) if len(columns) != size else [known.get(name, 0.0) for name in columns]
        values += [0.0] * (size - len(values))  # nothing is missing
        return np.array(values, np.float32).reshape(self.detector.event_shape)
