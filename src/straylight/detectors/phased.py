"""Detectors that are trained in phases, one command for all of them."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, ClassVar

from torch import Tensor

from straylight.detectors.base import Detector
from straylight.rows.batch import Batch


class Phased(Detector):
    """A detector whose training is divided into named phases. A subclass names them and writes `step_in`.

    Phases take shares of the whole training, so that `trainer.max_epochs` says how long it is: `{gan: 2, encoder: 1}`
    gives the last third of the mini-batches to the encoder. Shares that add up to `trainer.max_epochs` are epochs.
    Each phase begins with fresh moments of the optimiser; a schedule spans them all. Only the last one's validation
    loss is `val/loss`, by which epochs are selected, since those of different phases cannot be compared.

    Args:
        shape: the shape of one event.
        phases: the share of each phase, by its name.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
        ValueError: if the names are not the detector's own, or the shares are negative or the last one zero.
    """

    #: The names of the phases, in order, and their shares by default.
    shares: ClassVar[Mapping[str, float]]
    alternates = True

    def __init__(self, shape: tuple[int, ...], *, phases: Mapping[str, float] | None = None, **common: Any) -> None:
        super().__init__(shape, **common)
        given = self.shares if phases is None else phases
        self.order = tuple(self.shares)
        shares = [float(given.get(name, -1)) for name in self.order]
        if set(given) != set(self.order) or min(shares) < 0 or not shares[-1] > 0:
            raise ValueError(
                f"detector.phases must give {' and '.join(self.order)} a share of the training each, the last one more "
                f"than zero, not {dict(given)}"
            )
        self.ends = [share / sum(shares) for share in accumulate(shares)]
        self._begun = -1

    def step_in(self, phase: str, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        """`GroupedTraining.step` in a phase."""
        raise NotImplementedError(f"{type(self).__name__} must write step_in(phase, batch, optimizer, share)")

    def begin(self, phase: str) -> None:
        """What is done before the first mini-batch of a phase, on every rank."""

    @property
    def last_phase(self) -> bool:
        return self._begun == len(self.order) - 1

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        if not self.steps_taken:  # perhaps trained once more
            self._begun = -1
        # a resumed training that was made longer does not go back
        now = max(self._begun, self.phase_at(self.steps_taken, self.total_steps()))
        while self._begun < now:
            self._begun += 1
            for parameter in self.parameters():
                optimizer.state.pop(parameter, None)
            self.begin(self.order[self._begun])
        return self.step_in(self.order[now], batch, optimizer, share)

    def phase_at(self, step: int, total: int) -> int:
        """The number of the phase that a mini-batch belongs to.

        Example: with shares 2 and 1, mini-batches 0 to 3 of 6 belong to phase 0, 4 and 5 to phase 1. The last phase
        gets one mini-batch at least.
        """
        ends = (min(round(end * total), total - 1) for end in self.ends[:-1])
        return next((i for i, end in enumerate(ends) if step < end), len(self.ends) - 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return super().losses(batch) if self.last_phase else {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["phase"] = self._begun

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._begun = checkpoint.get("phase", -1)
