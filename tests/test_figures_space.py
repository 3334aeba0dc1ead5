"""What is drawn of the plane, the latent space and particles, against numpy, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from straylight.report import figures
from straylight.report.figures.projection import projected
from straylight.report.figures.style import look, shown, subsampled
from test_figures_scores import KINDS, rendered, texts


def points(n: int = 2000, kinds: int = 2, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of a kind about a place of its own, and labels."""
    random = np.random.default_rng(seed)
    y = random.choice(kinds + 1, n, p=[0.7, *[0.3 / kinds] * kinds])
    return random.normal(size=(n, d)) + 3 * y[:, None], y


def clouds(axis) -> dict[str, np.ndarray]:
    """The points of each scatter by its label."""
    found = [c for c in axis.collections if isinstance(c, PathCollection)]
    return {c.get_label(): np.asarray(c.get_offsets()) for c in found}


# which are shown


def test_of_every_kind_at_most_so_many_are_shown_the_same_every_time() -> None:
    y = np.repeat([-1, 0, 3], [10, 10_000, 4000])
    rows = shown(y)
    assert np.bincount(y[rows] + 1).tolist() == [10, 3000, 0, 0, 3000]
    assert (np.diff(rows) > 0).all() and np.array_equal(rows, shown(y)) and not np.array_equal(rows, shown(y, seed=1))
    assert subsampled(14_010, len(rows)) == "6,010 of 14,010 events shown"


# projections


def test_projections_are_principal_components() -> None:
    x, _ = points(500, d=6)
    found = projected(x, 3)
    theirs = PCA(3).fit(x)
    assert np.allclose(np.abs(found.points), np.abs(theirs.transform(x)))
    shares = [f"component {i + 1} ({s:.0%})".replace("%", " %") for i, s in enumerate(theirs.explained_variance_ratio_)]
    assert list(found.names) == shares


def test_standardised_projections_do_not_depend_on_units() -> None:
    x, _ = points(500, d=4)
    found = projected(x * [1, 1e6, 1e-3, 5], 2, standardise=True)
    theirs = PCA(2).fit_transform(StandardScaler().fit_transform(x))
    assert np.allclose(np.abs(found.points), np.abs(theirs))


def test_points_of_few_dimensions_stay_where_they_are() -> None:
    x, _ = points(10)
    assert np.array_equal(projected(x, 2).points, x) and projected(x, 3, "x").names == ("x1", "x2")
    assert projected(np.ones((5, 4)), 2).points.tolist() == [[0, 0]] * 5
    assert projected(np.ones((1, 4)), 2).points.shape == (1, 2)


