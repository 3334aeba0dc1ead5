"""What features add to scores: sums, oracles, groups, what is refused, and the command."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from entered import entered
from fitting import fitted
from straylight.commands.explain import _numbers as numbers
from straylight.data import AnomalyDataModule, Blobs
from straylight.detectors import (
    AAE,
    COPOD,
    DBSCAN,
    ECOD,
    GMM,
    HBOS,
    KDE,
    KNN,
    PCA,
    VAE,
    AnoGAN,
    AutoEncoder,
    BayesianGMM,
    CWoLa,
    DeepSVDD,
    EllipticEnvelope,
    Ensemble,
    FAnoGAN,
    IsolationForest,
    LocalOutlierFactor,
    Mahalanobis,
    MoMKDE,
    OneClassSVM,
    ParticleBaseline,
    RandomFeatures,
    Residual,
    RobustKDE,
    Views,
)
from straylight.errors import ConfigError, DataError
from straylight.explain import Explainer, Nominal, contributions, features_of
from straylight.explain.events import Named, chosen
from straylight.explain.gradients import integrated_gradients
from straylight.explain.nearest import centre
from straylight.explain.shapley import shapley
from straylight.files.fitting import Part
from straylight.report import figures
from straylight.rows.batch import Events, Splits
from straylight.run import Run

D = 6


def rows(n: int, seed: int = 0, d: int = D) -> torch.Tensor:
    """Correlated, so that features do not speak for themselves alone."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, d, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, 3, generator=generator) @ mixing + 0.3 * torch.randn(n, d, generator=generator)


def of_members(**options) -> Ensemble:
    from functools import partial

    return Ensemble((D,), member=partial(AutoEncoder, hidden=[8], latent=2), members=3, **options)


TABLES = {
    "pca": lambda: PCA((D,), components=3, variant="reconstruction"),
    "pca whitened": lambda: PCA((D,)),
    "mahalanobis": lambda: Mahalanobis((D,)),
    "elliptic_envelope": lambda: EllipticEnvelope((D,)),
    "ecod": lambda: ECOD((D,)),
    "ecod feature": lambda: ECOD((D,), aggregate="feature"),
    "copod": lambda: COPOD((D,)),
    "copod feature": lambda: COPOD((D,), aggregate="feature"),
    "hbos": lambda: HBOS((D,)),
    "knn": lambda: KNN((D,)),
    "knn mean manhattan": lambda: KNN((D,), distance="mean", metric="manhattan"),
    "knn cosine": lambda: KNN((D,), metric="cosine"),
    "dbscan": lambda: DBSCAN((D,)),
    "local_outlier_factor": lambda: LocalOutlierFactor((D,)),
    "residual": lambda: Residual((D,)),
    "random_features": lambda: RandomFeatures((D,)),
    "views": lambda: Views((D,)),
    "isolation_forest": lambda: IsolationForest((D,), n_estimators=20),
    "one_class_svm": lambda: OneClassSVM((D,)),
    "kde": lambda: KDE((D,)),
    "robust_kde": lambda: RobustKDE((D,)),
    "mom_kde": lambda: MoMKDE((D,)),
    "gmm": lambda: GMM((D,), components=2, restarts=1),
    "bayesian_gmm": lambda: BayesianGMM((D,), components=2),
    "autoencoder": lambda: AutoEncoder((D,), hidden=[8], latent=2),
    "vae": lambda: VAE((D,), hidden=[8], latent=2),
    "vae reconstruction": lambda: VAE((D,), hidden=[8], latent=2, score="reconstruction"),
    "vae bernoulli": lambda: VAE((D,), hidden=[8], likelihood="bernoulli", score="reconstruction", scaling="minmax"),
    "aae": lambda: AAE((D,), hidden=[8], latent=2),
    "aae both": lambda: AAE((D,), hidden=[8], latent=2, score="both"),
    "fanogan": lambda: FAnoGAN((D,), latent=2, generator=[8], discriminator=[8]),
    "fanogan residual": lambda: FAnoGAN((D,), latent=2, generator=[8], discriminator=[8], kappa=0.0),
    "anogan": lambda: AnoGAN((D,), latent=2, generator=[8], discriminator=[8], steps=5),
    "deep_svdd": lambda: DeepSVDD((D,), hidden=[8], latent=2),
    "ensemble": of_members,
}
EXACT = {
    *("pca", "pca whitened", "mahalanobis", "elliptic_envelope", "ecod", "ecod feature", "copod", "copod feature"),
    *("hbos", "autoencoder", "vae reconstruction", "vae bernoulli", "aae", "fanogan residual", "anogan", "ensemble"),
}


