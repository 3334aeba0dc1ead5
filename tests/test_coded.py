"""Codes of events and events of codes, in the data's own units."""

import pytest
import torch

from straylight.detectors import AAE, VAE, AnoGAN, AutoEncoder, DeepSVDD, FAnoGAN

BUILDS = {
    "autoencoder": lambda: AutoEncoder((3,), hidden=[4], latent=2),
    "vae": lambda: VAE((3,), hidden=[4], latent=2),
    "aae": lambda: AAE((3,), hidden=[4], latent=2),
    "anogan": lambda: AnoGAN((3,), generator=[4], latent=2),
    "fanogan": lambda: FAnoGAN((3,), generator=[4], latent=2),
    "deep_svdd": lambda: DeepSVDD((3,), hidden=[4], latent=2),
}
X = 5 + 3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


def built(name):
    detector = BUILDS[name]().eval()
    detector.scaling.fit([X])
    return detector


@pytest.mark.parametrize("name", ["autoencoder", "vae", "aae", "fanogan", "deep_svdd"])
def test_codes_are_of_scaled_events(name):
    detector = built(name)
    expected = detector.encoder(detector.scaling(X))[:, :2]  # a VAE's variance comes after its mean
    assert torch.equal(detector.latents(X), expected) and expected.std() > 0


@pytest.mark.parametrize("name", ["autoencoder", "vae", "aae"])
def test_the_event_of_a_code_is_the_reconstruction_in_the_datas_units(name):
    detector = built(name)
    scaled = detector.reconstruct(detector.scaling(X))
    assert torch.allclose(detector.scaling(detector.decode(detector.latents(X))), scaled, atol=1e-5)


@pytest.mark.parametrize("name", ["vae", "aae", "anogan", "fanogan"])
def test_samples_are_events_of_drawn_codes(name):
    detector = built(name)
    torch.manual_seed(1)
    codes = detector.draw(7)
    torch.manual_seed(1)
    assert torch.equal(detector.sample(7), detector.decode(codes)) and codes.shape == (7, 2)


@pytest.mark.parametrize("name", ["autoencoder", "deep_svdd"])
def test_without_a_law_of_codes_nothing_is_drawn(name):
    with pytest.raises(ValueError, match="no density to draw events from"):
        built(name).sample(3)


def test_pixels_of_a_bernoulli_vae_stay_between_zero_and_one():
    vae = VAE((1, 4, 4), hidden=[8], latent=2, likelihood="bernoulli", scaling="none").eval()
    made = vae.decode(100 * torch.randn(20, 2))
    assert made.shape == (20, 1, 4, 4) and made.min() >= 0 and made.max() <= 1
