"""Scoring through `Trainer.test` against a bare PyTorch loop over slices.

    python tests/benchmarks/scoring.py [--rows 1000000] [--rounds 7]

The 57-8-57 autoencoder over rows of 57 features. Ours gathers scores, labels and indices of all rows, as the ranking
callback does; the bare loop joins the scores, over slices of the size that is fastest for it here, 16,384 rows. The
scores are the same, which is checked.
"""

from __future__ import annotations

import argparse

import numpy as np
import pytorch_lightning as pl
import torch

from interleaved import compare
from straylight.callbacks.scored import Scores, TestScores
from straylight.data import AnomalyDataModule
from straylight.detectors import AutoEncoder
from straylight.job.train import quiet
from straylight.rows.batch import Events, Splits

SLICE = 16384


class Rows(AnomalyDataModule):
    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x = x

    def load(self) -> Splits:
        y = (torch.arange(len(self.x)) % 10 == 0).long()
        return Splits(Events.of(self.x[:2]), Events.of(self.x[:0]), Events.of(self.x, y), Events.of(self.x[:0]))


class Keep(TestScores):
    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.scores = scores


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    x = torch.randn(args.rows, 57, generator=torch.Generator().manual_seed(0))
    data = Rows(x)
    data.setup()
    torch.manual_seed(0)
    detector = AutoEncoder((57,), hidden=[], latent=8, scaling="none").eval()
    keep = Keep()
    found = {}

    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[keep],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    def ours() -> None:
        trainer.test(detector, datamodule=data, verbose=False)
        found["ours"] = keep.scores.score

    @torch.inference_mode()
    def bare() -> None:
        scores = []
        for batch in x.split(SLICE):
            scores.append((detector.decoder(detector.encoder(batch)) - batch).square().mean(1))
        found["bare"] = torch.cat(scores).numpy()

    ratio = compare(ours, bare, args.rounds, f"57-8-57, {args.rows} x 57 rows, slices of {SLICE}")
    assert np.array_equal(found["ours"], found["bare"]), "the two loops scored differently"
    return ratio


if __name__ == "__main__":
    main()