def detector_of(name: str):
    torch.manual_seed(0)
    detector, x = TABLES[name](), rows(200)
    detector.scaling.fit([x])
    if hasattr(detector, "fit"):
        fitted(detector, detector.scaling(x))
    return detector.eval()


@pytest.mark.parametrize("name", TABLES)
def test_contributions_sum_to_the_score_less_the_baseline(name) -> None:
    detector, x = detector_of(name), rows(12, 1) * 2
    reference = rows(3, 2)
    found = contributions(detector, x, reference=reference, evaluations=200)
    with torch.no_grad():
        score, others = detector(x).double().numpy(), detector(reference).double().numpy()
    assert found.of.shape == (12, D) and found.method == ("exact" if name in EXACT else detector.explained_by)
    scale = np.abs(found.of).sum(1) + np.abs(found.baseline) + np.abs(score)
    assert (np.abs(found.of.sum(1) + found.baseline - score) <= 1e-9 * scale).all()
    # and what was spread to that end is rounding, or 1 % of the way along a path
    allowed = (1e-5 if found.method != "gradients" else 0.03) * scale
    assert (np.abs(found.remainder) <= allowed).all()
    assert np.array_equal(found.score, score)
    if name != "anogan":  # whose baseline is what the discriminator says of each event, too
        assert np.allclose(found.baseline, others.mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(EXACT))
def test_parts_alone_are_exact_and_need_no_reference(name) -> None:
    detector, x = detector_of(name), rows(12, 1) * 2
    with torch.no_grad():
        parts = detector.parts(detector.scaling(x), x[:, :0])
        score = detector(x).double()
    total = parts.of.double().sum(1) + parts.baseline
    assert torch.allclose(total, score, rtol=2e-5, atol=1e-5)
    assert np.allclose(contributions(detector, x).of, parts.of.double().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in TABLES if "gan" not in n])
def test_an_event_equal_to_its_reference_has_nothing_to_explain(name) -> None:
    x = rows(4, 3)
    found = contributions(detector_of(name), x, reference=x[:, None], evaluations=100)
    assert np.abs(found.of).max() <= 1e-5 * (1 + np.abs(found.score).max())


def brute(score, x, reference) -> np.ndarray:
    """Shapley values by their definition: the mean over all orders."""
    d, total = len(x), np.zeros(len(x))
    for order in itertools.permutations(range(d)):
        now = reference.clone()
        before = float(score(now[None]))
        for j in order:
            now[j] = x[j]
            after = float(score(now[None]))
            total[j] += after - before
            before = after
    return total / math.factorial(d)


@pytest.mark.parametrize("name", ["knn", "isolation_forest", "local_outlier_factor", "knn cosine"])
def test_shapley_values_are_those_of_all_orders(name) -> None:
    d = 4
    x, one, reference = rows(100, d=d), rows(1, 1, d)[0] * 2, rows(1, 2, d)[0]
    detector = {
        "knn": lambda: KNN((d,)),
        "knn cosine": lambda: KNN((d,), metric="cosine"),
        "isolation_forest": lambda: IsolationForest((d,), n_estimators=10),
        "local_outlier_factor": lambda: LocalOutlierFactor((d,), k=5),
    }[name]()
    fitted(detector, detector.scaling.fit([x])(x))
    with torch.no_grad():
        expected = brute(detector, one, reference)
    whole = contributions(detector, one[None], reference=reference[None])
    assert np.allclose(whole.of[0], expected, atol=1e-5)
    # too few evaluations for all mixtures: orders are drawn, and hit it in the mean
    four = reference[None].repeat(4, 1)
    drawn = [contributions(detector, one[None], reference=four, evaluations=30, seed=seed).of[0] for seed in range(100)]
    assert np.std(drawn, 0).max() > 0
    assert np.allclose(np.mean(drawn, 0), expected, atol=0.25 * np.abs(expected).max() + 1e-6)


