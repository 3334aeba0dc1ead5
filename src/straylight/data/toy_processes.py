"""Collisions in miniature: what each process of the toy trigger leaves behind, before any detector.

`n` collisions; `K` objects of each, as many as the process can have.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.data.kinematics import boosted, breit_wigner, falling, four_vector, mass, two_body

ABSENT, ELECTRON, MUON, JET, INVISIBLE, TAU = range(6)
W, Z, TOP, A, HIGGS, LEPTOQUARK = (80.4, 2.1), (91.2, 2.5), (172.5, 1.4), (50.0, 0.1), (60.0, 0.1), (80.0, 0.1)
B, B_MESON, D_MESON, RHO, TAU_MASS = 4.8, 5.28, 1.87, 0.77, 1.777
JET_MASS = 10.0
RADIATED = 8  # jets at most

Part = tuple[NDArray, NDArray]  # of each collision one object: its kind, (n,), and its four-vector, (n, 4)


class Truth(NamedTuple):
    """Objects of collisions; the transverse momenta of each collision add up to zero.

    Attributes:
        kind: `ABSENT`, `ELECTRON`, `MUON`, `JET`, or `INVISIBLE`, `(n, K)`.
        p: four-vectors [GeV], `(n, K, 4)`; zero where absent.
    """

    kind: NDArray
    p: NDArray


# background


def w_boson(rng: np.random.Generator, n: int) -> Truth:
    """W -> l nu, of each flavour as often."""
    jets = _radiated(rng, n, 3.0)
    return _truth(jets, *_of_w(rng, _recoiling(rng, jets, breit_wigner(rng, n, *W), 1.6)))


def qcd(rng: np.random.Generator, n: int) -> Truth:
    """Two jets, in one of which a B meson, which carries three quarters of it on average, decays to D l nu."""
    jets = _radiated(rng, n, 4.0)
    first, second = _pair(rng, jets, JET_MASS, JET_MASS, 30, 6.0, least=40)
    share = rng.beta(6, 2, n)[:, None] * first[:, :3]
    meson = np.concatenate([share, np.sqrt((share**2).sum(1, keepdims=True) + B_MESON**2)], 1)
    lepton, neutrino = _semileptonic(rng, meson, D_MESON)
    return _truth(
        jets,
        (rng.integers(ELECTRON, MUON + 1, n), lepton),
        (_all(n, INVISIBLE), neutrino),
        (_all(n, JET), first - lepton - neutrino),
        (_all(n, JET), second),
    )


def z_boson(rng: np.random.Generator, n: int) -> Truth:
    """Z -> ll, of each flavour as often."""
    jets = _radiated(rng, n, 3.0)
    return _truth(jets, *_of_z(rng, _recoiling(rng, jets, breit_wigner(rng, n, *Z), 1.4)))


def top_pair(rng: np.random.Generator, n: int) -> Truth:
    """Both t -> b W, two in three W to jets."""
    jets, parts = _radiated(rng, n, 4.0), []
    for top in _pair(rng, jets, breit_wigner(rng, n, *TOP), breit_wigner(rng, n, *TOP), 400, 6.0):
        b, w = two_body(rng, top, B, breit_wigner(rng, n, *W))
        parts += [(_all(n, JET), b), *_of_w(rng, w, hadronic=rng.random(n) < 2 / 3)]
    return _truth(jets, *parts)


# signals


def leptoquark(rng: np.random.Generator, n: int) -> Truth:
    """A pair of leptoquarks of 80 GeV, each to b tau."""
    jets, parts = _radiated(rng, n, 4.0), []
    for one in _pair(rng, jets, breit_wigner(rng, n, *LEPTOQUARK), breit_wigner(rng, n, *LEPTOQUARK), 160, 6.0):
        b, tau = two_body(rng, one, B, TAU_MASS)
        parts += [(_all(n, JET), b), *_charged(rng, _all(n, TAU), tau)]
    return _truth(jets, *parts)


def a_to_4l(rng: np.random.Generator, n: int) -> Truth:
    """A of 50 GeV to two virtual Z, whose masses are even over what is left for them, each to two leptons."""
    jets = _radiated(rng, n, 4.0)
    parent = _recoiling(rng, jets, breit_wigner(rng, n, *A), 1.5)
    u = rng.random((2, n))
    u = np.where(u.sum(0) > 1, 1 - u, u)  # even over the triangle
    masses = 4 + u * (mass(parent) - 8)  # two taus take 3.6 GeV
    first, second = two_body(rng, parent, *masses)
    return _truth(jets, *_of_z(rng, first), *_of_z(rng, second))


def h0_to_tautau(rng: np.random.Generator, n: int) -> Truth:
    """A neutral scalar of 60 GeV to two taus."""
    jets = _radiated(rng, n, 4.0)
    parts = two_body(rng, _recoiling(rng, jets, breit_wigner(rng, n, *HIGGS), 1.5), TAU_MASS, TAU_MASS)
    return _truth(jets, *(part for tau in parts for part in _charged(rng, _all(n, TAU), tau)))


def hplus_to_taunu(rng: np.random.Generator, n: int) -> Truth:
    """A charged scalar of 60 GeV to a tau and a neutrino."""
    jets = _radiated(rng, n, 4.0)
    tau, neutrino = two_body(rng, _recoiling(rng, jets, breit_wigner(rng, n, *HIGGS), 1.5), TAU_MASS)
    return _truth(jets, *_charged(rng, _all(n, TAU), tau), (_all(n, INVISIBLE), neutrino))


Process = Callable[[np.random.Generator, int], Truth]

#: Each with its share of the background, as arXiv:2107.02157 has it.
BACKGROUND: dict[Process, float] = {w_boson: 0.592, qcd: 0.338, z_boson: 0.067, top_pair: 0.003}
SIGNALS: tuple[Process, ...] = (leptoquark, a_to_4l, h0_to_tautau, hplus_to_taunu)


# what they are made of


def _radiated(rng: np.random.Generator, n: int, mean: float) -> Truth:
    """Jets beside the hard process, a Poisson number of them, even in rapidity."""
    there = np.arange(RADIATED) < rng.poisson(mean, n)[:, None]
    p, jets = np.zeros((*there.shape, 4)), int(there.sum())
    p[there] = four_vector(falling(rng, jets, 60, 7.0), rng.uniform(-4.5, 4.5, jets), rng.uniform(-np.pi, np.pi, jets))
    return Truth(np.where(there, JET, ABSENT), p)


def _recoiling(rng: np.random.Generator, jets: Truth, masses: NDArray, spread: float) -> NDArray:
    """What balances the radiated jets: of these masses and a normal rapidity, `(n, 4)`."""
    x, y = -jets.p.sum(1)[:, :2].T
    return four_vector(np.hypot(x, y), rng.normal(0, spread, len(x)), np.arctan2(y, x), masses)


def _pair(
    rng: np.random.Generator,
    jets: Truth,
    first: ArrayLike,
    second: ArrayLike,
    scale: float,
    power: float,
    least: float = 0.0,
) -> tuple[NDArray, NDArray]:
    """Two particles back to back in a frame that balances the radiated jets, their pT falling from `least` on."""
    n = len(jets.p)
    pt = least + falling(rng, n, scale, power)
    one = four_vector(pt, rng.normal(0, 0.7, n), rng.uniform(-np.pi, np.pi, n), first)
    energy = np.sqrt((one[:, :3] ** 2).sum(1) + np.square(second))
    frame = _recoiling(rng, jets, one[:, 3] + energy, 1.0)
    return boosted(one, frame), boosted(np.concatenate([-one[:, :3], energy[:, None]], 1), frame)


def _of_w(rng: np.random.Generator, w: NDArray, hadronic: ArrayLike = False) -> list[Part]:
    hadronic = np.broadcast_to(hadronic, len(w))
    flavour = np.where(hadronic, JET, _flavour(rng, len(w)))
    lepton, neutrino = two_body(rng, w, np.where(flavour == TAU, TAU_MASS, 0))
    return [*_charged(rng, flavour, lepton), (np.where(hadronic, JET, INVISIBLE), neutrino)]


def _of_z(rng: np.random.Generator, z: NDArray) -> list[Part]:
    flavour = _flavour(rng, len(z))
    masses = np.where(flavour == TAU, TAU_MASS, 0)
    return [part for lepton in two_body(rng, z, masses, masses) for part in _charged(rng, flavour, lepton)]


def _flavour(rng: np.random.Generator, n: int) -> NDArray:
    return rng.choice([ELECTRON, MUON, TAU], n)


def _charged(rng: np.random.Generator, flavour: NDArray, p: NDArray) -> list[Part]:
    """What is seen of a charged lepton, and what neutrinos take of it: something where it is a tau."""
    kind, seen, taus = flavour.copy(), p.copy(), np.flatnonzero(flavour == TAU)
    kind[taus], seen[taus] = _of_tau(rng, p[taus])
    return [(kind, seen), (np.where(flavour == TAU, INVISIBLE, ABSENT), p - seen)]


def _of_tau(rng: np.random.Generator, tau: NDArray) -> Part:
    """What is seen of it: 17.8 % electrons, 17.4 % muons, and jets of the mass of a rho."""
    kind = rng.choice([ELECTRON, MUON, JET], len(tau), p=[0.178, 0.174, 0.648])
    hadrons, _ = two_body(rng, tau, RHO)
    lepton, _ = _semileptonic(rng, tau, 0.0)
    return kind, np.where((kind == JET)[:, None], hadrons, lepton)


def _semileptonic(rng: np.random.Generator, parent: NDArray, rest: float) -> tuple[NDArray, NDArray]:
    """The lepton and the neutrino of a virtual W, which a particle of mass `rest` is left beside.

    The W's squared mass, over the largest, is of the density (1 - q)^2 (1 + 2 q) that a weak decay has if what is left
    is massless.
    """
    q = np.linspace(1e-6, 1, 1025)
    fractions = np.interp(rng.random(len(parent)), 2 * q - 2 * q**3 + q**4, q)
    virtual, _ = two_body(rng, parent, (mass(parent) - rest) * np.sqrt(fractions) * (1 - 1e-9), rest)
    return two_body(rng, virtual)


def _all(n: int, kind: int) -> NDArray:
    return np.full(n, kind)


def _truth(jets: Truth, *parts: Part) -> Truth:
    kinds, vectors = zip(*parts, strict=True)
    return Truth(np.concatenate([np.stack(kinds, 1), jets.kind], 1), np.concatenate([np.stack(vectors, 1), jets.p], 1))
