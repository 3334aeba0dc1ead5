"""Did the flow train? What the callback measures, on which rows, and what it leaves as it was."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from straylight.callbacks import Density
from straylight.callbacks.density import ENOUGH, LOOKED_AT, MULTIPLICATIONS
from straylight.data import AnomalyDataModule, Gaussians
from straylight.detectors import GMM, KDE, MAF, AutoEncoder, Ensemble, MoMKDE
from straylight.metrics.density import ks_normal, nll
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped


class Held(AnomalyDataModule):
    """Data whose test split is given."""

    def __init__(self, test: Events, train: torch.Tensor | None = None, **common: object) -> None:
        super().__init__(contamination=None, **common)
        self.test = test
        self.train = Events.of(test.x[:50] if train is None else train, context=test.context[:50])

    def load(self) -> Splits:
        none = self.train.take([])
        return Splits(self.train, none, self.test, none)


def normal(n=600, d=2, seed=0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def labelled(x: torch.Tensor, strange=1, **columns: object) -> Events:
    """Events of which the last few are anomalous."""
    return Events.of(x, torch.arange(len(x)) >= len(x) - strange, **columns)


def gaussians(**options: object) -> Gaussians:
    return Gaussians(**{"events": 8000, "fraction": 0.05, "contamination": 0.0, "seed": 0, **options})


def measured(trainer, detector, data, epochs=None, **options) -> dict:
    """What the callback finds in a test, after so many epochs."""
    density = Density(**options)
    made = trainer(callbacks=[density], max_epochs=epochs or 1)
    if epochs:
        made.fit(detector, datamodule=data)
    else:
        detector.scaling.fitted.fill_(True)
    made.test(detector, datamodule=data, verbose=False)
    return density.result().get("density", {})


# the answer


def test_a_flow_that_trained_fits_and_one_that_did_not_does_not(trainer, caplog) -> None:
    data = gaussians()
    with caplog.at_level(logging.INFO, logger="straylight.callbacks.density"):
        found = measured(trainer, MAF((2,), layers=2, hidden=16), data, epochs=10)
    assert found["verdict"] in ("fits", "nearly") and found["sentence"] in caplog.messages
    assert ("rows_needed" in found) == (found["verdict"] == "nearly")  # of latents that so few rows leave open
    assert found["rows"] == int((data.splits.test.y == 0).sum())
    assert found["nll"] - found["entropy"] == pytest.approx(found["excess"], abs=1e-9)
    truth = 1 + math.log(2 * math.pi) + math.log(np.linalg.det(data.covariances[0])) / 2
    assert abs(found["entropy"] - truth) < 4 * found["entropy_se"]
    assert -4 * found["excess_se"] < found["excess"] < 0.06
    assert found["units"] == "data" and found["remarks"] == [] and found["not_finite"] == 0
    assert len(found["latent_ks"]) == 2 and found["two_sample_rows"] == found["rows"]

    found = measured(trainer, MAF((2,), layers=2, hidden=16), data)
    assert found["verdict"] == "does not fit" and "does not fit" in found["sentence"]
    assert found["excess"] > 1 and found["two_sample_auroc"] > 0.8 and found["latent_ks_max"] > 0.3


def test_the_numbers_are_those_of_the_nominal_test_rows(trainer) -> None:
    x = 3 + 2 * normal()
    flow = MAF((2,), layers=1, hidden=8)
    found = measured(trainer, flow, Held(labelled(x, strange=100)), epochs=1)
    with torch.no_grad():
        log_density, latents = flow.log_density(x[:500]), flow.latents(x[:500])
    assert (found["nll"], found["nll_se"]) == pytest.approx(nll(log_density.numpy()), rel=1e-6)
    assert found["latent_ks"] == pytest.approx(ks_normal(latents.numpy()).tolist(), rel=1e-4)
    assert found["rows"] == 500 and "entropy" not in found


@pytest.mark.parametrize("build", [GMM, KDE])
def test_a_density_without_latents_is_judged_by_the_rest(trainer, build) -> None:
    found = measured(trainer, build((2,)), gaussians(), epochs=1)
    assert found["verdict"] == "fits" and "latent_ks" not in found
    assert abs(found["two_sample_auroc"] - 0.5) < 0.04


@pytest.mark.parametrize(
    "build",
    [
        lambda: AutoEncoder((2,), hidden=[4], latent=1),
        lambda: MoMKDE((2,)),
        lambda: Ensemble((2,), member=lambda **given: MAF(layers=1, hidden=4, **given), members=2),
    ],
)
def test_a_detector_without_a_density_is_left_alone(trainer, build) -> None:
    assert measured(trainer, build(), Held(labelled(normal(60))), epochs=1) == {}


def test_a_density_that_is_not_finite_says_so(trainer) -> None:
    flow = MAF((2,), layers=1, hidden=4, scaling="none")
    torch.nn.init.constant_(flow.flow.transforms[0].autoregressive_net.final_layer.bias, math.nan)
    found = measured(trainer, flow, Held(labelled(normal())))
    assert (found["nll"], found["not_finite"], found["verdict"]) == (None, 599, "does not fit")


# which rows


def test_more_rows_than_are_asked_for_are_drawn_by_seed(trainer) -> None:
    x = normal(2001)
    flow, data = MAF((2,), layers=1, hidden=4, scaling="none"), Held(labelled(x))
    found = [measured(trainer, flow, data, max_rows=300, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] and found[0]["rows"] == found[0]["two_sample_rows"] == 300
    assert found[0]["nll"] != found[2]["nll"]
    whole = measured(trainer, flow, data, two_sample_rows=250)
    assert whole["rows"] == 2000 and whole["two_sample_rows"] == 250
    assert abs(found[0]["nll"] - whole["nll"]) < 4 * found[0]["nll_se"]
    assert "two_sample_auroc" not in measured(trainer, flow, data, two_sample_rows=0)


def test_rows_on_disk_are_those_in_memory(trainer) -> None:
    x, flow = normal(800), MAF((2,), layers=1, hidden=4, scaling="none")
    lazy = Events.of(Mapped([x]), torch.arange(800) >= 790)
    options = {"memory_mb": 0, "train": x[:50]}
    found = measured(trainer, flow, Held(lazy, **options), max_rows=300)
    assert found == measured(trainer, flow, Held(labelled(x, 10)), max_rows=300)


def test_weighted_rows_are_kept_by_weight(trainer) -> None:
    x = torch.cat([normal(3000), 4 + normal(3000, seed=1)])
    weight = torch.cat([torch.full((3000,), 3.0), torch.ones(3000)])
    data = Held(labelled(x, weight=weight))
    flow = MAF((2,), layers=1, hidden=4, scaling="none")
    found = measured(trainer, flow, data, max_rows=100_000)
    with torch.no_grad():
        log_density = flow.log_density(x[:-1])
    expected = -float((log_density * weight[:-1]).sum() / weight[:-1].sum())
    assert abs(found["nll"] - expected) < 4 * found["nll_se"]
    assert found["rows"] == pytest.approx(4000, abs=150)
    assert any("in proportion to their event weights" in remark for remark in found["remarks"])


def test_what_a_reader_should_know_is_remarked(trainer) -> None:
    def remarks(events, flow=None, **options):
        flow = flow or MAF((2,), layers=1, hidden=4, scaling="none")
        return " ".join(measured(trainer, flow, Held(events, **options))["remarks"])

    x = normal()
    assert remarks(labelled(x)) == ""
    assert "have no labels" in remarks(Events.of(x, torch.full((600,), -1)))
    assert "blurred by detector.noise=0.1" in remarks(
        labelled(x), MAF((2,), layers=1, hidden=4, scaling="none", noise=0.1)
    )
    pixels = torch.stack([x[:, 0], (x[:, 1] > 0).float()], 1)
    assert "1 of 2 features repeat" in remarks(labelled(pixels)) and len(x) < LOOKED_AT
    assert "there are too few rows" in remarks(labelled(x[:30]))
    assert "place the classifier's AUROC no better than" in remarks(labelled(x[:100]))
    data = Gaussians(protocol="unsupervised", events=200, fraction=0.1)
    found = measured(trainer, MAF((2,), layers=1, hidden=4, scaling="none"), data)
    assert "not held out" in " ".join(found["remarks"])


def test_rows_whose_true_density_is_unknown_are_left_out(trainer) -> None:
    class Known(Held):
        def log_prob(self, x):
            return torch.where(x[:, 0] > 1, -math.inf, -x.square().sum(1) / 2 - math.log(2 * math.pi))

    x = normal()
    found = measured(trainer, MAF((2,), layers=1, hidden=4, scaling="none"), Known(labelled(x)))
    out = int((x[:599, 0] > 1).sum())
    assert found["true_left_out"] == out
    assert f"{out} rows have no finite true log-density and are left out of the excess." in found["remarks"]
    Known.log_prob = lambda self, x: torch.full((len(x),), math.nan)
    found = measured(trainer, MAF((2,), layers=1, hidden=4, scaling="none"), Known(labelled(x)))
    assert "No row has a finite true log-density." in found["remarks"] and "excess" not in found


@pytest.mark.parametrize(
    ("shape", "scaling", "why"),
    [
        ((4,), "gcn_l1", "forgets the mean"),
        ((4,), "unit", "forgets the norm"),
        ((57,), "particles", "have an empty slot"),
    ],
)
def test_a_scaling_that_leaves_no_density_is_measured_in_scaled_units(trainer, shape, scaling, why) -> None:
    x = normal(300, *shape).abs()
    if scaling == "particles":
        x[:, 3:6] = 0
    flow = MAF(shape, layers=1, hidden=8, scaling=scaling)
    found = measured(trainer, flow, Held(labelled(x)), epochs=1)
    with torch.no_grad():
        assert found["nll"] == pytest.approx(float(flow(x[:-1]).double().mean()), rel=1e-6)
    assert found["units"] == "scaled" and why in found["remarks"][0] and "scaled units" in found["sentence"]
    assert ("two_sample_auroc" in found) == (scaling == "particles")  # whose scaling has an inverse


def test_samples_have_the_context_of_their_rows(trainer) -> None:
    context = torch.linspace(-3, 3, 3000)[:, None]
    x = 2 * context + normal(3000, 1)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    events = labelled(x[order], context=context[order])

    class Known(Held):
        def log_prob(self, x):
            raise AssertionError("the marginal density is not that of the detector")

    class Shifted(MAF):  # the very truth: x is normal about twice the context
        def log_prob(self, x, context):
            return torch.distributions.Normal(2 * context[:, 0], 1).log_prob(x[:, 0])

        def latents(self, x, context=None):
            return x - 2 * context

        def sample(self, n, context=None):
            return 2 * context + torch.randn(n, 1)

    flow = Shifted((1,), layers=1, hidden=4, context=1, scaling="none")
    found = measured(trainer, flow, Known(events))
    assert found["verdict"] == "fits" and "entropy" not in found
    assert found["nll"] == pytest.approx(0.5 + math.log(2 * math.pi) / 2, abs=4 * found["nll_se"])
    assert any("without context" in remark for remark in found["remarks"])
    Shifted.sample = lambda self, n, context=None: 2 * context.flip(0) + torch.randn(n, 1)  # another row's
    assert measured(trainer, flow, Known(events))["two_sample_auroc"] > 0.8


# what it costs, and what it leaves alone


def test_samples_that_are_dear_are_fewer_or_none(trainer, monkeypatch) -> None:
    flow, data = MAF((2,), layers=1, hidden=4, scaling="none"), Held(labelled(normal(2000)))
    each = flow.passes * sum(p.numel() for p in flow.parameters())
    assert flow.passes == 2
    flow.passes = int(MULTIPLICATIONS / each * 2 / (ENOUGH + 50))
    found = measured(trainer, flow, data)
    assert found["rows"] == 1999 and ENOUGH <= found["two_sample_rows"] <= ENOUGH + 50
    flow.passes *= 2
    monkeypatch.setattr(flow, "sample", None)  # is not called
    found = measured(trainer, flow, data)
    assert "two_sample_auroc" not in found and "take too long to draw" in found["remarks"][0]


def test_no_random_number_of_the_run_is_used(trainer) -> None:
    flow, data = MAF((2,), layers=1, hidden=4, scaling="none"), Held(labelled(normal()))
    density, found = Density(), []
    made = trainer()
    made.test(flow, datamodule=data, verbose=False)
    for seed in (1, 2):
        pl.seed_everything(seed, verbose=False)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        density.on_test_end(made, flow)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
        found.append(density.found)
    assert found[0] == found[1]


def test_the_first_rank_measures_the_whole_split_and_others_wait(trainer, monkeypatch) -> None:
    flow, data = MAF((2,), layers=1, hidden=4, scaling="none"), Held(labelled(normal()))
    density, waits = Density(), []
    made = trainer(callbacks=[])
    made.test(flow, datamodule=data, verbose=False)  # nothing is taken from the batches of one rank
    monkeypatch.setattr(made.strategy, "barrier", lambda *args: waits.append(bool(density.found)))
    density.on_test_end(made, flow)
    assert density.found == measured(trainer, flow, data)
    monkeypatch.setattr(type(made), "is_global_zero", property(lambda self: False))
    monkeypatch.setattr(flow, "log_density", None)  # is not called
    density.on_test_end(made, flow)
    assert density.result() == {} and waits == [True, False]


def test_loggers_get_the_numbers_and_no_data_module_is_no_error(trainer, tmp_path) -> None:
    flow, data = MAF((2,), layers=1, hidden=4, scaling="none"), gaussians(events=1000)
    density, logger = Density(), pl.loggers.CSVLogger(tmp_path)
    trainer(callbacks=[density], logger=logger).test(flow, datamodule=data, verbose=False)
    header, line = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().split()
    logged = dict(zip(header.split(","), line.split(","), strict=True))
    assert float(logged["test/nll"]) == pytest.approx(density.found["nll"])
    assert {"test/excess", "test/bits_per_dim", "test/two_sample_auroc", "test/latent_ks_max"} <= set(logged)
    trainer(callbacks=[density]).test(flow, dataloaders=data.test_dataloader(), verbose=False)
    assert density.result() == {}


@pytest.mark.parametrize("option", [{"max_rows": 0}, {"two_sample_rows": -1}, {"two_sample_rows": 49}, {"seed": -1}])
def test_options_that_cannot_be_used(option) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.density\.max_rows must be positive"):
        Density(**option)


def test_a_run_keeps_the_answer(straylight_train) -> None:
    ended = straylight_train("detector=maf", "data=gaussians", "data.events=2000", "data.fraction=0.1", epochs=1)
    assert ended.status == 0
    found = ended.result["density"]
    assert found["sentence"].startswith("The density ") and "verdict" in found and found["excess"] is not None
    ended = straylight_train("detector=pca", "data=gaussians", "data.events=2000", "data.fraction=0.1", output="pca")
    assert "density" not in ended.result
