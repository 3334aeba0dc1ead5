"""A trigger in miniature: generated collisions as a detector with few properties would see them."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from straylight import checks
from straylight.data.adc2021 import SHAPES
from straylight.data.base import AnomalyDataModule
from straylight.data.particles import FEATURES, LAYOUT, PARTICLES
from straylight.data.toy_processes import BACKGROUND, ELECTRON, INVISIBLE, JET, MUON, SIGNALS, Process, Truth
from straylight.rows.batch import Events, Splits

REACH = {ELECTRON: 3.0, MUON: 2.1, JET: 4.0}  # of |eta|, the ranges of ADC2021
LEAST = {ELECTRON: 3.0, MUON: 3.0, JET: 15.0}  # GeV, below which an object is not seen
NOISE = {ELECTRON: 0.0, MUON: 0.0, JET: 0.9}  # of sigma / pT = noise / sqrt(pT / GeV) + constant, in quadrature
CONSTANT = {ELECTRON: 0.02, MUON: 0.015, JET: 0.05}
SOFT = 12.0  # GeV of noise in each component of the missing transverse energy
LEPTON = 23.0  # GeV that an electron or a muon must have for an event to be kept
TRIED = 4096  # collisions that are drawn together


class ToyTrigger(AnomalyDataModule):
    """Generated events in the layout of ADC2021: no simulation of a detector, and no measure of it on ADC2021.

    Missing transverse energy, 4 electrons, 4 muons and 10 jets, each pT [GeV], eta and phi, the particles of a kind
    ordered by pT, empty slots zero. Background is W 59.2 %, QCD 33.8 %, Z 6.7 % and top pairs 0.3 %, as in the
    challenge; signals are a pair of leptoquarks of 80 GeV, A of 50 GeV to four leptons, a neutral scalar of 60 GeV to
    two taus and a charged one to a tau and a neutrino. An event has an electron or muon above 23 GeV. Background
    trains, validates and tests, 64/16/20 by seed; all of each signal is tested, each a kind of its own.

    What is real: momentum is conserved; masses are of Breit and Wigner; decays are isotropic in the rest frame of what
    decays, and boosted. What is not: matrix elements, parton densities, spin, showers, hadrons, pile-up, isolation,
    jets that overlap, efficiencies, misidentified particles and photons. Spectra of jets and rapidities are chosen
    rather than computed. Objects are seen within ADC2021's ranges of eta, leptons above 3 GeV and jets above 15 GeV,
    with a Gaussian resolution in pT and none in the angles. **Results on it say nothing of ADC2021.**

    `meta["process"]` is 0 W, 1 QCD, 2 Z, 3 top pairs, and -1 of signals.

    References:
        E. Govorkova et al., LHC physics dataset for unsupervised New Physics detection at 40 MHz, Sci. Data 9 (2022)
        118, arXiv:2107.02157, for the layout, the mixture, the filter and the signals

    Args:
        background: its events.
        signal: events of each signal.
        layout: `flat` (57,), `particles` (19, 3) or `image` (1, 19, 3).
        resolution: factor on all resolutions; 0 is a perfect detector.
        common: see `AnomalyDataModule`; `seed` draws the events too.

    Raises:
        DataError: if a number is out of its range.

    Example:
        >>> data = ToyTrigger(background=100, signal=5)
        >>> data.setup()
        >>> data.shape, [len(part) for part in data.splits]
        ((57,), [64, 16, 40, 0])
    """

    kinds = ("nominal", *(process.__name__ for process in SIGNALS))
    columns = [f"{particle} {feature}" for particle in PARTICLES for feature in FEATURES]

    def __init__(
        self,
        *,
        background: int = 20_000,
        signal: int = 2_000,
        layout: Literal["flat", "particles", "image"] = "flat",
        resolution: float = 1.0,
        train_fraction: float = 0.8,
        val_fraction: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(train_fraction=train_fraction, val_fraction=val_fraction, **common)
        checks.counts("data", background=background, signal=signal)
        checks.one_of("data", SHAPES, layout=layout)
        checks.between("data", 0, 10, resolution=resolution)
        self.background, self.signal, self.layout, self.resolution = background, signal, layout, resolution

    @property
    def name(self) -> str:  # type: ignore[override]
        return "toy_trigger"

    def load(self) -> Splits:
        self.notice("generated events in the layout of ADC2021, a toy: results on it say nothing of ADC2021.")
        first, processes = len(BACKGROUND), [*BACKGROUND, *SIGNALS]
        mixing, *own = map(np.random.default_rng, np.random.SeedSequence(self.seed).spawn(1 + len(processes)))
        mixed = mixing.choice(first, self.background, p=list(BACKGROUND.values()))
        source = np.concatenate([mixed, np.repeat(np.arange(first, len(processes)), self.signal)])
        x = np.empty((len(source), len(PARTICLES), len(FEATURES)), np.float32)
        for number, (process, rng) in enumerate(zip(processes, own, strict=True)):
            places = np.flatnonzero(source == number)
            x[places] = kept(process, len(places), rng, self.resolution)
        meta = {"process": np.where(source < first, source, -1).astype(np.int8)}
        return self.split(Events.of(x.reshape(-1, *SHAPES[self.layout]), np.maximum(source - first + 1, 0), meta=meta))


def kept(process: Process, n: int, rng: np.random.Generator, resolution: float = 1.0) -> NDArray:
    """Events of a process that have an electron or muon above 23 GeV, `(n, 19, 3)`."""
    found = [np.empty((0, len(PARTICLES), len(FEATURES)))]
    while sum(map(len, found)) < n:
        truth = process(rng, TRIED)
        light = (truth.kind == ELECTRON) | (truth.kind == MUON)
        high = np.hypot(truth.p[..., 0], truth.p[..., 1]) > LEPTON / (1 + 8 * resolution * CONSTANT[ELECTRON])
        hopeful = (light & high).any(1)  # the others would take eight standard deviations of resolution
        x = measured(Truth(truth.kind[hopeful], truth.p[hopeful]), rng, resolution)
        found.append(x[np.maximum(x[:, 1, 0], x[:, 5, 0]) > LEPTON])
    return np.concatenate(found)[:n]


def measured(truth: Truth, rng: np.random.Generator, resolution: float = 1.0) -> NDArray:
    """What the detector sees of collisions, `(n, 19, 3)`.

    The missing transverse energy is what neutrinos take, less what the measured objects are off by, and some noise.

    Args:
        truth: the collisions.
        rng: draws the noise.
        resolution: factor on it.
    """
    kind, p = truth
    pt, phi = np.hypot(p[..., 0], p[..., 1]), np.arctan2(p[..., 1], p[..., 0])
    eta = np.arcsinh(p[..., 2] / np.maximum(pt, 1e-12))
    width = np.zeros_like(pt)
    for k in LEAST:
        width[kind == k] = np.hypot(NOISE[k] / np.sqrt(np.maximum(pt[kind == k], 1)), CONSTANT[k])
    factor = np.maximum(1 + resolution * width * rng.normal(size=pt.shape), 0)
    x = np.zeros((len(p), len(PARTICLES), len(FEATURES)))
    off = np.where(kind == INVISIBLE, 1, 0)
    start = 1
    for k, (_, slots) in enumerate(LAYOUT[1:], ELECTRON):
        seen = (kind == k) & (np.abs(eta) < REACH[k]) & (pt * factor > LEAST[k])
        off = np.where(seen, 1 - factor, off)
        order = np.argsort(np.where(seen, -pt * factor, 0), 1, kind="stable")[:, :slots]
        features = np.where(seen[..., None], np.stack([pt * factor, eta, phi], -1), 0)
        x[:, start : start + order.shape[1]] = np.take_along_axis(features, order[..., None], 1)
        start += slots
    missing = (off[..., None] * p[..., :2]).sum(1) + resolution * rng.normal(0, SOFT, (len(p), 2))
    x[:, 0, 0], x[:, 0, 2] = np.hypot(*missing.T), np.arctan2(missing[:, 1], missing[:, 0])
    return x
