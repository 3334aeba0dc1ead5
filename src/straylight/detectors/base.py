"""What every detector is: a scaling, a score and a loss.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

import inspect
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from straylight.detectors.finite import absurd, finite, sound
from straylight.detectors.grouped import GroupedTraining
from straylight.detectors.parts import Parts
from straylight.detectors.trial import ROWS, try_out
from straylight.errors import DataError, StraylightError
from straylight.nn import Optimization, Reduced, scaling_of
from straylight.nn.principal import Components
from straylight.nn.scaling import Method
from straylight.rows.batch import Batch, Scored

log = logging.getLogger(__name__)


class Detector(GroupedTraining):
    """Base of all detectors. A subclass writes `loss(batch)` and `score(x, context)`; all else is here.

    * `forward` is scaling, then score: what is exported is what predicts.
    * A row's score depends on that row alone, and scoring draws no random number.
    * No label is read: training serves none.
    * All that scoring needs is in `state_dict`.

    Args:
        shape: the shape of one event, without the batch axis.
        context: columns of context; 0 when there are none.
        scaling: `standard`, `minmax`, `standard_common`, `minmax_common`, `unit`, `gcn_l1`, `gcn_l2`, `particles`,
            `particles_log` or `none`, see `straylight.nn.Scaling` and `straylight.nn.ParticleScaling`.
        reduce: principal components of the scaled training rows that are looked at in place of features, a number of
            them or below 1 the fraction of the variance that they must hold; see `straylight.nn.Reduced`. `None` for
            features. A fraction says how many only when there are rows: the detector is then made anew.
        optimizer: see `straylight.nn.Optimization`; Adam at 1e-3 by default.

    Raises:
        ValueError: if an argument, a subclass's own included, is out of its range or an unknown word; by its key.

    Example:
        >>> class Distance(Detector):  # the squared distance from a learned centre
        ...     def __init__(self, shape, **common):
        ...         super().__init__(shape, **common)
        ...         self.centre = torch.nn.Parameter(torch.ones(shape))
        ...     def loss(self, batch):
        ...         return batch.mean(self.score(batch.x, batch.context))
        ...     def score(self, x, context):
        ...         return (x - self.centre).flatten(1).square().sum(1)
        >>> Distance((2,), scaling="none")(torch.zeros(1, 2))
        tensor([2.], grad_fn=<SumBackward1>)
    """

    #: Whether the score is the negative log-density of scaled events in nats, which integrates to one.
    density = False
    #: Whether validation selects among epochs.
    selects = True
    #: Whether the loss is the mean over rows of something that depends on that row alone, so that rows of several
    #: detectors may be put into one call.
    rowwise = False
    #: Rows of an evaluation batch that are scored together: what fits the processor's cache.
    rows_at_once = 16384
    #: Whether training is one pass over the rows, of which half would be nothing.
    one_pass = False
    #: Whether two rows are scored before training; not where a score is a search that takes seconds.
    tries_score = True
    #: Whether each score is a search of its own, so that no more rows are scored than must be.
    searches = False
    #: How contributions of features are had: by `parts`, where the score is a sum over features; by its gradients,
    #: where it is smooth in them; or by what it makes of mixtures of events. See `straylight.explain`.
    explained_by: Literal["exact", "gradients", "shapley"] = "gradients"
    #: Whether `compile_networks` was called.
    compiled = False
    #: Whether it is put into a graph, which cannot go by what its numbers are.
    traced = False
    #: Networks that are not compiled.
    eager: tuple[str, ...] = ()
    #: Buffers whose length is known only after training; they take the checkpoint's shape when one is loaded.
    sized_by_data: tuple[str, ...] = ()
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.__dict__["_given"] = args, kwargs  # to make it anew of another width
        return made

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = inspect.signature(cls.__init__)  # which `__new__` would hide
        cls.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])  # type: ignore[attr-defined]

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        context: int = 0,
        scaling: Method = "standard",
        reduce: Components | None = None,
        optimizer: Optimization | None = None,
    ) -> None:
        super().__init__(optimizer or Optimization())
        #: Of what is scored: of one event or, where principal components take its place, of these.
        self.shape = self.event_shape = tuple(int(n) for n in shape)
        self.context = context
        self.scaling = scaling_of(self.shape, scaling)
        self.reduce = reduce
        if reduce is not None:
            self.scaling = Reduced(self.scaling, reduce)
            self.shape = (self.scaling.width,)
        self._ordinary: dict[int, int] = {}  # rows of validation batches without an absurd one, by their first
        self.notices: list[str] = []  # what was done otherwise than asked for, for want of time or memory

    def notice(self, sentence: str) -> None:
        """Say what was done otherwise than asked for, in the log and in the run's record."""
        if sentence not in self.notices:
            self.notices.append(sentence)
            if self._trainer is None or self.global_rank == 0:
                log.warning(sentence)

    def needs_bounds(self, option: str) -> None:
        """Refuse a scaling under which features do not lie between 0 and 1, as an option needs them to."""
        if self.reduce is not None:
            raise ValueError(f"{option} needs features between 0 and 1, and not the components of detector.reduce")
        if not (self.scaling.bounded or self.scaling.identity):
            raise ValueError(
                f"{option} needs features between 0 and 1: set detector.scaling=minmax or minmax_common, not "
                f"{self.scaling.method}"
            )

    def compile_networks(self) -> None:
        """Compile the networks in place with `torch.compile`; names, weights and checkpoints stay as they are."""
        self.compiled = True
        for detector in self.modules():
            if isinstance(detector, Detector):
                for name, network in detector.named_children():
                    if name not in ("scaling", *detector.eager) and type(network).forward is not nn.Module.forward:
                        network.compile()

    # what a subclass writes, beside `loss`

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        """Anomaly score of scaled events, `(B, *shape)` and `(B, C)` to `(B,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write score(x, context)")

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        """What each feature of scaled events adds to the score, exactly; `None` where the score is no sum over them."""
        return None

    def parts_from(self, reference: Tensor, x: Tensor, context: Tensor) -> Parts | None:
        """What each feature adds to the score above that of a reference, exactly, of scaled events `(B, *shape)`."""
        own, other = self.parts(x, context), self.parts(reference, context)
        return None if own is None or other is None else own.less(other)

    # scoring

    def told(self, x: Tensor, context: Tensor) -> Tensor:
        """The score of scaled events on the scale that is asked for: its own."""
        return self.score(x, context)

    def told_parts(self, x: Tensor, context: Tensor) -> Parts | None:
        """`parts` on the scale that is asked for."""
        return self.parts(x, context)

    def told_parts_from(self, reference: Tensor, x: Tensor, context: Tensor) -> Parts | None:
        """`parts_from` on the scale that is asked for."""
        return self.parts_from(reference, x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Anomaly score of events in the data's own units, `(B, *shape)` to `(B,)` float32, larger is stranger.

        It is finite: see `straylight.detectors.finite`.
        """
        scaled = self.scaling(x)
        score = self.as_computed(x, scaled, context)
        if not self.traced and sound(score):
            return score
        return finite(score, absurd(x, scaled, self.scaling, context))

    def as_computed(self, x: Tensor, scaled: Tensor, context: Tensor | None = None) -> Tensor:
        """The score as it comes, which may be infinite; `x` says where a context would be."""
        if context is None:
            if self.context:
                raise ValueError(f"this {type(self).__name__} needs a context of {self.context} columns to score by")
            context = x.new_zeros(len(x), 0)
        return self.told(scaled, context)

    def log_density(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of events in the data's own units, in nats, `(B, *shape)` to `(B,)` float64.

        log p(x) = -score(scaling(x)) + log |det d scaling / dx|; minus infinity where an absurd row overflows.

        Raises:
            ValueError: if the score is no log-density, or the scaling leaves the events none.
        """
        if not self.density:
            raise ValueError(f"the score of {type(self).__name__} is no log-density")
        scaled = self.scaling(x)
        score = self.as_computed(x, scaled, context)
        if not sound(score):
            score = torch.where(score.isnan() & absurd(x, scaled, self.scaling, context), math.inf, score)
        return self.scaling.log_determinant(x) - score

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Events drawn from the density, in the data's own units, `(n, *shape)`; `(n, C)` of context if there is any.

        Raises:
            ValueError: if the detector has no density to draw from, or its scaling has no inverse.
        """
        raise ValueError(f"{type(self).__name__} has no density to draw events from")

    @property
    def last_phase(self) -> bool:
        """Whether training has come as far as its last phase, without which scores mean nothing."""
        return True

    def _scored(self, batch: Batch) -> Scored:
        parts = zip(batch.x.split(self.rows_at_once), batch.context.split(self.rows_at_once), strict=True)
        return Scored(batch.index, torch.cat([self(x, context).float() for x, context in parts]), batch.y)

    def validation_step(self, batch: Batch, batch_idx: int) -> Scored | None:  # type: ignore[override]
        if self.selects:
            self.seed_noise(-1 - int(batch.index[0]))
            kept = self._without_absurd(batch)
            parts = [Batch(*part) for part in zip(*(column.split(self.rows_at_once) for column in kept), strict=True)]
            if len(kept.x):
                self.count([self.losses(self.scaled(part)) for part in parts], tuple(len(part.x) for part in parts))
        elif self.trainer.state.fn == "fit":
            return None  # nothing is chosen by these scores, and they may be dear
        return self._scored(batch)

    def _without_absurd(self, batch: Batch) -> Batch:
        """The rows by which an epoch is judged: one that is beyond all reason would outweigh all others."""
        first = int(batch.index[0])
        if self._ordinary.get(first) == len(batch.x):  # rows of validation are the same in every epoch
            return batch
        strange = absurd(batch.x, self.scaling(batch.x), self.scaling, batch.context)
        if not (count := int(strange.sum())):
            self._ordinary[first] = len(batch.x)
            return batch
        self.notice(
            f"{count:,} of {len(batch.x):,} rows of a validation batch have a feature that is absurdly large: they are "
            "scored, and left out of the validation loss."
        )
        x, y, context, weight, index = (column[~strange] for column in batch)
        return Batch(x, y, context, batch.weight[: len(x)] if batch.even else weight, index)

    def test_step(self, batch: Batch, batch_idx: int) -> Scored:  # type: ignore[override]
        return self._scored(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Scored:
        return self._scored(batch)

    def scaled(self, batch: Batch) -> Batch:
        """The batch with its events scaled."""
        return batch if self.scaling.identity else batch._replace(x=self.scaling(batch.x))

    def configure_model(self) -> None:
        """Find the principal components, and with them the width of all else, before anything is moved or wrapped."""
        if isinstance(self.scaling, Reduced) and self.trainer.state.fn == "fit" and not self.scaling.fitted:
            with torch.device("cpu"):
                if not self.scaling.first.fitted:
                    self._fit_scaling()
                self._widen(self.scaling.reduce(self.training_rows()))

    def _widen(self, components: int) -> None:
        """Make all but the scaling anew for so many components, as if the number had been given."""
        if self.shape == (components,):
            return
        args, kwargs = self._given
        try:
            other = type(self)(*args, **{**kwargs, "reduce": components})
        except ValueError as error:
            raise DataError(f"detector.reduce={self.reduce} keeps {components} components, and {error}.") from error
        for part in other.modules():
            if isinstance(part, Detector):
                part.scaling = self.scaling
        state = {*vars(GroupedTraining(self.optimization)), "notices", "reduce", "_ordinary", "_given"}  # of training
        state -= {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
        self.__dict__ |= {name: value for name, value in vars(other).items() if name not in state}
        if self.compiled:
            self.compile_networks()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As torch has it; of the width that the state says."""
        if isinstance(self.scaling, Reduced) and "scaling.directions" in state_dict:
            directions = state_dict["scaling.directions"]
            if directions.ndim != 2 or not 0 < directions.shape[1] <= len(directions) == len(self.scaling.mean):
                raise ValueError(f"this {type(self).__name__} is damaged: its components do not fit its events")
            self.scaling.directions = torch.empty_like(directions, device=self.device)
            self._widen(directions.shape[1])
        return super().load_state_dict(state_dict, *args, **kwargs)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._ordinary.clear()
        if not self.scaling.fitted:
            self._fit_scaling()

    def _fit_scaling(self) -> None:
        rows, own = self.training_rows(), getattr(self.trainer.datamodule, "own_training_rows", lambda: None)()  # type: ignore[attr-defined]
        if own is None:
            self.scaling.fit(x for x, _ in rows)
        else:
            self.scaling.fit(own, dealt=True)

    def on_train_start(self) -> None:
        rows = self._first_rows()
        if rows is not None and not self.one_pass:
            with self.trainer.precision_plugin.forward_context():
                try_out(self, *rows, loss=type(self).step is GroupedTraining.step, score=self.tries_score)

    def _first_rows(self) -> tuple[Tensor, Tensor] | None:
        """Two training rows and their context, where a data module serves them."""
        sample = getattr(getattr(self.trainer, "datamodule", None), "training_sample", None)
        if sample is None:
            return None
        x, context = sample(ROWS)
        return x.to(self.device), context.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["notices"] = list(self.notices)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.notices = list(checkpoint.get("notices", []))

    def training_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training rows and their weights, in chunks of `(n, *shape)` and `(n,)`, in the data's own units.

        All of them are served on every rank.

        Raises:
            StraylightError: if the Trainer has no data module that serves them.
        """
        rows = getattr(getattr(self.trainer, "datamodule", None), "training_rows", None)
        if rows is None:
            raise StraylightError(
                f"{type(self).__name__} looks at the training rows before it is trained on them: give trainer.fit a "
                "straylight.data.AnomalyDataModule as datamodule, or build the detector with scaling='none'."
            )
        return rows()

    def training_sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Up to n training rows, evenly spaced, and their context, as the data module serves them."""
        next(iter(self.training_rows()))  # refuses a Trainer without one
        return self.trainer.datamodule.training_sample(n)  # type: ignore[attr-defined]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.sized_by_data:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
