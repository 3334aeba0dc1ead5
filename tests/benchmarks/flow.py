"""`maf` at 57 features against nflows' stock transform: the same widths, permutations, rows, batches and Adam.

    python tests/benchmarks/flow.py [--rounds 15] [--rows 65536]

Times a training step and the scoring of a batch, both of 1024 rows, and compares the negative log-likelihood of
held-out rows after the two were trained on the same 57 correlated, skewed and heavy-tailed features, averaged over the
last epochs of a cosine schedule. The last line is scoring's ratio.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow as StockFlow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

from interleaved import compare
from straylight.nn import autoregressive_flow

D, LAYERS, HIDDEN, BLOCKS, BATCH = 57, 5, 64, 1, 1024


def stock() -> StockFlow:
    transforms: list = []
    for layer in range(LAYERS):
        if layer:
            transforms.append(ReversePermutation(D))
        transforms.append(MaskedAffineAutoregressiveTransform(D, HIDDEN, num_blocks=BLOCKS))
    return StockFlow(CompositeTransform(transforms), StandardNormal([D]))


def rows(n: int, seed: int) -> torch.Tensor:
    """19 particles of 3 features: correlated, one heavy-tailed, one curved."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=torch.Generator().manual_seed(1234)) / D**0.5
    x = torch.randn(n, D, generator=draw) @ mix + 0.5 * torch.randn(n, D, generator=draw)
    x[:, 1::3] += 0.5 * x[:, 0::3].square()
    x[:, 2::3] = (0.5 * x[:, 2::3]).exp() + 0.1 * x[:, 0::3]
    return (x - x.mean(0)) / x.std(0)


def train(flow: torch.nn.Module, log_prob, x: torch.Tensor, test: torch.Tensor, epochs: int) -> float:
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3, fused=True)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        for batch in x[torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))].split(BATCH):
            optimizer.zero_grad()
            (-log_prob(batch).mean()).backward()
            optimizer.step()
            schedule.step()
    flow.eval()
    with torch.no_grad():
        return -log_prob(test).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, test = rows(args.rows, 0), rows(16384, 1)
    gaps = []
    for seed in range(args.seeds):
        nll = []
        for build in (autoregressive_flow, stock):
            torch.manual_seed(seed)
            flow = stock() if build is stock else autoregressive_flow(D, layers=LAYERS, hidden=HIDDEN, blocks=BLOCKS)
            nll.append(train(flow, flow.log_prob if build is stock else flow, x, test, args.epochs))
        gaps.append(nll[0] - nll[1])
        print(f"seed {seed}: held-out NLL, nats: ours {nll[0]:.3f}, nflows {nll[1]:.3f}, gap {gaps[-1]:+.3f}")
    if gaps:
        print(f"gap: {statistics.mean(gaps):+.3f}")

    torch.manual_seed(0)
    ours, theirs = autoregressive_flow(D, layers=LAYERS, hidden=HIDDEN, blocks=BLOCKS), stock()
    batch = x[:BATCH]

    def step(log_prob, flow: torch.nn.Module):
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

        def call() -> None:
            for _ in range(10):
                optimizer.zero_grad()
                (-log_prob(batch).mean()).backward()
                optimizer.step()

        return call

    compare(step(ours, ours), step(theirs.log_prob, theirs), args.rounds, f"training, 10 steps of {BATCH} rows")

    def score(log_prob):
        @torch.no_grad()
        def call() -> None:
            for _ in range(30):
                log_prob(batch)

        return call

    ours.eval(), theirs.eval()
    compare(score(ours), score(theirs.log_prob), args.rounds, f"scoring, 30 batches of {BATCH} rows")


if __name__ == "__main__":
    main()
