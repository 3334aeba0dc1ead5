"""An outlier detector of another library."""

import contextlib
import importlib
import importlib.util
import inspect
import io
import math
import pkgutil
import random
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.checks import meant
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.scikit import heard, one_pool
from straylight.errors import ConfigError, DataError

Rows = NDArray[np.float64]
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
#: What squares of which float32 still holds; a row beyond it is absurd, see `straylight.detectors.finite`.
LARGEST = 1e18
#: Types of scikit-learn that many estimators hold and skops asks about.
INNER = re.compile(r"sklearn\.(tree\._tree\.Tree|neighbors\._(kd|ball)_tree\.\w+|metrics\._dist_metrics\.\w+)")
TRIED = 8  # rows that are scored together and alone, to see whether that is the same


class External(FittedDetector):
    """The score of an estimator of another library, turned so that larger is stranger.

    It must follow one of two protocols, by which it is known where larger is stranger:

    * scikit-learn's: `score_samples`, or the `decision_function` of an outlier detector; the score is its negative.
    * PyOD's: the `decision_function` of a `BaseDetector`, or of any class that leaves `decision_scores_` when it is
      fitted and is no estimator of scikit-learn's; the score is that.

    It is fitted to all training rows at once, flattened and in float64, with its `random_state` from the run's seed and
    all global random numbers seeded, too, as they are each time it scores. A fit is kept in the checkpoint by skops,
    which holds types by name and runs nothing, and never by pickle. Of one that skops cannot keep, such as a network,
    the run gives notice that it cannot be opened again.

    References:
        F. Pedregosa et al., Scikit-learn, JMLR 12 (2011) 2825, arXiv:1201.0490
        Y. Zhao et al., PyOD: a Python toolbox for scalable outlier detection, JMLR 20 (2019) 96, arXiv:1901.01588

    Args:
        shape: the shape of one event.
        model: the dotted name of the class.
        arguments: of its constructor, by name.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        common: `context`, `scaling`, see `Detector`.

    Raises:
        ValueError: if the package or the class is not to be found, the class follows neither protocol, or it refuses
            the arguments.

    Example:
        >>> found = External((1,), model="sklearn.svm.OneClassSVM", arguments={"nu": 0.1}, scaling="none")
        >>> found.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> found(torch.tensor([[0.0], [9.0]])).argmax().item()  # the far one
        1
    """

    #: Arguments whose values name what is imported, see `straylight.trust`.
    imports = ("model",)

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        model: str,
        arguments: dict[str, Any] | None = None,
        max_rows: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        self.model, self.arguments, self.max_rows = model, dict(arguments or {}), max_rows
        self.features = math.prod(self.shape)
        self.name = model.rpartition(".")[2]
        self.made = _located(model)
        with _seeded(0):
            self.protocol = _protocol(self._built(), model)
        self._estimator: Any = None
        self._drawn_by: int = 0
        self._draws = True  # whether scoring draws random numbers
        self._lost: str | None = None
        self._file = torch.empty(0, dtype=torch.uint8)  # of the fit, as skops writes it

    # fitting

    def _built(self, seed: int | None = None) -> Any:
        """The estimator, not fitted yet."""
        takes = inspect.signature(self.made).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            for name in self.arguments:
                if name not in takes:
                    raise ValueError(
                        f"detector.arguments: {self.name} takes no {name!r}{meant(str(name), takes)}; it takes "
                        f"{', '.join(takes) or 'none'}"
                    )
        own = {"random_state": seed} if seed is not None and "random_state" in takes else {}
        try:
            built = self.made(**{**own, **self.arguments})
            if hasattr(built, "_parameter_constraints"):  # which scikit-learn's do when they are fitted
                built._validate_params()
        except Exception as error:  # as many sorts as there are libraries
            raise ValueError(f"detector.arguments: {self.name} refuses them: {_line(error)}") from error
        return built

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        x, weight = self.kept(x.flatten(1), weight)
        rows = _clipped(x)
        self._drawn_by, self._draws = self.seed, True
        with _seeded(self._drawn_by):
            estimator = self._built(self._drawn_by)
            self._fit(estimator, rows, weight)
        if self.protocol == "pyod" and not hasattr(estimator, "decision_scores_"):
            raise DataError(
                f"{self.name} left no decision_scores_, by which PyOD's protocol is known, when it was fitted; so "
                "nobody can tell whether its larger scores are the stranger ones."
            )
        self._estimator = estimator
        tried = rows[:TRIED]
        together = self._scores(estimator, tried)
        with _seeded(self._drawn_by + 1):
            self._draws = False
            self._draws = not np.array_equal(self._scores(estimator, tried), together, equal_nan=True)
        if not np.array_equal(self._scores(estimator, tried), together, equal_nan=True):
            self.notice(f"{self.name} draws random numbers of its own while it scores: scores are not the same twice.")
        alone = np.concatenate([self._scores(estimator, row[None]) for row in tried])
        near = 1e-5 * np.abs(together).max(initial=0)
        if not np.allclose(together, alone, rtol=1e-5, atol=near, equal_nan=True):
            self.notice(
                f"{self.name} scores an event by what stands in the batch beside it: its scores hang on "
                "data.eval_batch_size, and one event alone has another."
            )
        self._file, self._lost = self._kept_as(estimator, tried, together)
        if self._lost:
            self.notice(f"{self._lost} This run cannot be opened again; its results are whole.")

    def _fit(self, estimator: Any, rows: Rows, weight: Tensor) -> None:
        more: dict[str, Any] = {}
        if (weight != weight[0]).any():
            if "sample_weight" in inspect.signature(estimator.fit).parameters:
                more["sample_weight"] = weight.cpu().numpy()
            else:
                self.notice(f"{self.name} does not read event weights: all rows count as one.")
        try:
            with heard(self, self.name), _hushed(), _free_to_train():
                estimator.fit(rows, **more)
        except Exception as error:
            raise DataError(f"{self.name} cannot be fitted to {len(rows):,} training rows: {_line(error)}.") from error

    # scoring

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        if self._estimator is None:
            raise ValueError(f"this {self.name} was not fitted")
        found = self._scores(self._estimator, _clipped(x.flatten(1)))
        return torch.from_numpy(found).to(x.device).float()

    def _scores(self, estimator: Any, rows: Rows) -> Rows:
        """`(B, D)` to `(B,)`, larger is stranger."""
        if not len(rows):
            return np.empty(0)
        drawn = _seeded(self._drawn_by) if self._draws else contextlib.nullcontext()
        with one_pool(), drawn, _hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to say was said at the fit
            if self.protocol == "score_samples":
                found = -np.asarray(estimator.score_samples(rows), dtype=np.float64)
            else:
                found = np.asarray(estimator.decision_function(rows), dtype=np.float64)
                found = -found if self.protocol == "decision_function" else found
        if found.shape not in ((len(rows),), (len(rows), 1)):
            raise DataError(
                f"{self.name} returned scores of shape {found.shape} for {len(rows)} events; wanted is one for each."
            )
        return found.reshape(len(rows))

    # keeping

    def _kept_as(self, estimator: Any, rows: Rows, scores: Rows) -> tuple[Tensor, str | None]:
        """A fit as bytes, tried out; or why it cannot be kept."""
        nothing = torch.empty(0, dtype=torch.uint8)
        try:
            import skops.io
        except ImportError:
            return nothing, f"{self.name} is kept by skops, which is not installed (pip install skops)."
        try:
            data = skops.io.dumps(estimator)
            again = skops.io.loads(data, trusted=self._types(data))
            same = np.array_equal(self._scores(again, rows), scores, equal_nan=True)
        except Exception as error:
            return nothing, f"skops cannot keep a fitted {self.name} ({_line(error)})."
        if not same:
            return nothing, f"skops cannot keep a fitted {self.name}: read again, it scores otherwise."
        return torch.frombuffer(bytearray(data), dtype=torch.uint8), None

    def _types(self, data: bytes) -> list[str]:
        """The types in a file of skops's that it does not know itself, all of them of the library or scikit-learn's.

        Raises:
            ConfigError: if there is another.
        """
        import skops.io

        package = self.model.partition(".")[0]
        found = skops.io.get_untrusted_types(data=data)
        for name in found:
            if not INNER.fullmatch(name) and not _is_class_of(name, package):
                raise ConfigError(f"a fitted {self.name} holds {name}, which is no class of {package}")
        return found

    def get_extra_state(self) -> dict[str, Any]:
        return {"skops": self._file, "seed": self._drawn_by, "draws": self._draws, "lost": self._lost}

    def set_extra_state(self, state: Any) -> None:
        if not isinstance(state, Mapping) or not isinstance(file := state.get("skops"), Tensor):
            raise ConfigError(f"This is no state of {self.name}.")
        if state.get("lost"):
            raise ConfigError(f"A run of {self.name} cannot be opened again. {state['lost']}")
        self._drawn_by, self._draws = int(state.get("seed", 0)), bool(state.get("draws", True))
        self._file, self._estimator = file.cpu(), None
        if not len(file):
            return  # of before the fit
        try:
            import skops.io
        except ImportError as error:
            raise ConfigError(f"{self.name} is kept by skops, which is not installed: pip install skops.") from error
        data = self._file.numpy().tobytes()
        try:
            with heard(self, self.name):  # of another version of the library
                found = skops.io.loads(data, trusted=self._types(data))
        except Exception as error:
            raise ConfigError(f"The fitted {self.name} cannot be read: {_line(error)}.") from error
        if type(found) is not self.made:
            raise ConfigError(f"The fit is of a {type(found).__name__}, and detector.model is {self.model}.")
        self._estimator = found


