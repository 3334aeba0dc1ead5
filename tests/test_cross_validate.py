"""Settings are compared on training rows that were left out, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from straylight.cross_validation import cross_validate
from straylight.data import Blobs
from straylight.detectors import KDE, KNN, VAE
from straylight.rows.folds import folds_of


@pytest.mark.parametrize("bandwidth", [0.05, 0.3, 2.0])
def test_a_density_is_judged_by_the_sum_over_the_other_folds(bandwidth: float) -> None:
    data = Blobs(seed=1)
    x = data.splits.train.x.double().numpy()
    of = folds_of(len(x), 4, 1)
    expected = []
    for fold in range(4):  # scikit-learn's trees are off by up to 1 nat here at the least of the bandwidths
        inside, held = x[of != fold], x[of == fold]
        exponents = -((held[:, None] - inside) ** 2).sum(-1) / (2 * bandwidth**2)
        log_p = logsumexp(exponents, 1) - np.log(len(inside) * 2 * np.pi * bandwidth**2)
        expected.append(-log_p.mean())
    found = cross_validate(lambda: KDE(data.shape, bandwidth=bandwidth, scaling="none"), data, folds=4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_densities_are_compared_in_the_datas_own_units() -> None:
    data = Blobs(seed=0)
    # of one spread: the same kernels, before and after scaling by 10
    scale = data.splits.train.x.std(unbiased=False).item()
    plain = cross_validate(lambda: KDE(data.shape, bandwidth=0.3 * scale, scaling="none"), data)
    scaled = cross_validate(lambda: KDE(data.shape, bandwidth=0.3, scaling="standard_common"), data)
    np.testing.assert_allclose(plain, scaled, atol=0.05)


def test_no_row_scores_a_fold_that_it_trained() -> None:
    data = Blobs(seed=0)
    near = cross_validate(lambda: KNN(data.shape), data)
    assert (near > 0).all(), "its nearest neighbour would be itself"
    assert near.shape == (5,) and len(set(near.tolist())) == 5


def test_test_rows_and_labels_choose_nothing() -> None:
    given, other = Blobs(seed=0), Blobs(seed=0)
    splits = other.splits
    splits.test.x.fill_(99.0)
    splits.test.y.fill_(1)
    splits.train.y.fill_(-1)
    builds = [lambda latent=latent: VAE((2,), hidden=[8], latent=latent) for latent in (1, 2)]
    for build in builds:
        np.testing.assert_array_equal(
            cross_validate(build, given, folds=2, epochs=2), cross_validate(build, other, folds=2, epochs=2)
        )


def test_it_leaves_the_random_numbers_as_they_were_and_begins_with_the_same() -> None:
    data = Blobs(seed=0)
    torch.manual_seed(5)
    first = cross_validate(lambda: VAE((2,), hidden=[8], latent=2), data, folds=2, epochs=2)
    number = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == number
    np.testing.assert_array_equal(
        cross_validate(lambda: VAE((2,), hidden=[8], latent=2), data, folds=2, epochs=2), first
    )


@pytest.mark.parametrize("folds", [0, 1, 10**6])
def test_a_number_of_folds_that_cannot_be_is_named(folds: int) -> None:
    data = Blobs(seed=0)
    with pytest.raises(ValueError, match=f"folds must lie between 2 and the 4[0-9]* training rows, not at {folds}"):
        cross_validate(lambda: KNN(data.shape), data, folds=folds)