def test_more_orders_come_nearer() -> None:
    d = 12
    detector, x = KNN((d,)), rows(200, d=d)
    fitted(detector, detector.scaling.fit([x])(x))
    one, reference = rows(5, 1, d) * 2, rows(5, 2, d)[:, None]
    exact = contributions(detector, one, reference=reference, evaluations=2**d).of
    errors = [
        np.abs(contributions(detector, one, reference=reference, evaluations=n).of - exact).mean()
        for n in (26, 200, 1500)
    ]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("name", ["mahalanobis", "pca", "pca whitened", "elliptic_envelope"])
def test_quadratic_scores_have_the_shapley_values_of_their_parts(name) -> None:
    detector, x, reference = detector_of(name), rows(5, 1), rows(2, 2)
    exact = contributions(detector, x, reference=reference)
    mixed = contributions(detector, x, reference=reference, method="shapley", evaluations=2**10)
    along = contributions(detector, x, reference=reference, method="gradients")
    scale = np.abs(exact.of).max()
    assert np.allclose(exact.of, mixed.of, atol=1e-5 * scale) and np.allclose(exact.of, along.of, atol=1e-4 * scale)


def test_the_parts_of_mahalanobis_are_those_of_its_formula() -> None:
    detector, x = detector_of("mahalanobis"), rows(5, 1)
    scaled = detector.scaling(x).double()
    apart = scaled - detector.mean
    inverse = detector.directions @ detector.directions.T
    expected = torch.stack([d * (inverse @ d) for d in apart])
    assert np.allclose(contributions(detector, x).of, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["hbos", "ecod feature", "copod feature"])
def test_additive_scores_have_the_shapley_values_of_their_parts(name) -> None:
    detector, x, reference = detector_of(name), rows(5, 1), rows(2, 2)
    exact = contributions(detector, x, reference=reference)
    mixed = contributions(detector, x, reference=reference, method="shapley", evaluations=2**10)
    assert np.allclose(exact.of, mixed.of, atol=1e-4)


