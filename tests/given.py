"""What several tests are given or look at: rows, mini-batches, states, pictures, and the sentences of errors."""

from __future__ import annotations

import io
import warnings

import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from straylight.callbacks.cost import Layers
from straylight.callbacks.scored import TestScores
from straylight.data import AnomalyDataModule, File
from straylight.errors import DataError
from straylight.rows.batch import Batch, Events, Splits

#: Detectors of over-densities, which take no data but those with a resonance; see test_over_density.
OVER_DENSITIES = {"cwola", "anode", "cathode", "lacathode", "r_anode", "idealized", "supervised"}


class Rows(AnomalyDataModule):
    """Rows to train on, with context and weights where they are given, and others to validate with, or none."""

    def __init__(
        self,
        x: Tensor,
        val: Tensor | None = None,
        context: Tensor | None = None,
        weight: Tensor | None = None,
        **common: object,
    ) -> None:
        super().__init__(contamination=None, **common)
        self.x, self.val = x, x[:0] if val is None else val
        self.given, self.weight = context, weight

    def load(self) -> Splits:
        train = Events.of(self.x, context=self.given, weight=self.weight)
        test = Events.of(self.x[:2], [0, 1], context=train.context[:2])
        return Splits(train, Events.of(self.val), test, test.take([]))


def drawn(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Normal rows."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def batch_of(x: Tensor, weight: Tensor | None = None) -> Batch:
    """A mini-batch of rows without labels and context."""
    n = len(x)
    weight = torch.ones(1).expand(n) if weight is None else weight
    return Batch(x, torch.full((n,), -1), torch.empty(n, 0), weight, torch.arange(n))


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are the same bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class SaveAt(pl.Callback):
    """Writes a checkpoint once as many mini-batches were trained on."""

    def __init__(self, step: int, path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class Keep(TestScores):
    """Keeps the scores of a test."""

    def on_scores(self, trainer, module, scores) -> None:
        self.scores = scores


def rendered(figure: Figure | None) -> Figure:
    """The figure, drawn without a warning, its legend beside its panels."""
    assert figure is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png")
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= -1, "the legend is cut"
        assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes if axis.get_visible())
    return figure


def layers_of(network, *given) -> list[dict]:
    """What `Layers` tells of a network that scores what is given."""
    watched = Layers(network)
    with torch.no_grad():
        network(*given)
    return watched.done()


def sentence(error) -> str:
    """What an error says, once it is certain that it is one sentence."""
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and ". " not in said, said
    return said


def refused(path, **options) -> str:
    """What `data=file` says of a file that it refuses: one sentence."""
    with pytest.raises(DataError) as error:
        File(path=str(path), **options).setup()
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and ". " not in said
    return said
