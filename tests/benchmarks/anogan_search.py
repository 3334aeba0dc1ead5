"""AnoGAN's search for a batch at once against the tutorial's way, one image after another.

    python tests/benchmarks/anogan_search.py [--images 256] [--steps 500] [--rounds 3] [--threads 2]

Generator 100-128-256-512-784, discriminator 784-512-256-1. The tutorial's way is `torch.optim.Adam` on one latent, with
the features of both images in every step, and `loss.backward()`, which makes gradients for both networks too. Seconds
are the wall's, per image; the scores agree, which is checked. The last line is how many times faster ours is.
"""

from __future__ import annotations

import argparse
import time

import torch

from interleaved import compare
from straylight.detectors import AnoGAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    gan = AnoGAN((1, 28, 28), scaling="none", steps=args.steps).eval()
    x = torch.rand(args.images, 1, 28, 28)
    found = {}

    @torch.no_grad()
    def ours() -> None:
        found["ours"] = gan(x)

    def one_by_one() -> None:
        image = x[:1]
        z = gan.starts.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=gan.lr)
        nearest = torch.inf
        for _ in range(args.steps):
            made = gan.generator(z)
            features = gan.features(made) - gan.features(image)
            loss = (image - made).abs().sum() + gan.weight * features.abs().sum()
            nearest = min(nearest, loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                z.clamp_(-1, 1)
        found["one by one"] = nearest

    title = f"{args.steps} steps of search, {args.images} images at once and one alone"
    ratio = compare(ours, one_by_one, args.rounds, title, units=(args.images, 1), clock=time.perf_counter)
    gap = abs(found["ours"][0].item() / found["one by one"] - 1)
    # ours looks at where the last step ended, too
    assert gap < 1e-3, f"the two ways score differently, by {gap:.1e}"
    print(f"ratio: {1 / ratio:.1f}")


if __name__ == "__main__":
    main()
