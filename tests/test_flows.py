"""Flows are densities: normalised, invertible, and equal to the truth where that is known.

Shapes: `B` events, `D` features, `C` context columns, `K` bins of a spline.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.splines.rational_quadratic import rational_quadratic_spline as nflows_spline
from scipy import stats
from torch import nn

from straylight.data import Gaussians
from straylight.detectors import MAF, NSF, RealNVP
from straylight.nn import Optimization, autoregressive_flow, coupling_flow
from straylight.nn.flows import LARGEST_LOG_SCALE, MaskedAffine, MaskedLinear
from straylight.nn.spline import SLOPE_ONE, SMALLEST, rational_quadratic_spline
from straylight.rows.batch import Batch

# splines

BINS = 6


def raw_numbers(n, scale=2.0, dtype=torch.float64, seed=0):
    """Widths, heights and slopes of n splines before they are made positive."""
    draw = torch.Generator().manual_seed(seed)
    sizes = (BINS, BINS, BINS - 1)
    return [scale * torch.randn(n, size, dtype=dtype, generator=draw) for size in sizes]


def test_the_inverse_of_a_spline_undoes_it():
    raw, x = raw_numbers(2000, scale=1.0), torch.linspace(-4, 4, 2000, dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x, *raw, bound=3.0)
    back, log_slope_back = rational_quadratic_spline(y, *raw, bound=3.0, inverse=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=0, atol=1e-8)
    assert (y - x)[x.abs() < 2].abs().median() > 0.1  # it is not the identity that was inverted


def test_the_inverse_of_a_spline_undoes_it_in_float32_as_well_as_can_be():
    raw, y = raw_numbers(2000, scale=1.0, dtype=torch.float32), torch.linspace(-4, 4, 2000)
    x, _ = rational_quadratic_spline(y, *raw, bound=3.0, inverse=True)
    # where a spline is flat, rounding of y is felt in x, so that it is y that comes back
    torch.testing.assert_close(rational_quadratic_spline(x, *raw, bound=3.0)[0], y, rtol=0, atol=2e-5)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_log_slope_of_a_spline_is_that_of_its_derivative(inverse):
    x = torch.linspace(-4, 4, 500, dtype=torch.float64, requires_grad=True)
    y, log_slope = rational_quadratic_spline(x, *raw_numbers(500), bound=3.0, inverse=inverse)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, derivative.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_spline_is_the_identity_on_the_edge_of_its_box_and_beyond(inverse):
    x = torch.tensor([-1e30, -50.0, -3.0000002, 3.0000002, 50.0, 1e30])
    y, log_slope = rational_quadratic_spline(x, *raw_numbers(6, dtype=torch.float32), bound=3.0, inverse=inverse)
    assert torch.equal(y, x) and torch.equal(log_slope, torch.zeros(6))
    edge = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(edge, *raw_numbers(2), bound=3.0, inverse=inverse)
    torch.testing.assert_close(y, edge)
    torch.testing.assert_close(log_slope, torch.zeros_like(edge), rtol=0, atol=1e-9)  # slope one, as outside


@settings(deadline=None, max_examples=60)
@given(arrays(np.float64, 3 * BINS - 1, elements=st.floats(-20, 20)), st.floats(0.1, 100.0))
def test_a_spline_rises_everywhere_from_corner_to_corner_of_its_box(numbers, bound):
    x = torch.linspace(-bound, bound, 301, dtype=torch.float64)
    raw = torch.from_numpy(numbers).expand(301, -1).split([BINS, BINS, BINS - 1], 1)
    for inverse in (False, True):
        y, log_slope = rational_quadratic_spline(x, *raw, bound=bound, inverse=inverse)
        assert (y.diff() > 0).all() and log_slope.isfinite().all()
        assert y[[0, -1]].tolist() == pytest.approx([-bound, bound], rel=1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_spline_is_nflows_own_with_the_same_knots_and_slopes(inverse):
    widths, heights, slopes = raw_numbers(1000)
    x = 6 * torch.rand(1000, dtype=torch.float64) - 3
    found = rational_quadratic_spline(x, widths, heights, slopes, bound=3.0, inverse=inverse)
    # nflows: slope = 1e-3 + softplus(raw), at the edges too
    ours = (1 - SMALLEST) * nn.functional.softplus(slopes + SLOPE_ONE)
    theirs = nn.functional.pad(ours, (1, 1), value=1 - SMALLEST).expm1().log()
    box = {"left": -3.0, "right": 3.0, "bottom": -3.0, "top": 3.0}
    expected = nflows_spline(x, widths, heights, theirs, inverse=inverse, **box)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_spline_of_zeros_is_the_identity():
    x = torch.linspace(-3, 3, 100, dtype=torch.float64)
    zero = torch.zeros(100, BINS, dtype=torch.float64)
    y, log_slope = rational_quadratic_spline(x, zero, zero, zero[:, 1:], bound=3.0)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_no_row_however_far_makes_a_spline_or_its_gradients_fail(scale):
    far = torch.tensor([-1e30, -1e4, -3.0, -2.9999998, 2.9999998, 3.0, 1e4, 1e30])
    x = torch.cat([far, torch.linspace(-4, 4, 5000)]).requires_grad_()
    raw = [part.requires_grad_() for part in raw_numbers(len(x), scale, torch.float32)]
    y, log_slope = rational_quadratic_spline(x, *raw, bound=3.0)
    assert y.isfinite().all() and log_slope.isfinite().all()
    (y.clamp(-10, 10) + log_slope).sum().backward()
    outside = x.detach().abs() > 3
    for part in raw:
        assert part.grad.isfinite().all() and (part.grad[outside] == 0).all()
        assert (part.grad[~outside] != 0).any(1).double().mean() > 0.5  # softmax saturates at the largest
    assert x.grad.isfinite().all()


# the three flows

FLOWS = {"maf": autoregressive_flow, "realnvp": coupling_flow, "nsf": partial(coupling_flow, spline=(5, 3.0))}
COUPLING = ["realnvp", "nsf"]


def flow_of(kind, features, *, context=0, layers=3, scale=0.05):
    """A flow in float64 with weights away from those it began with, which are close to the identity."""
    torch.manual_seed(0)
    made = FLOWS[kind](features, layers=layers, hidden=16, blocks=2, context=context)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(scale * torch.randn_like(weight))
    made.load_state_dict(made.state_dict())  # masks weights
    return made.double()


def contexts(n, columns):
    return torch.randn(n, columns, dtype=torch.float64) if columns else None


def on_a_grid(made, given=None, columns=2, per_unit=40):
    """Points that are even in arsinh(x) up to |x| = 1490, `(N, D)`, and the probability of the cell around each."""
    axis = (torch.arange(-8 * per_unit, 8 * per_unit, dtype=torch.float64) + 0.5) / per_unit
    grid = torch.cartesian_prod(*[axis] * columns).view(-1, columns)
    probability = []
    for part in grid.split(100_000):
        context = None if given is None else torch.full((len(part), 1), given, dtype=torch.float64)
        probability.append(made(part.sinh(), context).exp() * part.cosh().prod(1) / per_unit**columns)
    return grid.sinh(), torch.cat(probability)


@torch.no_grad()
@pytest.mark.parametrize("given", [None, -1.0, 1.5])
@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_of_two_features_integrates_to_one_for_each_context(kind, given):
    made = flow_of(kind, 2, context=0 if given is None else 1)
    _, probability = on_a_grid(made, given)
    assert probability.sum().item() == pytest.approx(1, abs=1e-3)
    near = torch.cartesian_prod(*[torch.linspace(-2, 2, 9, dtype=torch.float64)] * 2)
    context = None if given is None else torch.full((81, 1), given, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(near).sum(1)
    assert (made(near, context) - normal).abs().mean() > 0.1  # it is not the base that was integrated


@torch.no_grad()
@pytest.mark.parametrize("given", [-1.0, 2.0])
def test_a_flow_of_one_feature_integrates_to_one_for_each_context(given):
    _, probability = on_a_grid(flow_of("maf", 1, context=1), given, columns=1, per_unit=1000)
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize(
    "kind, features", [("maf", 1), *((kind, features) for kind in FLOWS for features in (2, 3, 5))]
)
def test_the_log_determinant_of_a_flow_is_that_of_its_jacobian(kind, features, context):
    made = flow_of(kind, features, context=context, layers=4)
    x, c = torch.randn(6, features, dtype=torch.float64), contexts(6, context)
    z, log_determinant = made.to_noise(x, c)
    for i in range(6):
        row = slice(i, i + 1)
        jacobian = torch.autograd.functional.jacobian(
            lambda v, given=c if c is None else c[row]: made.to_noise(v[None], given)[0][0], x[i]
        )
        assert log_determinant[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=1e-9, abs=1e-9)
    assert log_determinant.abs().median() > 1e-2
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(made(x, c), base + log_determinant)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("kind", FLOWS)
def test_events_drawn_from_a_flow_lead_back_to_the_noise_they_came_from(kind, context):
    made, c = flow_of(kind, 5, context=context, layers=4), contexts(300, context)
    torch.manual_seed(1)
    x = made.sample(300, c)
    torch.manual_seed(1)
    noise = torch.randn(300, 5, dtype=torch.float64)
    assert x.dtype == torch.float64 and x.shape == (300, 5) and not x.requires_grad
    torch.testing.assert_close(made.to_noise(x, c)[0], noise, rtol=1e-6, atol=1e-6)
    assert (x - noise).abs().median() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("kind", FLOWS)
def test_events_drawn_from_a_flow_are_distributed_as_its_density_says(kind):
    made, n = flow_of(kind, 2), 20_000
    torch.manual_seed(2)
    x = made.sample(n)
    points, probability = on_a_grid(made)
    edges = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).sinh()

    def cell(v):  # of sixteen
        return torch.bucketize(v, edges) @ torch.tensor([4, 1])

    expected = n * torch.bincount(cell(points), probability / probability.sum(), 16)
    found = torch.bincount(cell(x), minlength=16).double()
    assert stats.chisquare(found, expected).pvalue > 1e-3
    even = torch.bincount(cell(torch.randn(n, 2, dtype=torch.float64)), minlength=16).double()
    assert stats.chisquare(even, expected).pvalue < 1e-6  # as it would be were it the base


@torch.no_grad()
@pytest.mark.parametrize("kind", FLOWS)
def test_the_noise_of_events_drawn_from_a_flow_is_standard_normal(kind):
    made, c = flow_of(kind, 3, context=1), contexts(5000, 1)
    torch.manual_seed(3)
    z = made.to_noise(made.sample(5000, c), c)[0]
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in z.T.numpy())
    torch.testing.assert_close(z.T.corrcoef(), torch.eye(3, dtype=torch.float64), rtol=0, atol=0.07)
    wrong = made.to_noise(made.sample(5000, c), c + 3)[0]
    assert min(stats.kstest(column, "norm").pvalue for column in wrong.T.numpy()) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("kind", FLOWS)
def test_context_changes_the_density_of_every_event(kind):
    made, x = flow_of(kind, 2, context=3), torch.randn(50, 2, dtype=torch.float64)
    a, b = (made(x, torch.full((50, 3), value, dtype=torch.float64)) for value in (0.0, 1.0))
    assert ((a - b).abs() > 1e-6).all()


@pytest.mark.parametrize("features", [2, 3, 4, 5])
@pytest.mark.parametrize("kind, layers", [("maf", 2), ("maf", 3), ("realnvp", 4), ("nsf", 4)])
def test_every_output_of_a_flow_depends_on_every_feature(kind, layers, features):
    made = flow_of(kind, features, layers=layers)
    x = torch.randn(40, features, dtype=torch.float64)  # several points, as units are off at some
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v: made.to_noise(v[None])[0][0], v) for v in x])
    assert (jacobian.abs().amax(0) > 1e-6).all()


@pytest.mark.parametrize("kind", COUPLING)
@pytest.mark.parametrize("features", [2, 3, 5])
def test_two_coupling_layers_transform_every_feature(kind, features):
    made = flow_of(kind, features, layers=2)
    x = torch.rand(40, features, dtype=torch.float64) + 0.5
    moved = (made.to_noise(x)[0] - x).abs()
    assert (moved > 1e-6).all()


@pytest.mark.parametrize("kind", COUPLING)
def test_a_coupling_layer_leaves_what_it_conditions_on_alone(kind):
    made = flow_of(kind, 5, layers=1)
    x = torch.randn(40, 5, dtype=torch.float64)
    moved = (made.to_noise(x)[0] - x).abs() > 1e-9
    assert moved.all(0).tolist() == moved.any(0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("kind", COUPLING)
def test_coupling_layers_permute_three_or_more_features_between_pairs(kind):
    """Without weights all that is left of a flow is its permutations."""

    def ends(features, layers, seed):
        torch.manual_seed(seed)
        made = FLOWS[kind](features, layers=layers, hidden=8, blocks=1)
        with torch.no_grad():
            for weight in made.parameters():
                weight.zero_()
        z, log_determinant = made.to_noise(torch.linspace(-2, 2, features)[None])
        torch.testing.assert_close(log_determinant, torch.zeros(1))
        torch.testing.assert_close(z.sort().values[0], torch.linspace(-2, 2, features))
        return tuple(z.argsort()[0].tolist())

    assert len({ends(5, 4, seed) for seed in range(6)}) > 3
    assert ends(5, 2, 0) == (0, 1, 2, 3, 4) and {ends(2, 4, seed) for seed in range(6)} == {(0, 1)}


@pytest.mark.parametrize("kind", COUPLING)
def test_a_coupling_flow_of_one_feature_is_refused_in_words(kind):
    with pytest.raises(ValueError, match="two or more features; use detector=maf"):
        FLOWS[kind](1, layers=2, hidden=8, blocks=1)


@pytest.mark.parametrize("detector", [RealNVP, NSF])
def test_a_coupling_detector_of_one_feature_is_refused_in_words(detector):
    with pytest.raises(ValueError, match="two or more features; use detector=maf"):
        detector((1, 1, 1))


@pytest.mark.parametrize("wrong", [{"bins": 1}, {"bins": 1000}, {"tail_bound": 0.0}, {"tail_bound": -1.0}], ids=str)
def test_splines_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="bins must be between 2 and 1000 and tail_bound positive"):
        NSF((2,), **wrong)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("kind", ["maf", "realnvp"])
def test_an_affine_layer_stretches_by_e_to_the_fifth_at_most(kind, sign):
    made = flow_of(kind, 2, layers=1)
    x = torch.randn(20, 2, dtype=torch.float64)
    with torch.no_grad():
        (net,) = [getattr(t, "autoregressive_net", None) or t.transform_net for t in made.transforms]
        net.final_layer.bias.add_(sign * 1000.0)
    z, log_determinant = made.to_noise(x)
    stretched = 2 if kind == "maf" else 1
    assert (log_determinant == sign * stretched * LARGEST_LOG_SCALE).all()
    assert z.isfinite().all()


@pytest.mark.parametrize("largest", [0.5, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_affine_coupling_layer_has_a_bound_of_its_own(sign, largest):
    made = coupling_flow(2, layers=1, hidden=8, blocks=1, largest_log_scale=largest).double()
    with torch.no_grad():
        made.transforms[0].transform_net.final_layer.bias.add_(sign * 1000.0)
    x = torch.randn(20, 2, dtype=torch.float64)
    z, log_determinant = made.to_noise(x)
    assert (log_determinant == sign * largest).all()
    back, _ = made.transforms[0].inverse(z, None)
    torch.testing.assert_close(back, x)


@pytest.mark.parametrize("largest", [0.0, -1.0])
def test_a_bound_that_is_not_positive_is_refused(largest):
    with pytest.raises(ValueError, match="largest_log_scale"):
        RealNVP((2,), largest_log_scale=largest)


def test_the_bound_is_kept_and_a_checkpoint_without_one_had_five():
    torch.manual_seed(0)
    wide, narrow = (RealNVP((3,), scaling="none", largest_log_scale=largest) for largest in (5.0, 0.1))
    x = 3 * torch.randn(20, 3)
    with torch.no_grad():
        for weight in wide.parameters():
            weight.mul_(3)
        narrow.load_state_dict(wide.state_dict())
        assert torch.equal(narrow(x), wide(x))
        old = {name: value for name, value in wide.state_dict().items() if not name.endswith("bound")}
        fresh = RealNVP((3,), scaling="none")
        fresh.load_state_dict(old)
        assert torch.equal(fresh(x), wide(x))
        unlike = RealNVP((3,), scaling="none", largest_log_scale=0.1)
        unlike.flow.load_state_dict(
            {**wide.flow.state_dict(), **{k: v for k, v in unlike.flow.state_dict().items() if k.endswith("bound")}}
        )
        assert not torch.allclose(unlike(x), wide(x))


@pytest.mark.parametrize("value", [1e20, 1e30, -1e30, 3e38])
@pytest.mark.parametrize("detector", [RealNVP, NSF, MAF])
@torch.no_grad()
def test_an_absurd_row_has_a_finite_score_and_no_density(detector, value):
    made = detector((3,))
    made.scaling.fit([torch.randn(50, 3, generator=torch.Generator().manual_seed(0))])
    for weight in made.parameters():
        weight.mul_(2)
    x = torch.tensor([[0.0, 0.0, 0.0], [value] * 3, [0.0, value, 0.0]])
    score, density = made(x), made.log_density(x)
    assert score.isfinite().all() and (score[1:] > score[0]).all()
    assert density[0].isfinite() and (density[1:] == -torch.inf).all()


# masked affine layers


def masked_affine(features=4, *, backwards=False, context=None):
    torch.manual_seed(0)
    layer = MaskedAffine(features, 16, backwards=backwards, context_features=context, num_blocks=2)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.25 * torch.randn_like(weight))
    layer.load_state_dict(layer.state_dict())  # masks weights
    return layer.double()


def masked_layers(module):
    return [m for m in module.modules() if isinstance(m, MaskedLinear)]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_feature_of_a_masked_layer_depends_on_all_before_it_and_none_after(backwards):
    layer = masked_affine(backwards=backwards)
    x = torch.randn(40, 4, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], v) for v in x])
    if backwards:
        jacobian = jacobian.flip(1, 2)
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian.abs().amax(0)[torch.ones(4, 4).tril().bool()] > 1e-6).all()
    assert (jacobian.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize("context", [None, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_masked_layer_is_nflows_own_network_with_the_halves_of_its_output_apart(backwards, context):
    torch.manual_seed(1)
    stock = MaskedAffineAutoregressiveTransform(4, 16, context_features=context, num_blocks=2).double()
    with torch.no_grad():
        for weight in stock.parameters():
            weight.add_(0.25 * torch.randn_like(weight))
    layer = masked_affine(backwards=backwards, context=context)
    copied = {name: weight.clone() for name, weight in stock.autoregressive_net.state_dict().items()}
    where = {name: weight for name, weight in layer.autoregressive_net.state_dict().items() if name.endswith("mask")}
    order = [3, 2, 1, 0] if backwards else [0, 1, 2, 3]
    copied["initial_layer.weight"] = copied["initial_layer.weight"][:, order]
    for last in ("final_layer.weight", "final_layer.bias"):
        copied[last] = torch.cat([copied[last][::2][order], copied[last][1::2][order]])
    layer.autoregressive_net.load_state_dict({**copied, **where}, strict=False)

    x, c = torch.randn(50, 4, dtype=torch.float64), contexts(50, context)
    raw, shift = stock.autoregressive_net(x[:, order], c).view(50, 4, 2)[:, order].unbind(2)
    z, log_determinant = layer(x, c)
    torch.testing.assert_close(z, x * raw.exp() + shift)
    torch.testing.assert_close(log_determinant, raw.sum(1))
    assert raw.abs().max() < LARGEST_LOG_SCALE and raw.std() > 0.1


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hidden", [3, 8, 11, 12, 40])
def test_every_feature_conditions_those_after_it_however_few_units_there_are(hidden, backwards):
    torch.manual_seed(0)
    layer = MaskedAffine(13, hidden, backwards=backwards, num_blocks=1).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.abs_().add_(0.1)  # nothing is cancelled, no unit is silent
    x = torch.rand(13, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], x)
    reached = (jacobian.flip(0, 1) if backwards else jacobian).abs() > 0
    assert not reached.triu(1).any()
    assert reached[12].all() and reached.any(1).all()
    if hidden >= 12:
        assert torch.equal(reached, torch.ones(13, 13).tril().bool())


def test_masked_weights_are_zero_before_and_after_steps_of_adam_with_weight_decay():
    torch.manual_seed(0)
    made = autoregressive_flow(4, layers=2, hidden=16, blocks=2)
    layers = masked_layers(made)
    assert len(layers) == 2 * 6 and all((layer.mask == 0).any() for layer in layers)
    assert all((layer.weight[layer.mask == 0] == 0).all() for layer in layers)
    before = [layer.weight.detach().clone() for layer in layers]
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (-made(torch.randn(64, 4)).mean()).backward()
        optimizer.step()
    for layer, was in zip(layers, before, strict=True):
        assert (layer.weight[layer.mask == 0] == 0).all()
        assert (layer.weight != was)[layer.mask == 1].all()


def test_a_masked_flow_gives_the_same_numbers_with_and_without_gradients_after_training():
    made, x = flow_of("maf", 4), torch.randn(64, 4, dtype=torch.float64)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (-made(x).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        found = made(x)
    torch.testing.assert_close(found, made(x).detach(), rtol=1e-12, atol=1e-12)


def test_weights_that_are_not_masked_are_when_they_are_loaded():
    made, x = flow_of("maf", 4), torch.randn(20, 4, dtype=torch.float64)
    weights = {name: value.clone() for name, value in made.state_dict().items()}
    spoilt = {  # as nflows leaves them, which multiplies by the mask at every call
        name: value + 7 * (weights[name.replace("weight", "mask")] == 0) if name.endswith("layer.weight") else value
        for name, value in weights.items()
    }
    assert any(not torch.equal(spoilt[name], weights[name]) for name in weights)
    fresh = flow_of("maf", 4, scale=0.1)
    fresh.load_state_dict(spoilt)
    assert all(torch.equal(value, weights[name]) for name, value in fresh.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(fresh(x), made(x))


# what detectors learn

DETECTORS = {
    "maf": partial(MAF, layers=5, hidden=32),
    "realnvp": partial(RealNVP, layers=6, hidden=32),
    "nsf": partial(NSF, layers=2, hidden=32),
}
MIXTURE = torch.distributions.MixtureSameFamily(
    torch.distributions.Categorical(torch.tensor([0.3, 0.3, 0.2, 0.2])),
    torch.distributions.MultivariateNormal(
        torch.tensor([[4.5, 3.0], [1.5, 3.0], [3.0, 4.5], [3.0, 1.5]]),
        torch.tensor(
            [[[1.0, 0.3], [0.3, 0.5]], [[0.5, -0.3], [-0.3, 1.0]], [[1.0, -0.4], [-0.4, 0.7]], [[0.6, 0.2], [0.2, 0.9]]]
        ),
    ),
)


def log_density(detector, x):
    """In the data's own units: that of scaled features times |dx / dx'|."""
    with torch.no_grad():
        return -detector(x) + detector.scaling.factor.log().sum()


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_flow_learns_the_density_of_a_mixture_of_gaussians(kind, trainer, serving):
    torch.manual_seed(1)
    train, test = MIXTURE.sample((40_000,)), MIXTURE.sample((40_000,))
    detector = DETECTORS[kind]((2,), optimizer=Optimization(lr=5e-3, schedule="cosine"))
    trainer(max_epochs=15).fit(detector, datamodule=serving(train, batch_size=512))
    gaps = MIXTURE.log_prob(test) - log_density(detector, test)
    assert -0.02 < gaps.mean().item() < 0.02
    assert gaps.abs().mean() < 0.2  # event by event, not in the mean alone
    normal = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    assert (MIXTURE.log_prob(test) - normal.log_prob(test)).mean() > 0.1  # which one Gaussian would not

    drawn = detector.sample(20_000)
    assert (MIXTURE.log_prob(drawn).mean() - MIXTURE.log_prob(test).mean()).abs() < 0.05
    torch.testing.assert_close(drawn.mean(0), test.mean(0), rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", DETECTORS)
def test_scores_are_finite_and_high_a_thousand_standard_deviations_away(kind, trainer, serving):
    torch.manual_seed(2)
    x = torch.randn(5000, 6) @ torch.randn(6, 6) + 10
    detector = DETECTORS[kind]((6,), optimizer=Optimization(lr=5e-3))
    trainer(max_epochs=3).fit(detector, datamodule=serving(x, batch_size=100))
    away = x.mean(0) + 1000 * x.std(0) * torch.randn(5000, 6)
    with torch.no_grad():
        near, far = detector(x), detector(away)
    assert far.isfinite().all() and far.min() > near.max()


def test_maf_learns_a_gaussian(trainer):
    data = Gaussians(events=20_000, batch_size=512, seed=0)
    torch.manual_seed(0)
    flow = MAF((2,), layers=2, hidden=16, optimizer=Optimization(lr=5e-3, schedule="cosine"))
    trainer(max_epochs=15).fit(flow, datamodule=data)
    test = data.splits.test.x[data.splits.test.y == 0]
    assert abs((data.log_prob(test) - log_density(flow, test)).mean().item()) < 0.02


def test_maf_in_one_dimension_with_context_depends_on_it():
    torch.manual_seed(0)
    flow = MAF((1,), layers=2, hidden=8, context=1, scaling="none")
    low, high = flow(torch.zeros(2, 1), torch.tensor([[-3.0], [3.0]]))
    assert low != high


def test_a_context_that_was_trained_with_is_asked_for():
    with pytest.raises(ValueError, match="context of 1 column"):
        MAF((2,), context=1)(torch.zeros(1, 2))


@pytest.mark.parametrize("detector", [MAF, RealNVP, NSF])
def test_the_score_of_a_flow_is_its_negative_log_density_of_flattened_scaled_features(detector):
    torch.manual_seed(0)
    flow = detector((2, 3), scaling="standard", layers=2, hidden=8)
    x = 5 * torch.randn(50, 2, 3) + 2
    flow.scaling.fit([x])
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(flow(x), -flow.flow(scaled.flatten(1)), rtol=1e-4, atol=1e-4)
    assert flow.sample(7).shape == (7, 2, 3)


@pytest.mark.parametrize("detector", [MAF, RealNVP, NSF])
def test_noise_is_added_to_scaled_features_in_the_loss_and_never_in_the_score(detector):
    x, none = 5 * torch.randn(400, 3), torch.empty(400, 0)
    torch.manual_seed(0)
    flow = detector((3,), layers=2, hidden=8, noise=0.5)
    flow.scaling.fit([x])
    batch = Batch(flow.scaling(x), torch.zeros(400), none, torch.ones(1).expand(400), torch.arange(400))
    torch.manual_seed(1)
    loss = flow.loss(batch)
    torch.manual_seed(1)
    expected = -flow.flow(batch.x + 0.5 * torch.randn(400, 3)).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(flow(x), -flow.flow(batch.x))
    assert (loss - flow(x).mean()).abs() > 0.01


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"hidden": 0}, {"blocks": 0}, {"noise": -0.1}], ids=str)
@pytest.mark.parametrize("detector", [MAF, RealNVP, NSF])
def test_a_flow_of_no_positive_size_is_refused_by_its_key(detector, wrong):
    with pytest.raises(ValueError, match=rf"detector\..*{next(iter(wrong))}.*not.* {next(iter(wrong.values()))}"):
        detector((2,), **wrong)


@pytest.mark.parametrize("kind", [MAF, RealNVP, NSF])
def test_a_trained_flow_is_a_density_under_bfloat16(kind):
    """Whose knots would fall together and whose log-determinants be rounded if they were kept in it."""
    torch.manual_seed(0)
    flow = kind((6,), layers=2, hidden=16, scaling="none")
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        x = 2 * torch.randn(4000, 6)
        exact = flow(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = flow(x)
    assert rough.isfinite().all() and rough.dtype == torch.float32
    assert ((rough - exact).abs() / (1 + exact.abs())).median() < 0.05