def _located(model: str) -> Any:
    """The class of a dotted name."""
    if not DOTTED.fullmatch(model):
        raise ValueError(
            f"detector.model must be the dotted name of a class, such as sklearn.svm.OneClassSVM, not {model!r}"
        )
    package, (module, _, name) = model.partition(".")[0], model.rpartition(".")
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"detector.model={model}: there is no package {package!r} here; install it, as by pip install {package}"
        )
    try:
        with warnings.catch_warnings(), _hushed():
            warnings.simplefilter("ignore")
            there = importlib.import_module(module)
    except ModuleNotFoundError as error:
        lacking = error.name or ""
        above, _, last = lacking.rpartition(".")
        if above and f"{module}.".startswith(f"{lacking}."):
            inside = pkgutil.iter_modules(getattr(importlib.import_module(above), "__path__", []))
            near = meant(last, [found.name for found in inside])
            raise ValueError(f"detector.model={model}: there is no module {lacking!r}{near}") from error
        raise ValueError(f"detector.model={model} needs the package {lacking!r}, which is not here") from error
    except Exception as error:
        raise ValueError(f"detector.model={model}: {module} cannot be imported: {_line(error)}") from error
    found = getattr(there, name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(there).items() if inspect.isclass(value)]
        what = "is no class" if hasattr(there, name) else "does not exist"
        raise ValueError(f"detector.model={model} {what}{meant(name, classes)}")
    return found


