"""An early end to a trial of a search that falls behind the others."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from straylight.callbacks.scored import said
from straylight.errors import ConfigError
from straylight.objective import measure

ABOVE = 4  # folders in which the journal is looked for
log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    """Tells a search what validation reads, once an epoch, and ends training where the search gives the trial up.

    What is there is tested all the same, so that the folder is a run like any other, and its record says `pruned`. The
    search puts this callback into the configs of its trials; it is nothing to be typed.

    Args:
        folder: of the run; the journal of the search, see `straylight.journal`, is in one above it.
        trial: its number there.
        monitor: what is read of validation.
        lower: whether the search takes less for better.
        pruner, options: what gives trials up, see `straylight.journal.pruner_of`.

    Raises:
        ConfigError: if a metric of the test rows is to decide; while training, if there is no such measure.

    References:
        L. Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, arXiv:1810.05934 (ASHA)
    """

    def __init__(
        self,
        folder: str,
        trial: int,
        monitor: str = "val/loss",
        lower: bool = True,
        pruner: str = "asha",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.trial, self.monitor = Path(folder), trial, monitor
        self.sign = 1.0 if measure(monitor, "hydra.sweeper.monitor").lower == lower else -1.0
        self.pruner, self.options = pruner, dict(options or {})
        self.pruned = False
        self._reported: Any = None
        self._over = self._read = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the validation of the epoch, in the last phase, which alone has what is monitored."""
        read, self._read = self._read, False
        if self._over or not read or not getattr(pl_module, "last_phase", True):
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(n for n in trainer.callback_metrics if n.startswith("val"))) or "nothing"
            raise ConfigError(f"hydra.sweeper.monitor={self.monitor} is not measured; there is {known}.")
        behind = False
        if trainer.is_global_zero:
            behind = self._behind(self.sign * float(trainer.callback_metrics[self.monitor]), trainer.current_epoch + 1)
        self.pruned = bool(trainer.strategy.broadcast(behind))
        trainer.should_stop |= self.pruned

    def _behind(self, value: float, epoch: int) -> bool:
        """Report, and ask whether the trial is given up; a journal that cannot be used never fails a run."""
        try:
            self._reported = self._reported or self._opened()
            if self._reported is None:
                self._over = True
                return False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an epoch that was gone back to is not told twice
                self._reported.report(value, epoch)
            return bool(self._reported.should_prune())
        except Exception as error:  # as many sorts as there are disks
            self._over = True
            log.warning(f"The search is told nothing more, and does not prune this trial: {said(error, 300)}")
            return False

    def _opened(self) -> Any:
        """The trial; `None` if it is over, as of a run that is trained further later, or the journal is gone."""
        import optuna

        from straylight.journal import NAME, opened, pruner_of, study

        above = (folder / NAME for folder in self.folder.absolute().parents[:ABOVE])
        if (journal := next((path for path in above if path.is_file()), None)) is None:
            return None
        found = study(opened(journal), pruner=pruner_of(self.pruner, self.options))
        trials = found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return next((optuna.Trial(found, trial._trial_id) for trial in trials if trial.number == self.trial), None)

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"pruned": self.pruned}