captum = pytest.importorskip("captum.attr", reason="without `pip install 'straylight[dev]'` there is no captum")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gmm", "kde", "vae", "deep_svdd", "one_class_svm"])
def test_integrated_gradients_are_captums(name) -> None:
    detector, x, reference = detector_of(name), rows(4, 1), rows(1, 2)
    scaled, behind = detector.scaling(x), detector.scaling(reference)
    context = x[:, :0]
    ours, baseline = integrated_gradients(detector.score, scaled, context, behind.expand(4, 1, D), 1000)
    theirs = captum.IntegratedGradients(lambda z: detector.score(z, z[:, :0])).attribute(
        scaled, behind.expand(4, D), n_steps=256, method="gausslegendre"
    )
    scale = ours.abs().max()
    assert torch.allclose(ours, theirs.detach().double(), atol=0.02 * float(scale))
    with torch.no_grad():
        assert torch.allclose(baseline, detector.score(behind, behind[:, :0]).double().expand(4), rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_sampled_shapley_values_are_captums() -> None:
    detector, x, reference = detector_of("isolation_forest"), rows(3, 1), rows(1, 2)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    scaled, behind = detector.scaling(x), detector.scaling(reference)
    ours, _ = shapley(detector.score, scaled, x[:, :0], behind.expand(3, 1, D), groups, 1000)
    theirs = captum.ShapleyValues(lambda z: detector.score(z, z[:, :0])).attribute(
        scaled, behind.expand(3, D), feature_mask=groups[None]
    )
    assert np.allclose(ours.numpy(), theirs[:, ::2].double().numpy(), atol=1e-5)


def test_a_path_that_is_hard_takes_more_steps() -> None:
    asked = []

    def kinked(z, context):
        asked.append(len(z))
        return (z[:, 0] - 0.37).relu().pow(0.5) + z[:, 1]

    found, _ = integrated_gradients(kinked, torch.tensor([[1.0, 1.0]]), torch.zeros(1, 0), torch.zeros(1, 1, 2), 1000)
    smooth, _ = integrated_gradients(
        lambda z, c: z.square().sum(1), torch.tensor([[1.0, 1.0]]), torch.zeros(1, 0), torch.zeros(1, 1, 2), 1000
    )
    assert 64 in asked and abs(float(found[0, 0]) - 0.63**0.5) < 0.1
    assert torch.allclose(smooth, torch.ones(1, 2, dtype=torch.float64))


def test_the_parts_of_a_category_and_of_what_is_missing_are_one_feature() -> None:
    columns = ["bytes", "service=dns", "service=http", "bytes is missing"]
    recipe = {"categories": {"service": ["dns", "http"]}, "centres": {"bytes": [1e9, 1.0]}}
    for given in (recipe, None):
        features = features_of((4,), columns, given)
        assert features.names == ("bytes", "service") and features.groups.tolist() == [0, 1, 1, 0]
    x = np.array([[2.0, 0, 1, 0], [0.0, 0, 0, 1]])
    assert features_of((4,), columns, recipe).values(x) == [[1e9 + 2, "http"], [None, None]]
    detector = HBOS((4,), scaling="none")
    fitted(detector, torch.rand(50, 4).round())
    apart = contributions(detector, x)
    together = contributions(detector, x, groups=features.groups)
    assert np.allclose(together.of, np.c_[apart.of[:, [0, 3]].sum(1), apart.of[:, [1, 2]].sum(1)])


def test_a_column_with_an_equals_sign_of_its_own_stays_alone() -> None:
    assert features_of((2,), ["a=b", "c"]).names == ("a=b", "c")


@pytest.mark.parametrize(
    ("shape", "columns", "kind", "names"),
    [
        ((57,), ["MET pT", "MET eta", "MET phi", "electron 1 pT"], "particles", ("MET", "electron 1", "particle 2")),
        ((19, 3), (), "particles", ("particle 0", "particle 1")),
        ((1, 19, 3), (), "particles", ("particle 0", "particle 1")),
        ((1, 4, 5), (), "image", ("pixel (0, 0)", "pixel (0, 1)")),
        ((3, 4, 4), (), "image", ("pixel (0, 0)", "pixel (0, 1)")),
        ((2, 7), (), "series", ("channel 0, step 0", "channel 0, step 1")),
        ((2, 2, 2), (), "series", ("[0, 0, 0]", "[0, 0, 1]")),
        ((3,), (), "table", ("x1", "x2", "x3")),
    ],
)
def test_features_of_every_kind_of_event(shape, columns, kind, names) -> None:
    features = features_of(shape, columns)
    assert features.kind == kind and features.names[: len(names)] == names
    size = math.prod(shape)
    counts = np.bincount(features.groups, minlength=len(features.names))
    assert len(features.groups) == size and set(counts) == {size // len(features.names)}
    x = np.arange(2.0 * size).reshape(2, *shape)
    assert np.allclose(features.sums(x).sum(1), x.reshape(2, -1).sum(1))
    assert len(features.values(x)[1]) == len(features.names)


def test_objects_of_particles_are_explained_whole() -> None:
    x = torch.zeros(2, 19, 3)
    x[:, 0] = torch.tensor([50.0, 0.0, 1.0])
    x[1, 4] = torch.tensor([300.0, 1.0, 2.0])
    for shape in ((57,), (19, 3), (1, 19, 3)):
        features = features_of(shape, ["MET pT"] if len(shape) == 1 else ())
        events = x.view(2, *shape)
        found = contributions(ParticleBaseline(shape, quantity="sum_pt"), events, groups=features.groups)
        assert found.of.shape == (2, 19) and found.of[1, 4] == 300 and found.of[0].sum() == 50
        model = AutoEncoder(shape, hidden=[8], latent=2, scaling="particles_log", mask=shape == (19, 3))
        model.scaling.fit([events])
        why = contributions(model.eval(), events, groups=features.groups)
        assert np.allclose(why.of.sum(1) + why.baseline, why.score)
        if shape == (19, 3):
            assert (why.of[0, 1:] == 0).all()  # padding


def test_pixels_of_channels_are_one_and_too_many_to_sample_are_patches() -> None:
    x = torch.rand(30, 1, 20, 20)
    detector = fitted(KNN((1, 20, 20), scaling="none"), x)
    strange, features = x[:2].clone(), features_of((1, 20, 20))
    strange[:, :, 4:6, 8:10] = 5
    found = contributions(
        detector, strange, groups=features.groups, reference=x[5:7][:, None] * 0 + x[:2][:, None], evaluations=300
    )
    maps = found.of.reshape(2, 20, 20)
    assert np.allclose(found.of.sum(1) + found.baseline, found.score) and maps[0].max() == maps[0, 4, 8]
    assert (maps[:, 4, 8] == maps[:, 5, 9]).all() and np.abs(maps[0, 10:]).max() < 1e-6
    model = AutoEncoder((3, 8, 8), hidden=[8], latent=2, scaling="none").eval()
    colours = features_of((3, 8, 8))
    why = contributions(model, torch.rand(2, 3, 8, 8), groups=colours.groups)
    assert why.of.shape == (2, 64) and np.allclose(why.of.sum(1), why.score)


def test_context_stays_the_events_own() -> None:
    class Shifted(GMM):
        def score(self, x, context):
            return super().score(x - context, context)

    detector = Shifted((2,), components=1, context=1, scaling="none")
    detector.fit(torch.randn(100, 2), torch.zeros(100, 1), torch.ones(100))
    x, context = torch.tensor([[5.0, 5.0]]), torch.tensor([[5.0]])
    near = contributions(detector, x, context, reference=torch.tensor([[5.0, 5.0]]))
    assert np.abs(near.of).max() < 1e-6
    with pytest.raises(ConfigError, match="1 columns of context, not"):
        contributions(detector, x, reference=x)


@pytest.mark.parametrize("name", ["mahalanobis", "autoencoder", "gmm", "knn", "residual", "isolation_forest", "ecod"])
def test_an_absurd_feature_is_why_and_the_sum_holds(name) -> None:
    detector, x = detector_of(name), rows(3, 1)
    x[1, 2] = 1e30
    found = contributions(detector, x, reference=rows(2, 2), evaluations=100)
    assert np.isfinite(found.of).all() and np.allclose(found.of.sum(1) + found.baseline, found.score, rtol=1e-6)
    if name not in ("isolation_forest", "ecod"):
        assert found.of[1].argmax() == 2


@pytest.mark.parametrize("training", [True, False])
def test_explaining_leaves_the_detector_as_it_was(training) -> None:
    detector = detector_of("vae").train(training)
    drawn = torch.get_rng_state()
    with torch.inference_mode():
        contributions(detector, rows(3), reference=rows(1, 1))
    assert detector.training is training and all(p.requires_grad and p.grad is None for p in detector.parameters())
    assert torch.equal(drawn, torch.get_rng_state())


def test_rows_are_explained_alike_alone_and_together() -> None:
    for name in ("knn", "vae", "autoencoder"):
        detector, x, near = detector_of(name), rows(5, 1), rows(5, 2)[:, None]
        whole = contributions(detector, x, reference=near, evaluations=100).of
        single = np.concatenate(
            [contributions(detector, x[[i]], reference=near[[i]], evaluations=100).of for i in range(5)]
        )
        assert np.allclose(whole, single, atol=1e-4 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "lime"}, "no method 'lime'"),
        ({"method": "gradients"}, "against reference events"),
        ({"reference": np.zeros((3, 5))}, "references of shape"),
        ({"groups": [0, 1]}, "a group from 0 is needed"),
    ],
)
def test_what_cannot_be_explained_is_refused(options, said) -> None:
    with pytest.raises(ConfigError, match=said):
        contributions(detector_of("pca"), rows(2), **options)
    with pytest.raises(ConfigError, match="scores events of shape"):
        contributions(detector_of("pca"), rows(2)[:, :3])
    with pytest.raises(ConfigError, match="no sum over features; explain it by shapley"):
        contributions(detector_of("local_outlier_factor"), rows(2), method="exact")
    hunter = CWoLa((D,), context=1, folds=2)
    given = {"reference": rows(3), "method": "gradients"}
    with pytest.raises(ConfigError, match="the score of this CWoLa has no gradient; explain it by shapley"):
        contributions(hunter, rows(2), np.zeros((2, 1)), **given)


