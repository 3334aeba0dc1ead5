"""Detectors of over-densities: folds, regions, flows and classifiers, against what they ought to find."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from functools import cache

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.special import expit

from given import OVER_DENSITIES
from straylight import config
from straylight.data import AnomalyDataModule, Bump
from straylight.detectors import ANODE, CATHODE, RANODE, CWoLa, Idealized, LaCATHODE, Supervised
from straylight.detectors.over_density import OverDensity, _keys
from straylight.errors import DataError, Interrupted, StraylightError
from straylight.groups import FOLDER
from straylight.metrics import auroc
from straylight.nn.boosted import EDGES, LEAVES, BoostedTrees
from straylight.nn.classifiers import Network, Sample, Trees, classifiers
from straylight.nn.conditional import ConditionalFlows, Flows, mixture
from straylight.nn.descending import Descent, descend, parted
from straylight.nn.stacked import stack
from straylight.rows.batch import Events, Splits
from straylight.rows.resonance import Resonance, Truth
from straylight.stopping import STOP

SMALL = {"events": 6000, "signal_fraction": 0.05, "test_background": 2000, "test_signal": 500}
TREES = {"members": 1, "min_samples_leaf": 20, "max_iter": 40}
FLOW = {"layers": 2, "hidden": 16, "epochs": 3, "batch_size": 128, "lr": 5e-3}
MLP = {"hidden": [16], "epochs": 3, "kept": 2}
QUICK = {
    "cwola": (CWoLa, {"trees": TREES}),
    "cathode": (CATHODE, {"trees": TREES, "flow": FLOW}),
    "lacathode": (LaCATHODE, {"trees": TREES, "flow": FLOW}),
    "anode": (ANODE, {"flow": FLOW}),
    "r_anode": (RANODE, {"flow": FLOW}),
    "idealized": (Idealized, {"trees": TREES}),
    "supervised": (Supervised, {"trees": TREES, "per_class": 3000}),
}


def made(name: str, context: int = 1, shape: tuple[int, ...] = (4,), **more) -> OverDensity:
    kind, own = QUICK[name]
    pl.seed_everything(3, verbose=False)
    return kind(shape, context=context, **{"folds": 3, **own, **more})


def trained(detector: OverDensity, data: AnomalyDataModule) -> OverDensity:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet).fit(detector, datamodule=data)
    torch.set_grad_enabled(True)
    return detector.eval()


@pytest.fixture(scope="module")
def bump() -> Bump:
    data = Bump(seed=1, **SMALL)
    data.setup()
    return data


@cache
def kept(name: str) -> tuple[OverDensity, Bump]:
    """A detector that was trained on it, for tests that change neither."""
    data = Bump(seed=1, **SMALL)
    data.setup()
    return trained(made(name), data), data


class Region(AnomalyDataModule):
    """Training rows that a test made itself, in a signal region from 1 to 2."""

    def __init__(self, train: Events, truth: Truth | None = None, **common) -> None:
        super().__init__(**common)
        self.train, self._truth = train, truth
        self.resonance = Resonance("m", 0, 1, 2)

    def truth(self) -> Truth:
        return super().truth() if self._truth is None else self._truth

    def load(self) -> Splits:
        test = Events.of(self.train.x[:2], [0, 1], context=self.train.context[:2])
        return Splits(self.train, self.train.take([]), test, test.take([]))


def events(n: int, seed: int = 0, features: int = 2) -> Events:
    random = np.random.default_rng(seed)
    return Events.of(random.normal(size=(n, features)), context=random.uniform(0, 3, (n, 1)))


# what they find


@pytest.mark.parametrize("name", sorted(OVER_DENSITIES))
def test_it_ranks_signal_above_background_better_than_chance_and_never_above_the_optimum(name) -> None:
    detector, bump = kept(name)
    test = bump.splits.test
    with torch.no_grad():
        scores = detector(test.x, test.context).numpy()
    strange = test.y.numpy() > 0
    best = auroc(*(bump.log_ratio(test.x[test.y == y], test.context[test.y == y]).numpy() for y in (0, 1)))
    found = auroc(scores[~strange], scores[strange])
    assert 0.8 < found < best + 0.002, found
    assert best > 0.98


def test_a_strong_correlation_deceives_cwola_and_not_cathode() -> None:
    """Of background alone cwola learns the mass, which it finds in the features; to cathode, the regions are alike."""
    data = Bump(seed=2, **{**SMALL, "events": 9000, "correlation": 4.0, "signal_fraction": 0.0})
    data.setup()
    train, found = data.splits.train, {}
    for name in ("cwola", "cathode"):
        held = trained(made(name), data).held_out(train.x, train.context).score.numpy()
        inside = data.resonance.holds(train.context).numpy()
        found[name] = auroc(held[~inside], held[inside])
    assert found["cwola"] > 0.65 and found["cwola"] > found["cathode"] + 0.05, found


@pytest.mark.parametrize("name", ["cwola", "idealized"])
def test_both_classifiers_are_to_be_had(name, bump) -> None:
    detector = trained(made(name, classifier="mlp", mlp={**MLP, "epochs": 6}), bump)
    test = bump.splits.test
    with torch.no_grad():
        scores = detector(test.x, test.context).numpy()
    assert auroc(scores[test.y == 0], scores[test.y == 1]) > 0.8


def test_r_anode_finds_the_fraction_of_signal() -> None:
    """A strong signal, which a flow of few steps can follow."""
    random, n = np.random.default_rng(0), 6000
    m = random.uniform(0, 3, n)
    inside = (m > 1) & (m < 2)
    signal = inside & (random.random(n) < 0.3)
    x = np.where(signal[:, None], 3 + 0.3 * random.normal(size=(n, 2)), random.normal(size=(n, 2)))
    data = Region(Events.of(x, signal.astype(int), context=m[:, None]), contamination=None)
    detector = trained(made("r_anode", shape=(2,), folds=2, fraction=0.1, flow={**FLOW, "epochs": 10}), data)
    share = detector.logit.sigmoid()
    assert ((share > 0.2) & (share < 0.4)).all(), share


# folds


@pytest.mark.parametrize("folds, models", [(2, 2), (5, 5), ("forward", 4), (None, 1)])
def test_no_event_is_scored_by_a_model_that_has_seen_it(folds, models) -> None:
    """A subclass notes what each model saw, and what scored each event."""

    class Spy(OverDensity):
        def learn(self, rows, truth):
            self.saw = [rows.x[rows.of(k)] for k in range(self.models)]

        def each(self, x, context):
            return torch.arange(float(self.models))[:, None].expand(x.shape[:2])  # the model's number

    train = events(200)
    detector = trained(Spy((2,), context=1, folds=folds), Region(train))
    held = detector.held_out(train.x, train.context)
    assert detector.models == models and (held.fold >= 0).all()
    x = detector.scaling(train.x)
    seen = torch.stack([(x[:, None] == own[None]).all(2).any(1) for own in detector.saw])  # (K, N)
    if folds is None:
        assert seen.all() and held.score.isnan().all()
        return
    scored = ~held.score.isnan()
    assert not seen[held.score[scored].long(), scored.nonzero().flatten()].any()
    sizes = held.fold.bincount()
    assert len(sizes) == (5 if folds == "forward" else folds) and sizes.max() - sizes.min() <= 1
    if folds == "forward":
        assert torch.equal(scored, held.fold > 0) and torch.equal(held.score[scored], held.fold[scored] - 1.0)
        for k in range(models):
            assert torch.equal(seen[k], held.fold <= k), "by the folds before it, and all of them"
    else:
        assert torch.equal(held.score, held.fold.float())
        assert torch.equal(seen, held.fold != torch.arange(models)[:, None])
    # what nobody has seen is scored by the mean of all
    new = detector.held_out(torch.randn(7, 2), torch.ones(7, 1))
    assert (new.fold == -1).all() and torch.equal(new.score, torch.full((7,), (models - 1) / 2))
    # and an ordinary call says the same, but for what has no score, which is the last of all
    told = detector(train.x, train.context)
    assert torch.equal(told[scored], held.score[scored]) and (told[~scored] < -1e30).all() and told.isfinite().all()


@pytest.mark.parametrize("how", ["equal rows", "one group", "equal rows of two groups"])
def test_rows_that_belong_together_are_in_one_fold(how) -> None:
    train, number = events(40), np.repeat(np.arange(40), 5)
    rows = train.take(number)
    if how == "one group":  # of unlike rows
        rows = dataclasses.replace(rows, x=rows.x + torch.randn(200, 2), meta={"group": number})
    if how == "equal rows of two groups":  # pairs of groups share a row, and so all of both are together
        x, number = rows.x.clone(), number // 2
        x[:] = torch.randn(200, 2)
        x[1::10] = x[0::10]
        rows = dataclasses.replace(rows, x=x, meta={"group": np.arange(200) // 5})
        x[5::10] = x[0::10]
    detector = trained(made("cwola", shape=(2,), folds=4, trees={**TREES, "min_samples_leaf": 1}), Region(rows))
    fold = detector.held_out(rows.x, rows.context).fold
    assert all(len(fold[number == one].unique()) == 1 for one in range(number[-1] + 1)) and len(fold.unique()) == 4


def test_folds_are_dealt_by_seed(bump) -> None:
    found = []
    for seed in (1, 1, 2):
        detector = made("cwola")
        detector._noise_seed = seed
        found.append(trained(detector, bump).held_out(bump.splits.train.x, bump.splits.train.context).fold)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_truth_that_is_tested_too_is_scored_by_models_that_have_not_seen_it() -> None:
    background, signal, train = events(300, 1), events(300, 2), events(300, 3)
    detector = trained(made("supervised", shape=(2,)), Region(train, Truth(background, signal)))
    for part in (background, signal):
        assert (detector.held_out(part.x, part.context).fold >= 0).all()


def test_keys_are_equal_where_events_are_and_nowhere_else() -> None:
    x = torch.randn(20_000, 3)
    assert len(_keys(x).unique()) == 20_000
    assert torch.equal(_keys(x), torch.cat([_keys(part) for part in x.split(77)]))
    grid = torch.tensor(list(itertools.product(range(20), repeat=3)), dtype=torch.float32)
    assert len(_keys(grid).unique()) == 8000 and torch.equal(
        _keys(torch.tensor([[0.0, 1]])), _keys(torch.tensor([[-0.0, 1]]))
    )


@pytest.mark.parametrize("name", sorted(OVER_DENSITIES))
@pytest.mark.parametrize("folds", [3, "forward"])
def test_a_state_that_is_loaded_scores_bit_for_bit_as_it_did(name, folds, bump) -> None:
    if folds == "forward" and name not in ("cwola", "anode"):
        pytest.skip("what is kept is the same")
    detector = kept(name)[0] if folds == 3 else trained(made(name, folds=folds), bump)
    pl.seed_everything(99, verbose=False)
    again = made(name, folds=folds)
    again.load_state_dict({key: value.clone() for key, value in detector.state_dict().items()})
    again.eval()
    for part in (bump.splits.train, bump.splits.test):
        with torch.no_grad():
            assert torch.equal(detector(part.x, part.context), again(part.x, part.context))


@pytest.mark.parametrize("name", sorted(OVER_DENSITIES))
def test_a_score_is_of_that_event_alone(name) -> None:
    detector, bump = kept(name)
    x, context = (column[:40] for column in (bump.splits.test.x, bump.splits.test.context))
    with torch.no_grad():
        together = detector(x, context)
        alone = torch.cat([detector(x[i : i + 1], context[i : i + 1]) for i in range(40)])
        backwards = detector(x.flip(0), context.flip(0)).flip(0)
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5) and torch.allclose(together, backwards, atol=1e-5)


@pytest.mark.parametrize("name", ["cwola", "cathode", "idealized", "supervised"])
def test_no_classifier_sees_the_mass(name) -> None:
    detector, bump = kept(name)
    x, context = (column[:50] for column in (bump.splits.test.x, bump.splits.test.context))
    with torch.no_grad():
        assert torch.equal(detector(x, context), detector(x, context + 0.1))


@pytest.mark.parametrize("name", sorted(OVER_DENSITIES))
def test_labels_change_nothing_but_for_who_is_told(name) -> None:
    """Those of training rows; yardsticks go by the door of the truth."""
    other = Bump(seed=1, **SMALL)
    other.setup()
    train = other.splits.train
    other.splits = other.splits._replace(train=dataclasses.replace(train, y=torch.zeros_like(train.y)))
    first, second = kept(name)[0], trained(made(name), other)
    with torch.no_grad():
        assert torch.equal(*(one(train.x[:500], train.context[:500]) for one in (first, second)))
    assert any("was told which events are signal" in notice for notice in first.notices) == first.sees_truth


# faults


def test_a_data_set_without_a_resonance_is_refused() -> None:
    class Plain(Region):
        resonance = None

        def __init__(self, train):
            super().__init__(train)
            self.resonance = None

    with pytest.raises(DataError, match=r"looks for a resonance, and plain names none: choose data=bump"):
        trained(made("cwola", shape=(2,)), Plain(events(50)))
    with pytest.raises(ValueError, match=r"the data set has no context that holds its mass: choose data=bump"):
        made("cwola", context=0)


@pytest.mark.parametrize("name", ["cwola", "cathode", "anode"])
@pytest.mark.parametrize("empty", ["the signal region, 1 <= m <= 2", "the sidebands, beside the signal region"])
def test_a_region_without_events_is_told(name, empty) -> None:
    train = events(90)
    inside = (train.context[:, 0] >= 1) & (train.context[:, 0] <= 2)
    rows = train.take((inside if "sidebands" in empty else ~inside).nonzero().flatten().numpy())
    with pytest.raises(DataError, match=rf"has 0 training rows of {empty}"):
        trained(made(name, shape=(2,)), Region(rows))


def test_fewer_events_than_folds_are_told() -> None:
    with pytest.raises(DataError, match=r"fewer events, or groups of them, than the 50 folds of detector.folds"):
        trained(made("cwola", shape=(2,), folds=50), Region(events(30)))


def test_a_yardstick_without_the_truth_is_refused() -> None:
    with pytest.raises(DataError, match="does not know which events are signal"):
        trained(made("idealized", shape=(2,)), Region(events(90)))


@pytest.mark.parametrize(
    "more, said",
    [
        ({"folds": 1}, "detector.folds must be 2 or more, forward or null, not 1"),
        ({"folds": "back"}, "detector.folds must be 2 or more, forward or null, not 'back'"),
        ({"folds": True}, "detector.folds must be 2 or more"),
        ({"calibrate": 3}, "detector.calibrate is not for over-densities"),
        ({"classifier": "forest"}, "detector.classifier must be one of trees, mlp, not 'forest'"),
        ({"trees": {"member": 3}}, r"detector.trees has no 'member' \(did you mean 'members'\?\)"),
        ({"trees": {"max_leaf_nodes": 32}}, "detector.trees.max_leaf_nodes must be between 2 and 31, not 32"),
        ({"trees": {"held_out": 0}}, "detector.trees.held_out must be above 0"),
        ({"mlp": {"lr": 0}}, "detector.mlp.lr must be positive"),
        ({"mlp": {"epochs": 0}}, "detector.mlp.epochs must be positive"),
    ],
)
def test_settings_out_of_their_range_are_refused_by_their_key(more, said) -> None:
    with pytest.raises(ValueError, match=said):
        CWoLa((4,), context=1, **more)


@pytest.mark.parametrize(
    "kind, more, said",
    [
        (CATHODE, {"oversampling": 0}, "detector.oversampling must be positive"),
        (CATHODE, {"flow": {"bins": 1}}, "detector.flow.bins must be between 2 and 500"),
        (ANODE, {"inner": {"bins": 1}}, "detector.inner.bins must be between 2 and 500"),
        (ANODE, {"inner": {"epoch": 1}}, r"detector.inner has no 'epoch' \(did you mean 'epochs'\?\)"),
        (RANODE, {"inner": {"layers": 9}}, "detector.inner.layers must be that of detector.flow"),
        (RANODE, {"fraction": 0.9}, "detector.fraction must be between 1e-06 and 0.5"),
        (Supervised, {"per_class": 1}, "detector.per_class must be at least 2"),
    ],
)
def test_settings_of_others_are_refused_too(kind, more, said) -> None:
    with pytest.raises(ValueError, match=said):
        kind((4,), context=1, **more)


def test_whoever_is_asked_to_end_does_so_between_two_steps(monkeypatch, bump) -> None:
    for name in ("cwola", "anode"):
        monkeypatch.setattr(STOP, "asked", True)
        with pytest.raises((Interrupted, SystemExit, KeyboardInterrupt)):
            trained(made(name), bump)
        monkeypatch.setattr(STOP, "asked", False)


# the parts


def test_trees_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(0)
    x = torch.from_numpy(np.c_[random.normal(size=(4000, 3)), random.integers(0, 4, 4000)]).float()
    y = (x[:, 0] * x[:, 1] + 0.3 * x[:, 3] + torch.randn(4000) > 0).numpy()
    trees = BoostedTrees(4)
    trees.cut(x)
    fitted = [
        HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=n, min_samples_leaf=5, random_state=0).fit(
            trees.binned(x).double().numpy(), y
        )
        for n in (2, 13, LEAVES)
    ]
    trees.take(fitted)
    new = torch.cat([torch.randn(3000, 4) * 3, x[:1000], torch.tensor([[1e30] * 4, [-1e30] * 4])])
    codes = trees.binned(new).double().numpy()
    wanted = np.mean([one.decision_function(codes) for one in fitted], 0)
    assert np.allclose(trees(new).numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert codes.max() <= EDGES and trees(new[:0]).shape == (0,)


def test_a_table_of_trees_from_a_strange_file_leads_to_some_leaf() -> None:
    trees = BoostedTrees(2)
    trees.cut(torch.randn(100, 2))
    trees.left = torch.randint(-(2**31), 2**31 - 1, (2, EDGES + 1, 7), dtype=torch.int32)
    trees.values = torch.randn(7, LEAVES)
    assert trees(torch.randn(50, 2)).isfinite().all()


def test_two_samples_count_alike_whatever_their_sizes_and_weights() -> None:
    sample = Sample(
        torch.zeros(5, 1), torch.tensor([True, False, False, False, False]), torch.tensor([3.0, 1, 2, 3, 4])
    )
    weight = sample.balanced()
    assert (
        weight.sum() == pytest.approx(5) and weight[0] == pytest.approx(2.5) and weight[1:].sum() == pytest.approx(2.5)
    )
    with pytest.raises(DataError, match="one is empty"):
        Sample(torch.zeros(2, 1), torch.tensor([True, True]), torch.ones(2)).balanced()


@pytest.mark.parametrize("kind", ["trees", "mlp"])
def test_log_odds_are_the_log_ratio_of_two_gaussians(kind) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(20_000, 1, generator=random) + 1, torch.randn(5000, 1, generator=random)])
    sample = Sample(x, torch.arange(25_000) < 20_000, torch.ones(25_000))
    found = classifiers(kind, 2, 1, Trees(members=2), Network(hidden=(32,), epochs=8, kept=3, lr=3e-3))
    found.fit([sample, sample], seed=0, tell=lambda said: None)
    at = torch.linspace(-1, 2, 31)[:, None]
    with torch.no_grad():
        odds = found(at.expand(2, 31, 1))
    assert (odds - (at[:, 0] - 0.5)).abs().mean() < 0.15  # log p(x | 1) / p(x | 0) = x - 1/2
    assert not torch.equal(odds[0], odds[1])


def test_flows_side_by_side_follow_their_own_rows_and_the_context() -> None:
    random = torch.Generator().manual_seed(0)
    m = torch.rand(12_000, 1, generator=random) * 2000 + 3000  # GeV
    x = torch.randn(12_000, 2, generator=random) * 0.5 + (m - 4000) / 1000
    x[:6000] += 2
    flows = ConditionalFlows(2, 2, 1, Flows(layers=2, hidden=16, epochs=4, batch_size=256, lr=1e-2))
    rows = [torch.arange(6000), torch.arange(6000, 12_000)]
    flows.fit(x, m, torch.ones(12_000), rows, seed=0, tell=lambda said: None)
    at, own = torch.zeros(3, 1) + 4500, torch.tensor([[0.5, 0.5], [2.5, 2.5], [1.0, 1.0]])
    truth = torch.stack([torch.distributions.Normal(centre, 0.5).log_prob(own).sum(1) for centre in (2.5, 0.5)])
    found = flows.log_prob(own.expand(2, 3, 2), at.expand(2, 3, 1))
    assert found[0].argmax() == 1 and found[1].argmax() == 0
    assert abs(found[0, 1] - truth[0, 1]) < 0.3 and abs(found[1, 0] - truth[1, 0]) < 0.3
    drawn = flows.sample(at[:1].expand(2, 4000, 1), random)
    assert torch.allclose(drawn.mean(1), torch.tensor([[2.5, 2.5], [0.5, 0.5]]), atol=0.1)
    codes = flows.latents(x.view(2, 6000, 2), m.view(2, 6000, 1))[0]
    assert codes.mean(0).abs().max() < 0.15 and (codes.std(0) - 1).abs().max() < 0.15


def test_a_single_feature_has_a_flow_too() -> None:
    flows = ConditionalFlows(2, 1, 1, Flows(layers=2, hidden=8, epochs=1))
    x, m = torch.randn(400, 1), torch.rand(400, 1)
    flows.fit(x, m, torch.ones(400), [torch.arange(400)] * 2, seed=0, tell=lambda said: None)
    assert (
        flows.log_prob(x.expand(2, 400, 1), m.expand(2, 400, 1)).shape == (2, 400)
        and flows.sample(m.expand(2, 400, 1)).isfinite().all()
    )


def test_the_mixture_of_two_densities_is_theirs() -> None:
    p, q, logit = torch.randn(9), torch.randn(9), torch.randn(9)
    share = expit(logit.double().numpy())
    wanted = np.log(share * p.double().exp().numpy() + (1 - share) * q.double().exp().numpy())
    assert np.allclose(mixture(p, q, logit).numpy(), wanted, atol=1e-6)


def test_networks_side_by_side_take_the_steps_that_each_would_take_alone() -> None:
    """Where all have as many rows, each is the network that is trained by itself."""
    x, y = torch.randn(300, 3), torch.randn(300)
    torch.manual_seed(0)
    each = [torch.nn.Linear(3, 1) for _ in range(2)]
    rows = [torch.arange(0, 150), torch.arange(150, 300)]
    how = Descent(epochs=2, batch_size=150, lr=0.01)  # all rows at once: their order does not matter

    def loss_of(network):
        return lambda places: (network(x[places])[:, 0] - y[places]).square()

    alone = []
    for network, own in zip(each, rows, strict=True):
        single = torch.nn.Sequential(torch.nn.Linear(3, 1))
        single.load_state_dict({f"0.{name}": value.clone() for name, value in network.state_dict().items()})
        stack([single])
        alone.append(descend(single, loss_of(single), [own], [own], torch.ones(300), how, torch.Generator()))
    both = [torch.nn.Sequential(network) for network in each]
    stack(both)
    found = descend(both[0], loss_of(both[0]), rows, rows, torch.ones(300), how, torch.Generator())
    for name, value in found.items():
        assert torch.allclose(value[0], alone[0][name][0], atol=1e-6)
        assert torch.allclose(value[1], alone[1][name][0], atol=1e-6)


def test_the_epochs_of_least_loss_are_kept_the_best_first_for_each() -> None:
    """Two numbers that are pushed past where they are best; one is there earlier."""
    numbers = torch.nn.ParameterDict({"w": torch.zeros(2)})
    goal = torch.tensor([0.105, 0.305])
    weight = torch.ones(4)

    def loss(places):
        own = numbers["w"].repeat_interleave(len(places) // 2)
        off = (own - goal.repeat_interleave(len(places) // 2)).square()
        return off if not torch.is_grad_enabled() else -own  # trained by another loss, which grows for ever

    rows = [torch.arange(4)] * 2
    found = descend(numbers, loss, rows, rows, weight, Descent(6, 4, 0.1, kept=2), torch.Generator())["w"]
    assert torch.allclose(found, torch.tensor([[0.1, 0.2], [0.3, 0.2]]), atol=0.02) or torch.allclose(
        found, torch.tensor([[0.1, 0.2], [0.3, 0.4]]), atol=0.02
    )


@pytest.mark.parametrize("fault", ["no rows", "not finite"])
def test_a_training_that_cannot_be_is_told(fault) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(1, 1))
    stack([network])
    x = torch.full((10, 1), math.nan if fault == "not finite" else 1.0)
    rows = torch.arange(0 if fault == "no rows" else 10)
    with pytest.raises(StraylightError, match="too few rows" if fault == "no rows" else "Training diverged"):
        descend(
            network,
            lambda p: network(x[p])[:, 0],
            [rows],
            [rows],
            torch.ones(10),
            Descent(1, 5, 0.1),
            torch.Generator(),
        )


@pytest.mark.parametrize("factor", [1.0, 1e6])
def test_a_ratio_of_densities_is_no_noise_of_single_precision_however_far_outside(factor) -> None:
    """There both log-densities are -1e12 or so, which float32 knows to 65,536."""
    x, context = factor * torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0)), torch.rand(2, 500, 1)
    flows = []
    for seed in (0, 1):  # whose permutations of the features differ
        torch.manual_seed(seed)
        flows.append(ConditionalFlows(2, 4, 1, Flows()))
    found = flows[0].log_ratio(flows[1], x, context)
    own, other = (copy.deepcopy(part).double().log_prob(x.double(), context.double()) for part in flows)
    assert torch.allclose(found.double(), own - other, rtol=1e-3, atol=1e-3)


def test_rows_are_parted_by_seed() -> None:
    train, held = parted(torch.arange(100), 0.2, torch.Generator().manual_seed(0))
    assert len(held) == 20 and torch.equal(torch.cat([train, held]).sort().values, torch.arange(100))


# as a user has them


RUN = {
    "cwola": ["detector.trees.members=1"],
    "r_anode": ["detector.flow.epochs=1", "detector.flow.hidden=8", "detector.inner.epochs=1"],
    "supervised": ["detector.trees.members=1", "detector.per_class=2000"],
}


def small(*more: str) -> list[str]:
    return ["data=bump", *(f"data.{key}={value}" for key, value in SMALL.items()), *more]


@pytest.mark.parametrize("name", ["cwola", "r_anode", "supervised"])
def test_a_run_is_recorded_and_opened_again(name, straylight_train) -> None:
    from straylight.run import Run

    ended = straylight_train(f"detector={name}", *small("detector.folds=2", *RUN[name]))
    assert ended.status == 0, ended.err
    assert ended.result["truth"] == (name == "supervised") and ended.result["metrics"]["test/auroc"] > 0
    data = Bump(seed=0, **SMALL)
    data.setup()
    run = Run.open(ended.run)
    import pyarrow.parquet as pq

    written = pq.read_table(ended.run / "scores.parquet")["score"].to_numpy()
    assert np.array_equal(run.score(data.splits.test.x, data.splits.test.context), written)


@pytest.mark.parametrize("name", sorted(OVER_DENSITIES))
def test_it_is_built_from_its_config(name) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={name}", "data=bump", "paths.run=."])
    built = config.build(cfg, "detector", shape=(4,), context=1)
    assert isinstance(built, OverDensity) and built.folds == 5