def _protocol(estimator: Any, model: str) -> str:
    """Which of the protocols an estimator follows: `pyod`, or the method of scikit-learn's."""
    from sklearn.base import BaseEstimator, OutlierMixin

    if not callable(getattr(estimator, "fit", None)):
        raise ValueError(f"detector.model={model} is no estimator: it has no method fit")
    bases = {f"{base.__module__}.{base.__name__}" for base in type(estimator).__mro__}
    decides, reason = callable(getattr(estimator, "decision_function", None)), ""
    if decides and "pyod.models.base.BaseDetector" in bases:
        return "pyod"
    try:
        if callable(estimator.score_samples):
            return "score_samples"
    except AttributeError as error:
        reason = _line(error.__cause__ or error) if hasattr(type(estimator), "score_samples") else ""
    if decides and isinstance(estimator, OutlierMixin):
        return "decision_function"
    if decides and not isinstance(estimator, BaseEstimator):
        return "pyod"
    if reason:
        raise ValueError(f"detector.model={model} scores no new events with these detector.arguments: {reason}")
    raise ValueError(
        f"detector.model={model} follows neither protocol: it has no score_samples, and no decision_function of an "
        "outlier detector of scikit-learn's or PyOD's"
    )


def _is_class_of(name: str, package: str) -> bool:
    """Whether a dotted name is a class of a package, whose modules alone are imported to find out."""
    module, _, last = name.rpartition(".")
    if not DOTTED.fullmatch(name) or not f"{module}.".startswith(f"{package}."):
        return False
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError:
        return False
    return inspect.isclass(found) and f"{found.__module__}.".startswith(f"{package}.")


def _clipped(rows: Tensor) -> Rows:
    """Rows in float64, what overflows within what a library can compute with."""
    known = np.nan_to_num(rows.double().cpu().numpy(), nan=np.nan, posinf=LARGEST, neginf=-LARGEST)
    return known.clip(-LARGEST, LARGEST)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Whatever is drawn, from whichever of the global generators, is drawn by the seed, and they are as before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([]):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.random.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def _free_to_train() -> Iterator[None]:
    """Gradients are recorded, which a network of the library's own needs."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
