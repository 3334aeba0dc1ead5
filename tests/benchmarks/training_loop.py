"""Training through `straylight` against a bare PyTorch loop: the same network, rows, batches, steps and weights.

    python tests/benchmarks/training_loop.py [--rows 1000000] [--epochs 3] [--rounds 7]

The 57-8-57 autoencoder of the trigger tutorial at batch 1024 over rows of 57 features. In each epoch the bare loop
draws a permutation, gathers a mini-batch of rows, and takes a step of the same fused Adam. Ours is what
`straylight train` runs: the data module, the Trainer, scaling, losses summed, the callbacks, no validation.
The two end with the same weights, bit for bit, which is checked.
"""

from __future__ import annotations

import argparse
import tempfile

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from interleaved import compare
from straylight.callbacks import Checkpoint, Interrupt, Progress
from straylight.data import AnomalyDataModule
from straylight.detectors import AutoEncoder
from straylight.job.train import quiet
from straylight.rows.batch import Events, Splits

BATCH = 1024


class Rows(AnomalyDataModule):
    def __init__(self, x: torch.Tensor) -> None:
        super().__init__(batch_size=BATCH, contamination=None)
        self.x = x

    def load(self) -> Splits:
        test = Events.of(self.x[:2], [0, 1])
        return Splits(Events.of(self.x), Events.of(self.x[:0]), test, test.take([]))


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    x = torch.randn(args.rows, 57, generator=torch.Generator().manual_seed(0))
    data = Rows(x)
    data.setup()
    weights = {}

    def network() -> AutoEncoder:
        torch.manual_seed(0)
        return AutoEncoder((57,), hidden=[], latent=8, scaling="none")

    def ours() -> None:
        detector = network()
        with tempfile.TemporaryDirectory() as folder:
            callbacks = [Checkpoint(folder), Interrupt(f"{folder}/interrupt.ckpt"), Progress()]
            trainer = pl.Trainer(
                accelerator="cpu",
                max_epochs=args.epochs,
                logger=False,
                callbacks=callbacks,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(detector, datamodule=data)
        weights["ours"] = torch.cat([p.detach().flatten() for p in detector.parameters()])

    def bare() -> None:
        detector = network()
        encoder, decoder = detector.encoder, detector.decoder
        optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3, fused=True)
        for epoch in range(args.epochs):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(BATCH):
                batch = x.index_select(0, rows)
                loss = F.mse_loss(decoder(encoder(batch)), batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        weights["bare"] = torch.cat([p.detach().flatten() for p in detector.parameters()])

    ratio = compare(ours, bare, args.rounds, f"57-8-57, {args.rows} x 57 rows, batch {BATCH}, {args.epochs} epochs")
    assert torch.equal(weights["ours"], weights["bare"]), "the two loops trained different networks"
    return ratio


if __name__ == "__main__":
    main()
