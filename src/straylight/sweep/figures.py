"""Which figures the jobs of a sweep draw by themselves: those that somebody typed."""

from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from straylight.keys import key_of
from straylight.report.choice import ESSENTIAL


def without_figures(composed: DictConfig, overrides: Collection[str]) -> None:
    """Leave the essential figures of a job to `straylight report --figures`, unless somebody typed that he wants them.

    Hundreds of jobs would draw what nobody looks at, and take longer for it than for many a training.
    """
    typed = any(key_of(override) == "callbacks.figures.only" for override in overrides)
    figures = OmegaConf.select(composed, "callbacks.figures")
    if typed or not OmegaConf.is_dict(figures) or figures.get("every_n_epochs"):
        return
    if figures.get("only") == ESSENTIAL:
        with read_write(composed), open_dict(composed):
            composed.callbacks.figures.only = []
