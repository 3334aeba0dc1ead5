"""Scaling against scikit-learn, learning rates at their ends, dense networks, and flows that are densities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from straylight.nn import Optimization, Scaling, masked_autoregressive_flow, mlp

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


@pytest.mark.parametrize("method", ["standard", "minmax", "standard_common", "minmax_common", "none"])
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


# masked_autoregressive_flow


def flow(features, context=0, layers=3, scale=0.3):
    torch.manual_seed(0)
    made = masked_autoregressive_flow(features, layers=layers, hidden=16, blocks=2, context=context).eval()
    with torch.no_grad():  # nflows begins close to the identity; this leaves it
        for weight in made.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return made.double()


@torch.no_grad()
def test_a_flow_of_two_features_integrates_to_one():
    made, axis = flow(2), torch.linspace(-14, 14, 1201, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = torch.cat([made.log_prob(part) for part in points.split(200_000)]).exp()
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=2e-3)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(points).sum(1).exp()
    assert (density - normal).abs().max() > 0.02  # it is not the base that was integrated


@torch.no_grad()
@pytest.mark.parametrize("given", [-1.0, 2.0])
def test_a_flow_of_one_feature_integrates_to_one_for_each_context(given):
    made, axis = flow(1, context=1), torch.linspace(-60, 60, 40001, dtype=torch.float64)
    density = made.log_prob(axis[:, None], context=torch.full((40001, 1), given, dtype=torch.float64)).exp()
    assert torch.trapezoid(density, axis) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("features, context", [(1, 0), (3, 0), (4, 2)])
def test_log_determinant_of_a_flow_is_that_of_its_jacobian(features, context):
    made = flow(features, context)
    x = torch.randn(5, features, dtype=torch.float64)
    c = torch.randn(5, context, dtype=torch.float64) if context else None
    z, log_determinant = made._transform(x, context=c)
    for i in range(5):
        given = c[i : i + 1] if context else None
        jacobian = torch.autograd.functional.jacobian(
            lambda v, g=given: made._transform(v[None], context=g)[0][0], x[i]
        )
        assert log_determinant[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(made.log_prob(x, context=c), base + log_determinant)


@torch.no_grad()
def test_context_changes_the_density_of_a_flow():
    made, x = flow(2, context=3), torch.randn(6, 2, dtype=torch.float64)
    a, b = (made.log_prob(x, context=torch.full((6, 3), value, dtype=torch.float64)) for value in (0.0, 1.0))
    assert (a != b).all()


def test_a_flow_permutes_between_its_layers_but_not_one_feature():
    kinds = [type(t).__name__ for t in flow(2, layers=3)._transform._transforms]
    assert kinds.count("RandomPermutation") == 2 and kinds.count("MaskedAffineAutoregressiveTransform") == 3
    assert len(flow(1, layers=3)._transform._transforms) == 3
