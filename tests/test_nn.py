"""Scaling against scikit-learn, learning rates at their ends, dense networks, and many networks in one."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from straylight.nn import Optimization, Scaling, autoregressive_flow, coupling_flow, encoder, mlp
from straylight.nn.flows import MaskedLinear
from straylight.nn.stacked import StackedLinear, stack, stackable

SKLEARN = {"standard": StandardScaler, "minmax": MinMaxScaler}


def rows(n=1000, d=3, offset=0.0, seed=0):
    scales = torch.logspace(0, 2, d)
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scales + offset


# Scaling


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("offset", [0.0, -300.0, 1e6])
@pytest.mark.parametrize("method", SKLEARN)
def test_scaling_equals_scikit_learns_in_float64_whatever_the_chunks(method, offset, chunk):
    x = rows(offset=offset)
    scaling = Scaling((3,), method).fit(x.split(chunk))
    reference = SKLEARN[method]().fit(x.double().numpy())
    shift = reference.mean_ if method == "standard" else reference.data_min_
    factor = 1 / reference.scale_ if method == "standard" else reference.scale_
    np.testing.assert_allclose(scaling.shift.numpy(), shift, rtol=1e-7)
    np.testing.assert_allclose(scaling.factor.numpy(), factor, rtol=1e-6)
    if offset < 1e6:  # there, the mean itself is not a float32
        expected = reference.transform(x.double().numpy())
        np.testing.assert_allclose(scaling(x).numpy(), expected, rtol=1e-3, atol=3e-4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
def test_cutting_the_rows_differently_or_into_empty_chunks_changes_nothing(sizes):
    x = rows(sum(sizes), seed=1)
    for method in SKLEARN:
        whole, cut = Scaling((3,), method).fit([x]), Scaling((3,), method).fit(x.split(sizes))
        torch.testing.assert_close(cut.shift, whole.shift, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(cut.factor, whole.factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", SKLEARN)
def test_common_scaling_has_one_shift_and_one_factor_for_all_features(method):
    x = rows(offset=5.0)
    scaling = Scaling((3,), f"{method}_common").fit(x.split(300))
    reference = SKLEARN[method]().fit(x.reshape(-1, 1).double().numpy())
    assert scaling.shift.unique().numel() == scaling.factor.unique().numel() == 1
    expected = reference.transform(x.reshape(-1, 1).double().numpy()).reshape(x.shape)
    np.testing.assert_allclose(scaling(x).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6, 1e-20, 16777217.0])
@pytest.mark.parametrize("method", ["standard", "minmax", "standard_common", "minmax_common"])
def test_a_constant_feature_becomes_zero_and_stays_finite_elsewhere(method, value):
    x = torch.full((50, 2), value)
    scaling = Scaling((2,), method).fit(x.split(20))
    assert scaling(x).abs().max() <= 1e-6 * max(1.0, abs(value))
    assert scaling(x + 1).isfinite().all()
    assert (scaling.factor == 1).all()


def test_a_constant_feature_does_not_disturb_its_neighbour():
    x = torch.stack([torch.full((100,), 3.0), torch.arange(100.0)], 1)
    scaled = Scaling((2,), "standard").fit([x])(x)
    assert (scaled[:, 0] == 0).all()
    assert scaled[:, 1].std(correction=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 4)])
def test_a_pixel_that_is_nearly_always_the_same_is_stretched_no_more_than_the_typical_one(shape):
    x = rows(400, math.prod(shape))
    x[:, 0], x[:, 1], x[:, 2] = 0.0, 5.0 + 1e-4 * x[:, 1], 30 * x[:, 2]  # dead, nearly so, and one that varies much
    width = x.double().std(0, correction=0)
    scaling = Scaling(shape, "standard").fit(x.view(400, *shape).split(150))
    typical = width.square().mean().sqrt()
    expected = 1 / width.clamp_min(typical)
    np.testing.assert_allclose(scaling.factor.flatten().numpy(), expected.numpy(), rtol=1e-5)
    lit = torch.zeros(1, *shape)
    lit.view(-1)[0] = 255.0
    assert scaling(lit).abs().max() < 255 / typical + 10
    np.testing.assert_allclose(scaling(x.view(400, *shape)).mean(0).numpy(), 0, atol=1e-3)


@pytest.mark.parametrize("shape", [(20,), (1, 5, 4), (1, 20, 1), (1, 10, 2), (5, 4)])
def test_features_of_tables_and_particles_have_variance_one_each(shape):
    x = rows(400, 20)
    x[:, 1] *= 1e-4
    x = x[:, : math.prod(shape)].view(400, *shape)
    scaling = Scaling(shape, "standard").fit([x])
    ones = (scaling(x).flatten(1).std(0, correction=0) - 1).abs().max() < 1e-3
    assert bool(ones) == (shape != (1, 5, 4))


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_an_image_of_constant_pixels_is_not_stretched(value):
    images = torch.full((10, 1, 4, 4), value)
    assert (Scaling((1, 4, 4), "standard").fit(images.split(3)).factor == 1).all()


@pytest.mark.parametrize("method", ["minmax", "standard_common", "minmax_common", "none"])
def test_images_are_scaled_pixel_by_pixel_in_their_own_shape(method):
    x = rows(40, 12).reshape(40, 1, 3, 4)
    images, flat = Scaling((1, 3, 4), method).fit([x]), Scaling((12,), method).fit([x.flatten(1)])
    assert images.shift.shape == images.factor.shape == (1, 3, 4)
    assert torch.equal(images(x).flatten(1), flat(x.flatten(1)))


def test_no_scaling_is_the_identity_and_needs_no_fit():
    scaling, x = Scaling((3,), "none"), rows()
    assert scaling(x) is x and scaling.fit([]) is scaling and bool(scaling.fitted)


@pytest.mark.parametrize("method", ["standard", "minmax_common"])
def test_scaling_travels_in_its_state_dict(method):
    x = rows(offset=10.0)
    fitted, fresh = Scaling((3,), method).fit([x]), Scaling((3,), method)
    assert not fresh.fitted and fitted.fitted
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.fitted and torch.equal(fresh(x), fitted(x))


def test_an_unknown_scaling_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"one of standard, minmax.*not 'robust'"):
        Scaling((3,), "robust")


@pytest.mark.parametrize("chunks", [[], [torch.zeros(0, 3)]], ids=["no chunk", "empty chunk"])
def test_fitting_a_scaling_to_no_row_is_refused(chunks):
    with pytest.raises(ValueError, match="no training row"):
        Scaling((3,)).fit(chunks)


def images(n=60, seed=0):
    """Of very different brightness and contrast, in whole numbers from 0 to 255."""
    rng = np.random.default_rng(seed)
    dark, bright = np.sort(rng.integers(0, 256, (2, n, 1, 1, 1)), axis=0)
    return torch.from_numpy(np.round(dark + (bright - dark + 1) * rng.random((n, 2, 5, 3)) ** 2)).float()


EVENTWISE = ["unit", "gcn_l1", "gcn_l2"]


def normalised(x, method):
    """Image by image in float64; of `gcn_l1` `global_contrast_normalization(x, scale="l1")` of L. Ruff's
    Deep-SVDD-PyTorch."""
    out = x.double().numpy().copy()
    for image in out:
        image -= 0 if method == "unit" else image.mean()
        size = np.abs(image).mean() if method == "gcn_l1" else np.sqrt(np.square(image).sum())
        image /= size if size else 1
    return out


@pytest.mark.parametrize("chunk", [1, 7, 60])
@pytest.mark.parametrize("method", EVENTWISE)
def test_an_event_is_normalised_by_itself_and_then_minmax_over_all_training_values(method, chunk):
    train, test = images(), images(seed=1)
    scaling = Scaling((2, 5, 3), method).fit(train.split(chunk))
    low, high = normalised(train, method).min(), normalised(train, method).max()
    for x in (train, test):
        expected = (normalised(x, method) - low) / (high - low)
        np.testing.assert_allclose(scaling(x).numpy(), expected, rtol=2e-5, atol=1e-6)
    assert scaling(train).min() == pytest.approx(0, abs=1e-6) and scaling(train).max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", EVENTWISE)
def test_eventwise_scalings_forget_how_bright_an_image_is_and_gcn_its_mean_too(method):
    x = images()
    scaling = Scaling((2, 5, 3), method).fit([x])
    torch.testing.assert_close(scaling(3 * x), scaling(x), rtol=1e-4, atol=1e-5)
    assert (scaling(-x) - scaling(x)).abs().max() > 0.1
    moved = (scaling(3 * x + 100) - scaling(x)).abs().max()
    assert moved > 0.1 if method == "unit" else moved < 1e-4


@pytest.mark.parametrize("method", EVENTWISE)
@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10, 1e25])
def test_the_norm_of_a_tiny_or_a_huge_event_neither_vanishes_nor_overflows(method, size):
    x = images()
    scaling = Scaling((2, 5, 3), method).fit([x])
    torch.testing.assert_close(scaling(x * size), scaling(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 255.0])
@pytest.mark.parametrize("method", EVENTWISE)
def test_an_image_without_contrast_is_scaled_as_its_mean_is_and_a_black_one_as_zeros(method, value):
    x = images()
    if method == "unit":
        value = 0.0
    scaling = Scaling((2, 5, 3), method).fit([torch.cat([x, torch.full_like(x[:1], value)])])
    low, high = normalised(x, method).min(), normalised(x, method).max()
    torch.testing.assert_close(scaling(torch.full_like(x, value)), torch.full_like(x, -low / (high - low)))


@pytest.mark.parametrize("method", ["standard", "minmax", "standard_common", "minmax_common", "none"])
def test_the_inverse_of_a_scaling_brings_the_datas_own_units_back(method):
    x = rows(offset=5.0)
    scaling = Scaling((3,), method).fit([x])
    torch.testing.assert_close(scaling.inverse(scaling(x)), x, rtol=1e-5, atol=1e-4)
    if method != "none":
        assert (scaling(x) - x).abs().max() > 1


@pytest.mark.parametrize("method", EVENTWISE)
def test_an_eventwise_scaling_has_no_inverse_and_no_density_and_says_why(method):
    scaling = Scaling((2, 5, 3), method).fit([images()])
    what = "the norm" if method == "unit" else "the mean and the contrast"
    with pytest.raises(ValueError, match=f"{method} has no inverse: it forgets {what} of each event"):
        scaling.inverse(torch.zeros(1, 2, 5, 3))
    with pytest.raises(ValueError, match=f"{method} forgets {what}"):
        scaling.log_determinant(images())


def test_scalings_that_lead_into_the_unit_interval_say_so_and_do():
    x = images()
    for method in ("standard", "minmax", "standard_common", "minmax_common", "unit", "gcn_l1", "gcn_l2", "none"):
        scaled = (scaling := Scaling((2, 5, 3), method).fit([x]))(x)
        inside = bool(scaled.min() >= -1e-6 and scaled.max() <= 1 + 1e-6)
        assert scaling.bounded is inside, method


# Optimization


@pytest.mark.parametrize(
    "schedule, middle, end", [("constant", 1.0, 1.0), ("cosine", 0.5, 0.0), ("linear", 0.5, 0.0)], ids=str
)
def test_a_schedule_begins_at_lr_and_ends_where_it_says(schedule, middle, end):
    recipe = Optimization(lr=0.2, schedule=schedule)
    for step, part in {0: 1.0, 50: middle, 100: end, 130: end}.items():
        assert recipe.rate(step, 100) == pytest.approx(0.2 * part, abs=1e-15)
    rates = [recipe.rate(step, 100) for step in range(101)]
    assert rates == sorted(rates, reverse=True)
    assert recipe.constant is (schedule == "constant")


def test_warm_up_rises_linearly_to_lr_and_never_starts_at_zero():
    recipe = Optimization(lr=0.1, warmup=0.25)
    assert [recipe.rate(step, 16) for step in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert not recipe.constant


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_warm_up_multiplies_the_schedule(schedule):
    warm, cold = Optimization(schedule=schedule, warmup=0.5), Optimization(schedule=schedule)
    for step in range(20):
        assert warm.rate(step, 20) == pytest.approx(cold.rate(step, 20) * min(1, (step + 1) / 10))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("total", [0, 1])
def test_a_rate_exists_for_no_step_and_for_one(schedule, total):
    assert Optimization(lr=0.1, schedule=schedule, warmup=0.5).rate(0, total) == pytest.approx(0.1)


def test_optimiser_gets_the_learning_rate_and_is_adam_unless_told():
    weights = [nn.Parameter(torch.zeros(2))]
    default, told = Optimization(lr=0.3).build(weights), Optimization(torch.optim.SGD, lr=0.3).build(weights)
    assert isinstance(default, torch.optim.Adam) and isinstance(told, torch.optim.SGD)
    assert default.param_groups[0]["lr"] == told.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"warmup": -0.1},
        {"warmup": 1.5},
        {"clip": 0.0},
        {"clip": -1.0},
        {"schedule": "step"},
    ],
    ids=str,
)
def test_an_optimisation_out_of_range_is_refused_by_its_key(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"optimizer\.{key} .*not '?{value}"):
        Optimization(**wrong)


# mlp


def test_a_dense_network_has_these_widths_and_an_activation_only_between_them():
    net = mlp((5, 4, 3, 2), "tanh")
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)] == [(5, 4), (4, 3), (3, 2)]
    assert net(torch.zeros(7, 5)).shape == (7, 2)


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_network_has_biases_only_when_told(bias):
    names = {name.rpartition(".")[2] for name, _ in mlp((3, 2, 3), bias=bias).named_parameters()}
    assert names == ({"weight", "bias"} if bias else {"weight"})


@pytest.mark.parametrize("widths", [(), (3,), (3, 0), (3, -1, 2)], ids=str)
def test_a_dense_network_of_too_few_or_no_positive_widths_is_refused(widths):
    with pytest.raises(ValueError, match="two or more positive widths"):
        mlp(widths)


def test_an_unknown_activation_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"one of relu, .*not 'swish'"):
        mlp((3, 2), "swish")


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=f"at least 0 and below 1, not {dropout}"):
        mlp((3, 2), dropout=dropout)


def test_dropout_follows_every_hidden_activation_and_not_the_output():
    net = mlp((5, 4, 3, 2), dropout=0.5)
    kinds = [type(layer) for layer in net]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


# stacked


def perturbed(make, seed):
    """A network away from where it began, where many weights are next to nothing."""
    torch.manual_seed(0)  # like networks permute features alike
    network, draw = make(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    network.load_state_dict(network.state_dict())  # masks weights
    return network.double()


LIKE = {
    "dense": lambda: mlp((3, 7, 5, 2), "tanh"),
    "without biases": lambda: mlp((3, 7, 2), bias=False),
    "flattened images": lambda: nn.Sequential(nn.Unflatten(1, (1, 3, 1)), encoder((1, 3, 1), 2, hidden=[4])),
    "autoregressive flow": lambda: autoregressive_flow(3, layers=2, hidden=8, blocks=1),
    "affine coupling flow": lambda: coupling_flow(3, layers=4, hidden=8, blocks=1),
    "spline coupling flow": lambda: coupling_flow(3, layers=4, hidden=8, blocks=1, spline=(4, 3.0)),
}


@pytest.mark.parametrize("kind", LIKE)
def test_stacked_networks_give_the_outputs_and_gradients_of_separate_ones(kind):
    apart = [perturbed(LIKE[kind], seed) for seed in range(3)]
    assert all(map(stackable, apart))
    together = copy.deepcopy(apart)
    stack(together)
    x = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()

    expected = torch.cat([one(part) for one, part in zip(apart, x.chunk(3), strict=True)])
    found = together[0](y)
    torch.testing.assert_close(found, expected)
    assert (expected.unflatten(0, (3, -1))[0] - apart[1](x[:4])).abs().max() > 1e-3  # the networks differ
    with torch.no_grad():
        torch.testing.assert_close(together[0](y), expected)

    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    separate = [dict(one.named_parameters()) for one in apart]
    for name, weights in together[0].named_parameters():
        torch.testing.assert_close(weights.grad, torch.stack([one[name].grad for one in separate]), msg=name)
    assert {name for name, _ in together[0].named_parameters()} == set(separate[0])


def test_a_network_given_its_context_is_stacked_too():
    apart = [
        perturbed(partial(autoregressive_flow, 2, layers=2, hidden=6, blocks=1, context=1), seed) for seed in range(2)
    ]
    together = copy.deepcopy(apart)
    stack(together)
    x, context = torch.randn(8, 2, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    expected = torch.cat([one(*part) for one, *part in zip(apart, x.chunk(2), context.chunk(2), strict=True)])
    torch.testing.assert_close(together[0](x, context), expected)


def test_weights_of_stacked_masked_layers_stay_zero_where_they_are_masked():
    flows = [perturbed(partial(autoregressive_flow, 4, layers=2, hidden=8, blocks=1), seed) for seed in range(2)]
    stack(flows)
    layers = [m for m in flows[0].modules() if isinstance(m, StackedLinear) and m.mask is not None]
    optimizer = torch.optim.AdamW(flows[0].parameters(), lr=0.1, weight_decay=0.1)
    before = [layer.weight.detach().clone() for layer in layers]
    for _ in range(3):
        optimizer.zero_grad()
        flows[0](torch.randn(10, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
    assert len(layers) == 2 * 4 and not any(isinstance(m, MaskedLinear) for m in flows[0].modules())
    for layer, was in zip(layers, before, strict=True):
        masked = (layer.mask == 0).expand_as(layer.weight)
        assert masked.any() and (layer.weight[masked] == 0).all()
        assert (layer.weight[~masked] != was[~masked]).all()


def test_networks_with_parameters_outside_of_linear_layers_are_not_stacked():
    networks = [encoder((1, 8, 8), 2, channels=[3]) for _ in range(2)]
    assert not stackable(networks[0]) and not stackable(nn.ReLU())
    with pytest.raises(ValueError, match="all in linear layers"):
        stack(networks)