def test_no_event_is_explained_by_nothing() -> None:
    assert contributions(detector_of("pca"), rows(0)).of.shape == (0, D)


# against which


def test_the_nearest_nominal_rows_are_like_the_event_but_in_what_is_strange() -> None:
    detector, x = detector_of("pca"), rows(500)
    nominal = Nominal(detector, x, x[:, :0])
    assert len(nominal.rows) == 450  # less the strangest tenth
    own = nominal.rows[:20].clone()
    strange = own.clone()
    strange[:, 3] += 50
    near = nominal.near(strange)
    assert near.shape == (20, 4, D) and torch.equal(near[:, 0], own)
    assert not (nominal.near(own)[:, 0] == own).all(1).any()  # a row is not explained by itself


class Contaminated(AnomalyDataModule):
    def load(self) -> Splits:
        x = rows(100)
        x[90:] += 100
        labels = [0] * 90 + [1] * 10
        test = Events.of(torch.cat([x[:5], x[95:]]), [0] * 5 + [1] * 5)
        return Splits(Events.of(x, labels), Events.of(x[:0]), test, Events.of(x[:0]))


def test_rows_labelled_as_anomalous_are_not_nominal() -> None:
    data = Contaminated(contamination=None)
    nominal = Nominal.of(detector_of("pca"), data)
    assert float(nominal.rows.abs().max()) < 50 and len(nominal.rows) == 81