@pytest.mark.parametrize(
    ("x", "said"), [(np.zeros(3), "must be of shape"), (np.full((4, 3), np.nan), "4 of 4 points are not finite")]
)
def test_projections_refuse_what_cannot_be_drawn(x: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        projected(x, 2)


# the plane


def test_a_scatter_shows_kinds_in_their_colours_and_counts_all() -> None:
    x, y = points(20_000, kinds=5)
    figure = rendered(figures.scatter(x, y, KINDS, ("mass", "angle")))
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("mass", "angle")
    found = clouds(left)
    assert list(found) == list(KINDS)
    for k, name in enumerate(KINDS):
        own = found[name]
        assert len(own) == min(3000, (y == k).sum())
        assert {tuple(p) for p in own} <= {tuple(p) for p in x[y == k]}
    for k, collection in enumerate(left.collections):
        assert to_hex(collection.get_facecolor()[0]).upper() == look(k, KINDS).colour.upper()
    assert [bar.get_width() for bar in right.patches] == np.bincount(y).tolist()
    shares = 100 * np.bincount(y) / 20_000
    assert [t.get_text() for t in right.texts] == [
        f"{n:,}\n{s:.3g} %" for n, s in zip(np.bincount(y), shares, strict=True)
    ]
    assert right.get_xscale() == "linear" and {bar.get_x() for bar in right.patches} == {0}
    assert right.get_window_extent().width < left.get_window_extent().width / 3, "smaller than the scatter beside them"
    total = sum(map(len, found.values()))
    assert left.get_title() == f"{total:,} of 20,000 events shown"


def test_counts_may_be_of_more_events_than_are_given() -> None:
    right = figures.scatter([[0, 0], [1, 1]], [0, 1], counts=[1_000_000, 7]).axes[1]
    assert [bar.get_width() for bar in right.patches] == [1_000_000, 7]


def test_one_far_event_among_many_does_not_squeeze_the_others() -> None:
    x, y = points(10_000, kinds=1)
    x[0] = 1e6
    left = figures.scatter(x, y).axes[0]
    low, high = left.get_xlim()
    each = np.array([np.quantile(x[y == k, 0], [0.001, 0.999]) for k in (0, 1)])
    assert low <= each.min() and high >= each[:, 1].max() and high < 20


def test_scores_colour_events_and_the_plane_is_asked_for_contours() -> None:
    x, y = points(5000)
    asked = []

    def score(p: np.ndarray) -> np.ndarray:
        asked.append(p)
        return (p**2).sum(1)

    scores = (x**2).sum(1)
    cut = float(np.quantile(scores[y == 0], 0.95))
    figure = rendered(figures.by_score(x, y, scores, score, ("quantile 0.95", cut), KINDS))
    left, right = figure.axes[:2]
    (grid,) = asked
    assert grid.shape == (120**2, 2)
    for i, limits in enumerate((left.get_xlim(), left.get_ylim())):
        assert (grid[:, i].min(), grid[:, i].max()) == pytest.approx(limits)
    (cloud,) = clouds(left).values()
    colours = np.asarray(left.collections[0].get_array())
    assert len(cloud) == sum(min(3000, n) for n in np.bincount(y))
    assert np.allclose(colours, np.clip((cloud**2).sum(1), *left.collections[0].get_clim()))
    assert (np.diff(colours) >= 0).all(), "the strangest are drawn last"
    assert f"quantile 0.95: {cut:.4g}" in texts(figure)
    line = next(c for c in right.collections if len(c.get_edgecolor()) and to_hex(c.get_edgecolor()[0]) == "#d55e00")
    radii = np.sqrt((np.concatenate([p.vertices for p in line.get_paths()]) ** 2).sum(1))
    inside = radii < min(map(abs, left.get_xlim()))
    assert np.allclose(radii[inside], np.sqrt(cut), rtol=0.02)
    assert right.get_xlim() == left.get_xlim()


def test_without_a_score_of_the_plane_events_stand_alone() -> None:
    x, y = points(100)
    figure = rendered(figures.by_score(x, y, np.r_[np.inf, np.zeros(99)]))
    assert [axis.get_title() for axis in figure.axes] == ["events", ""]  # and the colours' bar


def test_detected_events_are_counted_by_what_became_of_them() -> None:
    x, y = points(20_000)
    y[:50] = -1
    scores = x[:, 0]
    figure = rendered(figures.found(x, y, scores, ("fpr 0.01", 2.0), KINDS))
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("true", "detected by fpr 0.01")
    flagged, known = scores > 2, y >= 0
    expected = {
        "nominal, passed": ~flagged & (y == 0),
        "nominal, flagged": flagged & (y == 0),
        "anomalous, missed": ~flagged & (y > 0),
        "anomalous, flagged": flagged & (y > 0) & known,
    }
    assert [t for t in texts(figure) if "," in t and ":" in t] == [f"{k}: {v.sum():,}" for k, v in expected.items()]
    drawn = clouds(right)
    for name, which in expected.items():
        own = drawn[f"{name}: {which.sum():,}"]
        assert len(own) and {tuple(p) for p in own} <= {tuple(p) for p in x[which]}, name
    assert figures.found(x, np.full(len(x), -1), scores, ("fpr", 0.0)) is None


@pytest.mark.parametrize("draw", [figures.scatter, lambda x, y: figures.by_score(x, y, y)])
def test_the_plane_refuses_what_has_no_place_in_it(draw) -> None:
    for x, y in (([[1.0]], [0]), ([[1.0, 2.0]], [0, 1]), (np.zeros((0, 2)), [])):
        with pytest.raises(ValueError, match=r"points in a plane are of shape \(N, 2\)"):
            draw(x, y)


def test_one_dimension_is_a_histogram_of_each_kind() -> None:
    x, y = points(1000, d=1)
    left, right = rendered(figures.line(x[:, 0], y, KINDS, "energy")).axes
    assert left.get_xlabel() == "energy" and left.get_yscale() == "log"
    for k, stairs in enumerate(left.patches):
        counts, edges, _ = stairs.get_data()
        assert np.array_equal(counts, np.histogram(x[y == k, 0], edges)[0]) and counts.sum() == (y == k).sum()
    assert [bar.get_width() for bar in right.patches] == np.bincount(y).tolist()


def test_events_beyond_the_axis_of_one_dimension_are_counted_and_said() -> None:
    x = np.append(np.random.default_rng(0).normal(size=9999), 1000.0)
    axis = figures.line(x, np.zeros(10_000, int), (), "energy").axes[0]
    low, high = axis.get_xlim()
    assert high < 10 and axis.patches[0].get_data().values.sum() == 10_000
    assert (
        axis.get_xlabel()
        == f"energy\nthe outermost bins hold {((x < low) | (x > high)).sum()} of\n10,000 events beyond the ends"
    )


# the latent space


def test_codes_are_shown_by_kind_and_by_class() -> None:
    z, y = points(3000, kinds=5)
    classes = np.random.default_rng(1).integers(0, 10, 3000)
    figure = rendered(figures.latent_2d(z, y, KINDS, classes, "digit"))
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("z1", "z2")
    by_class = clouds(right)
    assert list(by_class) == [str(c) for c in range(10)]
    for c in range(10):
        assert len(by_class[str(c)]) == (classes == c).sum()
        assert {tuple(p) for p in by_class[str(c)]} <= {tuple(p) for p in z[classes == c]}
    looks = {(to_hex(c.get_facecolor()[0])) for c in right.collections}
    assert len(looks) == 10, "two of ten digits look the same"
    assert texts(figure) == ["kind", *KINDS, "", "digit", *map(str, range(10))]


def test_codes_of_more_dimensions_are_shown_along_principal_components() -> None:
    z, y = points(1000, d=8)
    axis = rendered(figures.latent_2d(z, y)).axes[0]
    first = np.abs(PCA(2).fit_transform(z))
    drawn = np.abs(np.concatenate(list(clouds(axis).values())))
    assert np.allclose(np.sort(drawn, 0), np.sort(first, 0))
    assert axis.get_xlabel().startswith("component 1 (")


def test_codes_of_one_dimension_are_histograms() -> None:
    z, y = points(1000, d=1)
    axis = rendered(figures.latent_2d(z, y, KINDS)).axes[0]
    for stairs in axis.patches:
        density, edges, _ = stairs.get_data()
        assert np.sum(density * np.diff(edges)) == pytest.approx(1)
    assert len(axis.patches) == 3


def test_three_dimensions_are_drawn_and_two_are_not() -> None:
    z, y = points(1000, kinds=5, d=3)
    figure = rendered(figures.latent_3d(z, y, KINDS, y % 2, "parity"))
    assert [axis.name for axis in figure.axes] == ["3d", "3d"]
    across = np.concatenate([c._offsets3d[0] for c in figure.axes[0].collections])
    assert set(np.round(across, 9)) <= set(np.round(z[:, 0], 9)) and len(across) > 980
    assert figures.latent_3d(z[:, :2], y) is None


def test_the_commonest_of_many_classes_are_shown() -> None:
    z, y = points(3000)
    classes = np.r_[np.arange(100), np.full(2900, 7)]
    names = list(clouds(figures.latent_2d(z, y, classes=classes).axes[1]))
    assert len(names) == 24 and "7" in names


def test_normal_codes_lie_under_the_normal_and_the_chi_density() -> None:
    z = np.random.default_rng(0).normal(size=(20_000, 6))
    left, right = rendered(figures.latent_normal(z)).axes
    for axis, law in ((left, stats.norm.pdf), (right, stats.chi(6).pdf)):
        x, density = axis.lines[0].get_data()
        assert np.allclose(density, law(x), atol=1e-9)
        heights, edges, _ = axis.patches[0].get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
        assert np.abs(heights - law((edges[1:] + edges[:-1]) / 2)).max() < 0.05
    assert left.get_title() == f"mean {z.mean():.3f}, standard deviation {z.std():.3f}"


@pytest.mark.parametrize(
    "z", [np.random.default_rng(0).normal(size=(50, 400)), np.full((5, 3), 100.0), np.zeros((5, 1))]
)
def test_codes_far_from_normal_or_of_many_dimensions_are_drawn(z: np.ndarray) -> None:
    for axis in rendered(figures.latent_normal(z)).axes:
        heights, edges, _ = axis.patches[0].get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
        assert np.isfinite(axis.lines[0].get_ydata()).all()


def test_codes_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 codes are not finite"):
        figures.latent_2d([[0.0, np.inf], [0, 0]], [0, 0])
    with pytest.raises(ValueError, match=r"codes are of shape \(N, Z\)"):
        figures.latent_normal(np.zeros(3))


# particles


def events(n: int = 400, seed: int = 0) -> np.ndarray:
    """Events with so many leading particles of each object, the others absent."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, 19, 3), np.float32)
    x[:, 0] = np.stack([random.exponential(50, n), np.zeros(n), random.uniform(-3, 3, n)], 1)
    for first, slots in ((1, 4), (5, 4), (9, 10)):
        there = np.arange(slots) < random.integers(0, slots + 1, n)[:, None]
        pt = -np.sort(-random.exponential(30, (n, slots)), 1) + 1
        x[:, first : first + slots] = np.stack([pt, random.normal(size=pt.shape), pt * 0 + 1], 2) * there[..., None]
    return x


@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
def test_particle_histograms_count_leading_objects_and_leave_absent_ones_out(shape: tuple[int, ...]) -> None:
    x, y = events(), np.repeat([0, 2], 200)
    figure = rendered(figures.leading_particles(x.reshape(-1, *shape), y, KINDS))
    panels = np.array(figure.axes).reshape(4, 3)
    assert panels[0, 0].get_xlabel() == "missing energy [GeV]" and panels[3, 0].get_xlabel() == "leading jet pT [GeV]"
    assert panels[0, 0].get_yscale() == "log"
    for row, first, slots in ((1, 1, 4), (2, 5, 4), (3, 9, 10)):
        for k, label in enumerate((0, 2)):
            own = x[y == label, first : first + slots]
            there = (own != 0).any(2)
            share, _, _ = panels[row, 2].patches[k].get_data()
            assert np.allclose(share, np.bincount(there.sum(1), minlength=slots + 1) / 200)
            for column, feature in ((0, 0), (1, 1)):
                density, edges, _ = panels[row, column].patches[k].get_data()
                leading = own[there[:, 0], 0, feature]
                counts = np.histogram(np.clip(leading, edges[0], edges[-1]), edges)[0]
                assert counts.sum() == there[:, 0].sum() < 200
                assert np.allclose(density, counts / counts.sum() / np.diff(edges))
    assert texts(figure) == [KINDS[0], KINDS[2]]


def test_events_without_particles_say_so() -> None:
    x = np.zeros((5, 57))
    x[:, 0] = 1
    panels = np.array(rendered(figures.leading_particles(x, np.zeros(5, int))).axes).reshape(4, 3)
    assert [t.get_text() for t in panels[1, 0].texts] == ["none"]
    assert panels[1, 2].patches[0].get_data()[0].tolist() == [1, 0, 0, 0, 0]
    rendered(figures.leading_particles(np.zeros((5, 57)), np.zeros(5, int)))


def test_other_events_than_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="events are 19 particles of 3 features"):
        figures.leading_particles(np.zeros((5, 56)), np.zeros(5))
