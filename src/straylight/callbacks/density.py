"""Whether the density is right: did the flow train?"""

import logging
import math
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from straylight.callbacks.progress import announce
from straylight.callbacks.scored import split_of
from straylight.metrics.density import density_check, repeating
from straylight.metrics.two_sample import LEAST, TwoSample, two_sample
from straylight.rows.batch import Events

log = logging.getLogger(__name__)

MULTIPLICATIONS = 5e10  # that drawing samples may take: seconds on one core
ENOUGH = 500  # samples, fewer of which are not worth it where there are more rows
LOOKED_AT = 2000  # rows that say whether a feature is discrete
WIDE = 0.05  # half the width of an interval that leaves the question open
LOGGED = ("nll", "bits_per_dim", "entropy", "excess", "latent_ks_max", "radius_ks", "two_sample_auroc")


class Density(pl.Callback):
    """Measures, once, after the test, the density of nominal test rows; nothing for a detector that has none.

    The negative log-likelihood in nats and bits per dimension, above the true entropy where the data set knows it; the
    distance of a flow's latents from normal; how well a classifier tells samples from events. See
    `straylight.metrics.density`, `straylight.metrics.two_sample`.

    The first rank measures alone, on rows of the whole split, so that every number of ranks gives the same numbers.
    Random numbers are drawn aside, and the run's own go on as if none had been.

    Args:
        max_rows: nominal test rows that are looked at, drawn by seed where there are more.
        two_sample_rows: of these, rows that the classifier is given, with as many samples; 0 leaves it out. Where
            samples are dear to draw, as in an autoregressive flow of many features, there are fewer, or none.
        seed: of rows, samples and classifier.
    """

    def __init__(self, max_rows: int = 10_000, two_sample_rows: int = 10_000, seed: int = 0) -> None:
        if max_rows < 1 or seed < 0 or 0 != two_sample_rows < LEAST:
            raise ValueError(
                f"callbacks.density.max_rows must be positive, two_sample_rows 0 or {LEAST} or more, and seed not "
                f"negative, not {max_rows}, {two_sample_rows} and {seed}"
            )
        self.max_rows, self.two_sample_rows, self.seed = max_rows, two_sample_rows, seed
        self.found: dict[str, Any] = {}
        self._remarks: list[str] = []

    @torch.inference_mode()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.found = {}
        if not getattr(pl_module, "density", False):
            return
        data = getattr(trainer, "datamodule", None)
        test = split_of(data, "test")
        if trainer.is_global_zero and test is not None:
            self._remarks = []
            rows = self._held_out(test, data)
            if len(rows):
                announce(trainer, "comparing the density")
                with trainer.precision_plugin.forward_context():  # the computation that was tested
                    self._measure(pl_module, rows, data)
                log.info(self.found["sentence"])
                metrics = {f"test/{name}": self.found[name] for name in LOGGED if self.found.get(name) is not None}
                for logger in trainer.loggers:
                    logger.log_metrics(metrics, step=trainer.global_step)
        trainer.strategy.barrier()

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"density": self.found} if self.found else {}

    def _held_out(self, test: Events, data: Any) -> Events:
        """The nominal rows that are looked at, in the order of the split."""
        rng = np.random.default_rng(self.seed)
        if getattr(data, "protocol", "") == "unsupervised":
            self._remarks.append("The test rows are those trained on (data.protocol=unsupervised), not held out.")
        if getattr(data, "protocol", "") == "dte":
            self._remarks.append("Test rows may be copies of those trained on (data.protocol=dte).")
        if len(test) and int(test.y.max()) < 0:
            self._remarks.append("The test rows have no labels: all of them count as nominal.")
            rows = np.arange(len(test))
        else:
            rows = (test.y == 0).nonzero().flatten().numpy()
        if test.weight.stride(0) != 0 and len(rows):
            weight = test.weight.numpy()[rows]
            rows = rows[rng.random(len(rows)) * weight.max() < weight]  # so that what is left counts as one each
            self._remarks.append(
                f"Rows were kept in proportion to their event weights: {len(rows):,} of {len(weight):,}."
            )
        if len(rows) > self.max_rows:
            rows = np.sort(rng.choice(rows, self.max_rows, replace=False))
        return test.take(rows)

    def _measure(self, module: Any, rows: Events, data: Any) -> None:
        x = rows.in_memory
        parts = [
            (some.to(module.device), context.to(module.device))
            for some, context in zip(x.split(module.rows_at_once), rows.context.split(module.rows_at_once), strict=True)
        ]
        units: Literal["data", "scaled"] = "data"
        try:
            log_density = torch.cat([module.log_density(*part).cpu() for part in parts])
        except ValueError as error:
            units = "scaled"
            self._remarks.append(f"The density is that of scaled events: {error}.")
            log_density = torch.cat(
                [-module.as_computed(some, module.scaling(some), columns).double().cpu() for some, columns in parts]
            )
        more: dict[str, Any] = {}
        if getattr(data, "log_prob", None) is not None and units == "data":
            if module.context:
                self._remarks.append("The true density is without context and that of the detector with it.")
            elif (log_true := data.log_prob(x).double()).isfinite().any():
                more["log_true"] = log_true.numpy()
            else:
                self._remarks.append("No row has a finite true log-density.")
        if callable(latents := getattr(module, "latents", None)):
            more["latents"] = torch.cat([latents(*part).float().cpu() for part in parts]).numpy()
        if log_density.isfinite().all():
            more["two_sample"] = self._two_sample(module, x, rows.context)
        dimensions = math.prod(x.shape[1:])
        self._say_what_spoils_it(module, x.flatten(1).numpy())
        self.found = density_check(log_density.numpy(), dimensions, units=units, **more)
        if left_out := self.found.get("true_left_out"):
            self._remarks.append(f"{left_out:,} rows have no finite true log-density and are left out of the excess.")
        self.found["remarks"] = self._remarks

    def _two_sample(self, module: Any, x: Tensor, context: Tensor) -> TwoSample | None:
        """What a classifier makes of rows and as many samples, each drawn with the context of its row."""
        each = getattr(module, "passes", 1) * sum(p.numel() for p in module.parameters())
        n = min(len(x), self.two_sample_rows, int(MULTIPLICATIONS / max(1, each)))
        if not self.two_sample_rows:
            return None
        if n < LEAST or n < min(len(x), self.two_sample_rows, ENOUGH):
            few = "samples take too long to draw" if n < len(x) else "there are too few rows"
            self._remarks.append(f"No classifier compared samples with events: {few}.")
            return None
        chosen = np.sort(np.random.default_rng(self.seed).choice(len(x), n, replace=False))
        x, context = x[chosen], context[chosen]
        device = module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(self.seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(self.seed)
            try:
                samples = module.sample(n, context.to(device)).float().cpu()
            except ValueError as error:
                self._remarks.append(f"No classifier compared samples with events: {error}.")
                return None
        first, second = (torch.cat([part.flatten(1), context], 1).numpy() for part in (x, samples))
        found = two_sample(first, second, seed=self.seed, threads=torch.get_num_threads())
        if found.components:
            self._remarks.append(f"The classifier saw {found.components} principal components of {first.shape[1]}.")
        low, high = found.interval
        if high - low > 2 * WIDE:
            self._remarks.append(
                f"{n:,} rows and as many samples place the classifier's AUROC no better than {low:.2f} to {high:.2f}."
            )
        return found

    def _say_what_spoils_it(self, module: Any, rows: np.ndarray) -> None:
        if noise := getattr(module, "noise", 0.0):
            self._remarks.append(
                f"Training rows were blurred by detector.noise={noise:g} in scaled units, and these rows are not."
            )
        if discrete := repeating(rows[:LOOKED_AT]):
            self._remarks.append(
                f"{discrete:,} of {rows.shape[1]:,} features repeat their values, as pixels do: a density of them "
                "grows without bound" + ("." if noise else ", unless detector.noise blurs them.")
            )