def test_without_the_data_it_is_said_and_the_middle_stands_for_it() -> None:
    def gone():
        raise ConfigError("the data are gone")

    detector, x = detector_of("gmm"), rows(3, 1)
    why = Explainer(detector, features_of((D,)), gone)(x)
    assert why.nearest is None and "middle" in why.stated and "the data are gone" in why.notices[0]
    with torch.no_grad():
        assert np.allclose(why.baseline, float(detector(detector.scaling.shift[None])), atol=1e-4)
    exact = Explainer(detector_of("hbos"), features_of((D,)), gone)(x)
    assert exact.method == "exact" and "highest bin" in exact.stated and (exact.baseline == 0).all()
    known = {"medians": {f"x{i + 1}": 2.0 for i in range(D)}, "columns": [f"x{i + 1}" for i in range(D)]}
    kept = Explainer(detector, features_of((D,)), gone, recipe=known)(x)
    assert "median" in kept.stated
    with torch.no_grad():
        assert np.allclose(kept.baseline, float(detector(torch.full((1, D), 2.0))), atol=1e-4)
    bare = fitted(KNN((D,), scaling="none"), rows(50))
    assert centre(bare) is None
    with pytest.raises(ConfigError, match="explained against training rows, and the data are gone"):
        Explainer(bare, features_of((D,)), gone)(x)


# which rows


def parts_of(x: torch.Tensor, size: int, kept: dict[int, np.ndarray] | None = None):
    import pyarrow as pa

    for start in range(0, len(x), size):
        part = x[start : start + size]
        own = None if kept is None else kept.get(start)
        reasons = {} if own is None else {i: "'a' is missing" for i in range(len(part)) if i not in own}
        table = pa.table({"id": [f"id{start + i}" for i in range(len(part))]})
        fit = part if own is None else part[own]
        found = Part(start, len(part), fit, fit[:, :0], own, reasons, table)
        yield found, found.spread(fit[:, 0].double().numpy())


