"""Straylight's detectors as estimators of scikit-learn."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

import straylight.detectors
from straylight import config
from straylight.catalogue import entry, settings, target_of
from straylight.checks import meant
from straylight.errors import StraylightError
from straylight.groups import choices
from straylight.job.in_memory import threads_of_torch, train_on
from straylight.nn import Optimization

#: The fraction of training rows that lie beyond the threshold where `contamination` is `auto`, which is that of the
#: rule `quantile` of a run.
AUTO = 0.05


def expected_failed_checks(estimator: Any = None) -> dict[str, str]:
    """The checks of scikit-learn's that no detector passes, with the reason; for `parametrize_with_checks`.

    Example:
        >>> list(expected_failed_checks(Detector("knn")))
        ['check_sample_weight_equivalence_on_dense_data']
    """
    reason = "weights are relative: a row of weight two is not two rows, by which bandwidths, ranks and batches go"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


class SettingError(ValueError, TypeError):
    """A detector or a setting that there is not, or a value that does not fit."""


class Detector(OutlierMixin, BaseEstimator):
    """A detector of Straylight, as scikit-learn knows outlier detectors.

    All rows that it is fitted to are taken as nominal, and what they are like is learned. Settings that are not given
    are those of `straylight detectors NAME`. It writes nothing, says nothing and leaves random numbers alone; what was
    done otherwise than asked for is in `notices_`.

    Args:
        detector: its name, such as `knn`, one of `straylight detectors`.
        contamination: the fraction of the training rows for which `predict` says -1, above 0 and at most 0.5; `auto`
            is 0.05.
        max_epochs: of training, where it is trained.
        batch_size: rows of a mini-batch.
        learning_rate: of Adam.
        val_fraction: of the rows that are not trained on, and choose the epoch; nothing is kept out of a fit.
        accelerator: that trains, `cpu` or `gpu`; events are scored on the CPU.
        random_state: of all that is drawn; an int gives the same scores every time.
        settings: of the detector, such as `k=5`; of `ensemble`, `member` is a name, or settings with the name as
            `detector` among them.

    Attributes:
        offset_: `decision_function` is `score_samples` less this.
        n_features_in_: columns of the rows that it was fitted to.
        feature_names_in_: their names, where all of them are texts.
        notices_: sentences on what was done otherwise than asked for.
        detector_: what was trained, a `straylight.detectors.Detector`.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> knn = Detector("knn", k=5).fit(rows)
        >>> knn.predict([[0.0, 0.0], [9.0, 9.0]]).tolist()
        [1, -1]
        >>> knn.set_params(k=7).get_params()["k"]
        7
    """

    def __init__(
        self,
        detector: str = "knn",
        *,
        contamination: Any = "auto",
        max_epochs: Any = 100,
        batch_size: Any = 128,
        learning_rate: Any = 1e-3,
        val_fraction: Any = 0.1,
        accelerator: str = "cpu",
        random_state: Any = None,
        **settings: Any,
    ) -> None:
        self.detector = detector
        self.contamination = contamination
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.val_fraction = val_fraction
        self.accelerator = accelerator
        self.random_state = random_state
        self._settings = settings

    # parameters: those of the signature, and the settings of the detector that is chosen

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters with their values, the defaults of the detector's own settings among them."""
        return {**super().get_params(deep), **_defaults(self.detector), **self._settings}

    def set_params(self, **params: Any) -> Detector:
        """Change parameters; a detector that is chosen anew has its own defaults.

        Raises:
            ValueError: if there is no such parameter.
        """
        own = super().get_params(deep=False)
        chosen = params.get("detector", self.detector)
        if chosen is not self.detector:
            before = _defaults(self.detector)
            self._settings = {k: v for k, v in self._settings.items() if k not in before or v != before[k]}
        known = [*own, *_defaults(chosen), *self._settings]
        for name, value in params.items():
            if name in own:
                setattr(self, name, value)
            elif name in known or chosen not in _names():
                self._settings = {**self._settings, name: value}
            else:
                raise ValueError(f"Invalid parameter {name!r} for detector {chosen!r}{meant(name, known)}.")
        return self

    # what scikit-learn asks of an outlier detector

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Detector:
        """Train it on rows.

        Args:
            X: `(N, D)`, an array or a table with names.
            y: not read.
            sample_weight: `(N,)`, not negative; a detector that cannot weigh rows says so in `notices_`.

        Raises:
            ValueError: if the rows, a setting or its value do not fit; `SettingError` for the last two is a TypeError
                besides.
        """
        self._check()
        rows = _single(validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2), "X")
        weight = _weights(sample_weight, len(rows))
        node = composed(self.detector, self._settings)
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        try:
            found = train_on(
                lambda: self._built(node, rows.shape[1]),
                torch.from_numpy(rows),
                weight,
                epochs=self.max_epochs,
                batch_size=self.batch_size,
                val_fraction=self.val_fraction,
                accelerator=self.accelerator,
                seed=int(seed),
            )
        except StraylightError as error:
            raise ValueError(str(error)) from error
        self._node, self.detector_, self._scorer = node, found, _exact(found)
        self.notices_ = list(found.notices)
        share = AUTO if self.contamination == "auto" else self.contamination
        self.offset_ = _below(self._score(rows), share, None if weight is None else weight.double().numpy())
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """How ordinary rows are, `(N, D)` to `(N,)`: the negative of Straylight's anomaly score."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._score(_single(rows, "X"))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """`score_samples` less `offset_`, `(N, D)` to `(N,)`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for outliers and 1 for the others, `(N, D)` to `(N,)`."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _built(self, node: dict[str, Any], features: int) -> straylight.detectors.Detector:
        try:
            cfg = DictConfig({"detector": node})
            config.check_targets(cfg, {"detector": node})
            optimizer = Optimization(lr=self.learning_rate)
            return config.build(cfg, "detector", shape=(features,), optimizer=optimizer)
        except (StraylightError, OmegaConfBaseException) as error:
            alone = " (n_features = 1)" if features == 1 else ""
            raise SettingError(" ".join(str(error).split()) + alone) from error

    def _score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        exact = next((p.dtype for p in self._scorer.parameters()), torch.float32)
        x = torch.from_numpy(rows).to(exact)
        with torch.inference_mode(), threads_of_torch(1):
            parts = [self._scorer(part) for part in x.split(self._scorer.rows_at_once)]
        return -torch.cat(parts).double().numpy()

    def _check(self) -> None:
        """See that the parameters of the signature may be what they are."""
        if self.contamination != "auto" and not (_number(self.contamination) and 0 < self.contamination <= 0.5):
            raise SettingError(
                f"contamination must be 'auto' or a number above 0 and at most 0.5, not {self.contamination!r}"
            )
        for name in ("max_epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                raise SettingError(f"{name} must be a positive whole number, not {value!r}")
        if self.accelerator not in ("cpu", "gpu"):
            raise SettingError(f"accelerator must be 'cpu' or 'gpu', not {self.accelerator!r}")
        if not (_number(self.learning_rate) and self.learning_rate > 0):
            raise SettingError(f"learning_rate must be a positive number, not {self.learning_rate!r}")
        if not (_number(self.val_fraction) and 0 <= self.val_fraction < 1):
            raise SettingError(f"val_fraction must be a number from 0 to below 1, not {self.val_fraction!r}")

    # on its way to a file or another process, a detector is its state

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if state.pop("_scorer", None) is not None:
            state["detector_"] = self.detector_.shape, self.detector_.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        kept = state.pop("detector_", None)
        super().__setstate__(state)
        if kept is not None:
            shape, weights = kept
            found = config.build(DictConfig({"detector": self._node}), "detector", shape=shape)
            found.load_state_dict(weights)
            found.notices = list(self.notices_)
            self.detector_, self._scorer = found.eval(), _exact(found)


def composed(name: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a detector as plain values, as `detector=NAME` composes it with some settings of one's own.

    Raises:
        SettingError: if there is no such detector or setting.
    """
    if name not in (known := _names()):
        near = meant(name, known) if isinstance(name, str) else ""
        raise SettingError(f"There is no detector {name!r}{near}; choose one of {', '.join(known)}.")
    defaults = _defaults(name)
    if unknown := [key for key in given if key not in defaults]:
        near = meant(unknown[0], defaults)
        raise SettingError(f"{name} has no setting {unknown[0]!r}{near}; it has {', '.join(defaults)}.")
    node = {"_target_": _shipped(name)["_target_"], **defaults, **{k: _plain(v) for k, v in given.items()}}
    if "member" in node:
        own = dict(node["member"]) if isinstance(node["member"], Mapping) else {"detector": node["member"]}
        node["member"] = {**composed(own.pop("detector", defaults["member"]), own), "_partial_": True}
    return node


@cache
def _names() -> tuple[str, ...]:
    return tuple(choices("detector"))


@cache
def _shipped(name: str) -> dict[str, Any]:
    found = entry("detector", name)
    own: Any = OmegaConf.create({s.key: OmegaConf.create(f"k: {s.default}").k for s in settings(found)})
    plain: Any = OmegaConf.to_container(own)
    return {"_target_": target_of(found), **plain}


def _defaults(name: Any) -> dict[str, Any]:
    """The settings of a detector by the config that ships; none where there is no such detector."""
    if not (isinstance(name, str) and name in _names()):
        return {}
    return {key: copy.deepcopy(value) for key, value in _shipped(name).items() if key != "_target_"}


def _exact(detector: straylight.detectors.Detector) -> straylight.detectors.Detector:
    """A network in double precision, in which a row scores alike alone and among others; what was fitted as it is."""
    return copy.deepcopy(detector).double() if any(True for _ in detector.parameters()) else detector


def _plain(value: Any) -> Any:
    """A value as YAML could hold it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _single(rows: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Rows in single precision, copied where they cannot be written to.

    Raises:
        ValueError: if a number is too large for it.
    """
    with np.errstate(over="ignore"):
        single = np.array(rows, dtype=np.float32, order="C")
    if not np.isfinite(single).all():
        raise ValueError(f"Input {what} contains a value too large for dtype('float32').")
    return single


def _below(scores: NDArray[np.float64], share: float, weight: NDArray[np.float64] | None) -> float:
    """The threshold below which a fraction of the rows lies, by weight; of rows that are equal there, none does."""
    weight = np.ones(len(scores)) if weight is None else weight
    order = scores.argsort(kind="stable")
    order = order[weight[order] > 0]
    sums = np.cumsum(weight[order])
    last = int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-12)))
    ends = scores[order[last : last + 2]]
    return float(ends.mean()) if ends[0] != ends[-1] else float(ends[0])


def _weights(given: ArrayLike | None, n: int) -> torch.Tensor | None:
    """Weights of rows as a tensor; `None` where all are alike."""
    if given is None:
        return None
    weight = np.asarray(given, dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n, float(weight))
    if weight.shape != (n,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n,)}!")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError("sample_weight must be finite, not negative, and not all zero.")
    return None if (weight == weight[0]).all() else torch.from_numpy(weight.astype(np.float32))
