"""What is drawn of events themselves, against pixels and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from straylight.report import figures
from straylight.report.figures.events import is_image
from straylight.report.figures.mosaic import mosaic, pixels
from straylight.report.figures.style import look
from test_figures_scores import KINDS, rendered, texts


def images(n: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, channels, 6, 5))


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def names(d: int) -> list[str]:
    return [f"feature with number {i}" for i in range(d)]


def test_what_counts_as_an_image() -> None:
    assert is_image((1, 28, 28)) and is_image((3, 32, 32)) and is_image((1, 8, 8))
    assert not any(map(is_image, [(57,), (19, 3), (1, 19, 3), (2, 28, 28), (28, 28)]))


def test_pixels_between_zero_and_one_stay_and_others_share_one_scale() -> None:
    inside = np.array([[[[0.0, 0.5]]], [[[0.25, 1.0]]]])
    assert pixels(inside)[:, 0, :, 0].tolist() == [[0, 0.5], [0.25, 1]]
    wide = np.array([[[0.0, 100.0]], [[50.0, np.nan]]])
    assert pixels(wide)[:, 0, :, 1] == pytest.approx(np.array([[0, 1], [0.5, 0]]), abs=0.02)
    colour = pixels(np.arange(12.0).reshape(1, 3, 2, 2) / 12)
    assert colour.shape == (1, 2, 2, 3) and colour[0, 0, 0].tolist() == [0, 4 / 12, 8 / 12]
    assert (pixels(np.full((2, 4, 4), 7.0)) == 0).all()
    with pytest.raises(ValueError, match="1 or 3 channels"):
        pixels(np.zeros((1, 2, 4, 4)))


def test_a_mosaic_puts_every_image_in_its_place_and_frame() -> None:
    given = pixels(images(5))
    whole = mosaic(given, 3)
    assert whole.shape == (2 * 8, 3 * 7, 3)
    for i in range(5):
        top, left = (i // 3) * 8 + 1, (i % 3) * 7 + 1
        assert np.array_equal(whole[top : top + 6, left : left + 5], given[i])
    assert (whole[8:, 14:] == 1).all(), "where no image is, it is white"
    framed = mosaic(given, 3, ["#ff0000"] * 5)
    assert framed.shape == (2 * 10, 3 * 9, 3)
    assert np.array_equal(framed[2:8, 2:7], given[0]) and framed[1, 3].tolist() == [1, 0, 0]
    assert framed[0, 3].tolist() == [1, 1, 1]


# extremes


def test_extremes_of_images_are_framed_by_kind_and_counted() -> None:
    x, labels = images(200), np.random.default_rng(0).integers(0, 6, 200)
    figure = rendered(
        figures.extremes(x[:100], x[100:], (np.arange(100.0), np.zeros(100)), (labels[:100], labels[100:]), KINDS)
    )
    left, right = figure.axes
    assert left.get_title() == "the 100 strangest, score 0 to 99"
    assert right.get_title() == "the 100 most ordinary, score 0 to 0"
    picture = np.asarray(left.images[0].get_array())
    assert picture.shape == (10 * 10, 10 * 9, 3)
    for i in (0, 17, 99):
        top, left_of = (i // 10) * 10, (i % 10) * 9
        assert np.allclose(picture[top + 2 : top + 8, left_of + 2 : left_of + 7, 0], x[i, 0])
        assert picture[top + 1, left_of + 1] == pytest.approx(to_rgb(look(labels[i], KINDS).colour))
    counts = [f"{KINDS[k]}: {(labels[:100] == k).sum()} / {(labels[100:] == k).sum()}" for k in range(6)]
    assert texts(figure) == counts


def test_the_strangest_are_called_by_their_names() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    called = ([f"id s{i}" for i in range(30)], [f"id o{i}" for i in range(30)])
    given = ((np.ones(30), np.ones(30)), (np.ones(30, int), np.zeros(30, int)))
    left, right = figures.extremes(x[:30], x[30:], *given, names=called).axes[:2]
    for axis, own in ((left, "s"), (right, "o")):
        told = dict(zip(axis.get_yticks(), (tick.get_text() for tick in axis.get_yticklabels()), strict=True))
        assert 8 <= len(told) <= 12 and told == {i: f"id {own}{i}  {i + 1}" for i in told}
    images = np.random.default_rng(0).uniform(size=(60, 1, 8, 8))
    titles = [axis.get_title() for axis in figures.extremes(images[:30], images[30:], *given, names=called).axes[:2]]
    assert titles[0].endswith("first id s0, id s1, id s2") and titles[1].endswith("first id o0, id o1, id o2")
    with pytest.raises(ValueError, match="a name each"):
        figures.extremes(x[:30], x[30:], *given, names=(called[0][:3], called[1]))


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8)])
def test_reconstructions_are_called_by_their_names(shape) -> None:
    x = np.random.default_rng(0).uniform(size=(3, *shape))
    figure = figures.reconstructions(x, x, [0, 0, 1], [1, 2, 3], names=["id a", "row 2", "id c"])
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert [title[:4] for title in titles] == ["id a", "row ", "id c"]
    with pytest.raises(ValueError, match="as many names"):
        figures.reconstructions(x, x, [0, 0, 1], [1, 2, 3], names=["id a"])


def test_extremes_of_rows_are_standard_deviations_from_ordinary_ones() -> None:
    strange, ordinary = rows(100, 30, 1), rows(100, 30, 2)
    strange[:, 3] += 10
    strange[:, 20] -= 5
    figure = rendered(
        figures.extremes(
            strange, ordinary, (np.ones(100), np.zeros(100)), (np.ones(100, int), np.zeros(100, int)), KINDS, names(30)
        )
    )
    left = figure.axes[0]
    table = np.asarray(left.images[0].get_array())
    off = (strange - ordinary.mean(0)) / ordinary.std(0)
    kept = np.sort(np.argsort(-np.abs(off).mean(0))[:24])
    assert table.shape == (100, 24) and {3, 20} <= set(kept)
    assert np.allclose(table, off[:, kept])
    assert [t.get_text() for t in left.get_xticklabels()] == ["feature with numb…"] * 24


def test_a_constant_feature_does_not_spoil_a_table() -> None:
    x = np.c_[rows(10, 2), np.ones(10)]
    table = figures.extremes(x, x, (np.ones(10), np.ones(10)), (np.ones(10, int), np.ones(10, int))).axes[0].images[0]
    assert np.isfinite(np.asarray(table.get_array())).all()
    with pytest.raises(ValueError, match="need a score and a label each"):
        figures.extremes(x, x, (np.ones(9), np.ones(10)), (np.ones(10), np.ones(10)))


# reconstructions


def test_pairs_of_images_stand_above_their_squared_error() -> None:
    x, out = images(4), images(4, 1)
    figure = rendered(figures.reconstructions(x, out, [0, 1, 2, 5], [1.0, 2.0, 30_000.0, 4.0], KINDS))
    panels = np.array(figure.axes[:12]).reshape(3, 4)
    for i in range(4):
        shown = [np.asarray(axis.images[0].get_array()) for axis in panels[:, i]]
        assert np.allclose(shown[0][..., 0], x[i, 0]) and np.allclose(shown[1][..., 0], out[i, 0])
        assert np.allclose(shown[2], (x[i, 0] - out[i, 0]) ** 2)
    assert panels[0, 2].get_title() == "score\n3e4"
    assert len({axis.images[0].get_clim() for axis in panels[2]}) == 1, "errors share one scale"
    assert texts(figure) == [KINDS[0], KINDS[1], KINDS[2], KINDS[5]]


def test_rows_and_their_reconstructions_are_points_and_bars() -> None:
    x, out = rows(6, 10), rows(6, 10, 1)
    figure = rendered(figures.reconstructions(x, out, [0, 0, 0, 1, 1, 2], range(6), KINDS, names(10)))
    assert len(figure.axes) == 6
    for i, axis in enumerate(figure.axes):
        event, back = axis.lines
        assert np.array_equal(event.get_ydata(), x[i]) and np.array_equal(back.get_ydata(), out[i])
        assert f"mean squared error {((x[i] - out[i]) ** 2).mean():.3g}" in axis.get_title()


def test_a_plane_has_lines_from_events_to_reconstructions() -> None:
    x, out = rows(20, 2), rows(20, 2, 1)
    y = np.repeat([0, 1], 10)
    figure = rendered(figures.reconstructions(x, out, y, np.zeros(20), KINDS, ("mass", "angle")))
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("mass", "angle")
    lines = {tuple(np.round(line.get_xydata().ravel(), 9)) for line in axis.lines if len(line.get_xdata()) == 2}
    assert lines == {tuple(np.round(np.r_[a, b], 9)) for a, b in zip(x, out, strict=True)}
    assert f"{KINDS[0]}\nmean squared error {((x - out)[:10] ** 2).mean():.3g}" in texts(figure)


def test_reconstructions_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="must fit each other"):
        figures.reconstructions(rows(3, 4), rows(3, 5), [0] * 3, [0] * 3)


# samples


def test_samples_of_images_are_a_square_grid() -> None:
    x = images(64)
    axis = rendered(figures.samples(x)).axes[0]
    picture = np.asarray(axis.images[0].get_array())
    assert picture.shape == (8 * 8, 8 * 7, 3) and np.allclose(picture[1:7, 1:6, 0], x[0, 0])


def test_samples_of_rows_are_compared_feature_by_feature() -> None:
    made, events = rows(500, 30), rows(400, 30, 1)
    made[:, 7] += 3
    figure = rendered(figures.samples(made, events, names(30)))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 24 and names(30)[7] in [axis.get_xlabel() for axis in shown]
    axis = next(axis for axis in shown if axis.get_xlabel() == names(30)[7])
    for stairs, values in zip(axis.patches, (events[:, 7], made[:, 7]), strict=True):
        density, edges, _ = stairs.get_data()
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        assert np.allclose(density, counts / len(values) / np.diff(edges))
    assert texts(figure) == ["nominal events", "samples"]
    with pytest.raises(ValueError, match="there are none"):
        figures.samples(made)


def test_samples_of_a_plane_stand_beside_events_on_the_same_axes() -> None:
    made, events = rows(5000, 2), rows(100, 2, 1)
    left, right = rendered(figures.samples(made, events, ("mass", "angle"))).axes
    assert left.get_title() == "100 nominal events" and right.get_title() == "3,000 samples"
    assert left.get_xlim() == right.get_xlim()
    assert np.array_equal(right.collections[0].get_offsets(), made[:3000])


# manifold


def test_a_manifold_of_images_has_a_panel_for_each_pair_of_axes() -> None:
    grids = [images(9, i) for i in range(3)]
    figure = rendered(figures.manifold(grids, [(0, 1), (0, 4), (1, 4)], "codes from -2 to 2"))
    assert [axis.get_title() for axis in figure.axes] == ["z1 across, z2 up", "z1 across, z5 up", "z2 across, z5 up"]
    assert figure.get_suptitle() == "codes from -2 to 2"
    picture = np.asarray(figure.axes[1].images[0].get_array())
    assert picture.shape == (3 * (6 + 2), 3 * (5 + 2), 3)
    assert np.allclose(picture[1:7, 8:13, 0], grids[1][1, 0]), "the first row goes across"
    assert (picture[0] == 1).all(), "images of few pixels stand apart"
    large = rendered(figures.manifold([np.zeros((4, 1, 16, 16))], [(0, 1)]))
    assert np.asarray(large.axes[0].images[0].get_array()).shape == (32, 32, 3)


def test_a_manifold_of_the_plane_is_a_net() -> None:
    net = np.stack(np.meshgrid([0.0, 1, 2], [2.0, 1, 0]), -1).reshape(9, 2)
    axis = rendered(figures.manifold([net], [(0, 1)])).axes[0]
    drawn = {tuple(line.get_xydata().ravel()) for line in axis.lines}
    expected = {tuple(net.reshape(3, 3, 2)[i].ravel()) for i in range(3)}
    expected |= {tuple(net.reshape(3, 3, 2)[:, i].ravel()) for i in range(3)}
    assert drawn == expected


def test_a_manifold_of_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="neither images nor points of a plane"):
        figures.manifold([rows(9, 5)], [(0, 1)])
    with pytest.raises(ValueError, match="1 grids of decoded events were given for 0 pairs"):
        figures.manifold([rows(9, 2)], [])


# a few of each kind


def test_examples_stand_in_a_row_for_each_kind_framed_in_its_colour() -> None:
    x, y = images(7), np.array([1, 0, 1, 0, 0, 1, 3])
    kinds = ("nominal", "a", "b", "c")
    figure = rendered(figures.examples(x, y, kinds, each=2))
    assert [axis.get_ylabel() for axis in figure.axes] == ["nominal", "a", "c"]
    for axis, places, label in zip(figure.axes, ([1, 3], [0, 2], [6]), (0, 1, 3), strict=True):
        picture = np.asarray(axis.images[0].get_array())
        tiles = picture.reshape(10, 2, 9, 3).transpose(1, 0, 2, 3)
        for tile, place in zip(tiles, places, strict=False):
            assert np.allclose(tile[2:8, 2:7, 0], x[place, 0]) and np.allclose(tile[1, 1], to_rgb(look(label).colour))
        assert len(places) == 2 or (tiles[1] == 1).all()
    with pytest.raises(ValueError, match="and N labels are needed"):
        figures.examples(rows(3, 5), [0, 0, 1])


# contributions


def test_contributions_are_shares_of_the_largest_of_each_event() -> None:
    parts = np.abs(rows(5, 40)) * np.array([1, 10, 100, 1e4, 1e6])[:, None]
    figure = rendered(figures.contributions(rows(5, 40), parts, [1, 2, 3, 4, 5e6], [0, 1, 2, 3, 4], KINDS, names(40)))
    axis = figure.axes[0]
    shares = parts / parts.max(1, keepdims=True)
    kept = np.sort(np.argsort(-shares.sum(0))[:24])
    table = np.asarray(axis.images[0].get_array())
    assert np.allclose(table, shares[:, kept])
    assert axis.get_yticklabels()[4].get_text() == "row 4  a kind with a lon…  5e6"


def test_contributions_name_the_row_and_the_features_that_matter_most_with_their_values() -> None:
    x, parts = np.arange(8.0).reshape(2, 4), np.array([[1.0, 3.0, -9.0, 2.0], [-1.0, -2.0, 0.0, -3.0]])
    figure = rendered(
        figures.contributions(x, parts, [7, 8], [1, 0], KINDS, list("abcd"), rows=["row 812", "id 30000"])
    )
    axis, beside = figure.axes[:2]
    assert [t.get_text().split("  ")[0] for t in axis.get_yticklabels()] == ["row 812", "id 30000"]
    assert [t.get_text() for t in beside.get_yticklabels()] == ["b = 1, d = 3", "none alone"]
    assert beside.get_ylim() == axis.get_ylim()


@pytest.mark.parametrize("image", [False, True])
def test_features_that_are_constant_in_training_are_left_out_of_contributions(image: bool) -> None:
    x, parts = (images(3) if image else rows(3, 30)), rows(3, 30)
    parts[:, 7] = 1e9  # a dead pixel, which alone would be seen
    constant = np.arange(30) == 7
    figure = rendered(figures.contributions(x, parts, [1, 2, 3], [1, 1, 2], KINDS, names(30), constant=constant))
    said = figure.get_supxlabel() if image else figure.axes[0].get_xlabel()
    assert "1 constant" in said and "left out" in said
    if image:
        found = np.ma.filled(np.ma.masked_invalid(np.asarray(figure.axes[3].images[0].get_array()).ravel()), np.nan)
        assert np.isnan(found[7]) and np.isfinite(np.delete(found, 7)).all() and np.nanmax(np.abs(found)) == 1
        assert not any("(1, 2)" in axis.get_xlabel() for axis in figure.axes)
    else:
        labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
        assert names(30)[7] not in labels and np.abs(figure.axes[0].images[0].get_array()).max() == 1
    with pytest.raises(ValueError, match="every feature is the same"):
        figures.contributions(x, parts, [1, 2, 3], [1, 1, 2], constant=np.ones(30, bool))
    with pytest.raises(ValueError, match="do not fit"):
        figures.contributions(x, parts, [1, 2, 3], [1, 1, 2], constant=np.ones(5, bool))


def test_contributions_of_pixels_are_a_map_beside_the_image() -> None:
    x, parts = images(3), rows(3, 30)
    figure = rendered(figures.contributions(x, parts, [1, 2, 3], [1, 1, 2], KINDS))
    panels = np.array(figure.axes[:6]).reshape(2, 3)
    for i in range(3):
        found = np.asarray(panels[1, i].images[0].get_array())
        assert np.allclose(found, parts[i].reshape(6, 5) / np.abs(parts[i]).max())
    with pytest.raises(ValueError, match="a contribution for each pixel"):
        figures.contributions(x, parts[:, :5], [1, 2, 3], [1, 1, 2])
    with pytest.raises(ValueError, match="must fit each other"):
        figures.contributions(x, parts, [1, 2], [1, 1, 2])