@pytest.mark.parametrize("size", [3, 7, 100])
def test_the_strangest_rows_are_found_whatever_the_pieces(size) -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = chosen(parts_of(x, size), None, 4, "a.csv", ["id"])
    best = x[:, 0].argsort(descending=True)[:4]
    assert found.names["row"] == (best + 1).tolist() and torch.equal(found.x, x[best])
    assert found.names["id"] == [f"id{i}" for i in best.tolist()]
    asked = chosen(parts_of(x, size), [17, 3], 4, "a.csv", ["id"])
    assert torch.equal(asked.x, x[[16, 2]]) and asked.names["row"] == [17, 3]


def test_rows_that_are_not_there_or_do_not_fit_are_refused() -> None:
    x = torch.randn(10, 2)
    kept = {0: np.array([0, 2, 3, 4]), 5: np.arange(5)}
    with pytest.raises(DataError, match=r"row 2 of a[.]csv cannot be scored: 'a' is missing"):
        chosen(parts_of(x, 5, kept), [2], 4, "a.csv", [])
    with pytest.raises(DataError, match="has no row 11, but 10 rows"):
        chosen(parts_of(x, 5), [11], 4, "a.csv", [])
    with pytest.raises(DataError, match="no row that can be scored"):
        chosen(parts_of(x[:0], 5), None, 4, "a.csv", [])
    third = chosen(parts_of(x, 5, kept), [3], 4, "a.csv", [])
    assert torch.equal(third.x[0], x[2])


@pytest.mark.parametrize("text", ["", "0", "a", "3-", "5-3", "1,,2", "-1"])
def test_numbers_of_rows_are_whole_numbers_from_one(text) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="rows are numbers from 1"):
        numbers(text)


# figures


def test_a_waterfall_ends_at_the_score() -> None:
    of = np.array([5.0, -2.0, 0.1, 0.2, 0.3])
    figure = figures.waterfall(of, 1.0, list("abcde"), list("12345"), "row 3", most=2)
    axis = figure.axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends[-1] == pytest.approx(4.6) and axis.patches[0].get_x() == 1.0
    assert [t.get_text() for t in axis.get_yticklabels()] == ["3 other features", "b = 2", "a = 1"]
    with pytest.raises(ValueError, match="do not fit"):
        figures.waterfall(of, 1.0, ["a"])


def test_a_series_is_drawn_above_its_map() -> None:
    figure = figures.by_step(np.random.default_rng(0).normal(size=(12, 30)), np.ones((12, 30)), "row 1")
    assert len(figure.axes[0].lines) == 9 and figure.axes[1].images[0].get_array().shape == (12, 30)
    with pytest.raises(ValueError, match="must be"):
        figures.by_step(np.ones(3), np.ones(3))


# the command


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    n = 400
    a, s = random.normal(size=(n, 3)), random.choice(["http", "dns"], n)
    y = np.arange(n) >= 380
    a[y, 1] += 30
    lines = ["ident,a,b,c,service,attack"]
    for i in range(n):
        b = "" if i < 380 and i % 10 == 7 else f"{a[i, 1]:.4f}"
        lines.append(f"u{i},{a[i, 0]:.4f},{b},{a[i, 2]:.4f},{s[i]},{int(y[i])}")
    path = tmp_path_factory.mktemp("explained") / "mine.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def run(table, straylight_train) -> Path:
    """Trained once for all tests."""
    folder = table.parent / "run"
    if not (folder / "result.json").is_file():
        typed = ["data=file", f"data.path={table}", "data.label=attack", "data.meta=[ident]", "data.missing=indicator"]
        ended = straylight_train("detector=knn", *typed, f"hydra.run.dir={folder}")
        assert ended.status == 0, ended.err
    return folder


def typed(monkeypatch, capfd, *words) -> tuple[int, str, str]:
    return entered(monkeypatch, capfd, "explain", *words)


def test_the_command_explains_rows_of_a_file_and_of_the_test(run, table, tmp_path, monkeypatch, capfd) -> None:
    out, pictures = tmp_path / "why.parquet", tmp_path / "pictures"
    status, said, err = typed(monkeypatch, capfd, run, table, "--top", "3", "-o", out, "--figures", pictures)
    assert status == 0, err
    assert "ident u3" in said and "baseline: the mean score of the 4 nominal" in said and "3 pictures" in said
    found = pq.read_table(out)
    assert found.num_rows == 3 * 4
    names = ["file", "row", "ident", "feature", "value", "contribution", "nearest_nominal", "baseline", "score"]
    assert found.column_names == names
    first = found.slice(0, 4).to_pydict()
    assert first["feature"][0] == "b" and first["row"][0] > 380 and first["ident"][0] == f"u{first['row'][0] - 1}"
    assert sum(first["contribution"]) + first["baseline"][0] == pytest.approx(first["score"][0], rel=1e-9)
    assert len(list(pictures.glob("*.png"))) == 3
    status, said, _ = typed(monkeypatch, capfd, run, table, "--rows", "8,3-4", "--json")
    told = json.loads(said)
    assert status == 0 and [row["row"] for row in told["rows"]] == [8, 3, 4]
    assert told["method"] == "shapley" and len(told["rows"][0]["features"]) == 4
    values = {one["feature"]: one["value"] for one in told["rows"][0]["features"]}
    assert values["b"] is None and values["service"] in ("http", "dns")
    status, said, err = typed(monkeypatch, capfd, run, "--top", "2", "-o", tmp_path / "why.csv")
    assert status == 0, err
    assert (tmp_path / "why.csv").read_text().count("\n") == 2 * 4 + 1
    opened = Run.open(run)
    why = opened.explain(table)
    assert len(why) == 400 and np.allclose(why.score, opened.score(table))
    assert why.features.names == ("a", "b", "c", "service")


def test_a_run_whose_data_are_gone_says_so(run, table, tmp_path, monkeypatch, capfd) -> None:
    copy = tmp_path / "elsewhere.csv"
    copy.write_text(table.read_text())
    monkeypatch.setattr("straylight.run.data_of", lambda run: (_ for _ in ()).throw(ConfigError("no data are there")))
    status, said, err = typed(monkeypatch, capfd, run, copy, "--rows", "390")
    assert status == 0 and "no data are there" in err and "median of the training rows" in said
    assert "nearest nominal" not in said


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["{run}", "{table}", "--rows", "0"], 2, "rows are numbers from 1"),
        (["{run}", "{table}", "--rows", "3", "--top", "2"], 2, "not allowed with"),
        (["{run}", "{table}", "--method", "lime"], 2, "invalid choice"),
        (["{run}", "{table}", "--nonsense"], 2, "there is no option --nonsense"),
        ([], 2, "required: RUN"),
        (["{run}", "{table}", "--rows", "500"], 1, "has no row 500, but 400 rows"),
        (["{run}", "gone.csv"], 1, "there is no file gone.csv"),
        (["gone"], 2, "gone"),
        (["{run}", "{table}", "-o", "why.xlsx"], 2, ".parquet or .csv"),
        (["{run}", "--rows", "5000"], 1, "has no test row 5,000"),
        (["{run}", "{table}", "--missing", "error"], 1, "'b' is missing"),
    ],
)
def test_what_is_typed_wrongly_is_one_sentence(words, status, said, run, table, monkeypatch, capfd) -> None:
    given = [word.format(run=run, table=table) for word in words]
    ended, _, err = typed(monkeypatch, capfd, *given)
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert ended == status and len(errors) == 1 and said in errors[0] and err.endswith(f"{errors[0]}\n"), err


def test_help_fits_a_screen(monkeypatch, capfd) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, said, _ = typed(monkeypatch, capfd, "--help")
    assert status == 0 and len(said.splitlines()) <= 25


def test_the_strangest_of_a_study_are_drawn_by_what_explains_them() -> None:
    from straylight.study import study

    data = Blobs(seed=0)
    found = study(KNN(data.shape), data, progress=False)
    figure = found.draw("contributions")
    assert figure.axes[0].get_xlabel().startswith("feature") and "added to the score" in figure.axes[-1].get_ylabel()


def test_what_names_an_event_is_one_line() -> None:
    who = Named(torch.zeros(1, 2), torch.zeros(1, 0), {"file": ["/a/b.csv"], "row": [3]})
    assert who.called(0) == "row 3 of b.csv"
