"""Interactive pictures, without a browser: what a widget holds is read back and compared with numbers by hand."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.decomposition import PCA

from straylight.report.figures.style import MOST, NOMINAL, look
from straylight.report.interactive import SIDE, scatter_3d, sliders

KINDS = ("nominal", "rotated", "noise")


def codes(n: int = 300, d: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.arange(d, 0, -1) + rng.normal(size=d)


def shades(picture) -> np.ndarray:
    """The grey of a picture's pixels, `(H, W)` from 0 to 1."""
    return imread(io.BytesIO(picture.value), format="png")[..., 0]


# the cloud


def test_a_cloud_holds_each_code_once_in_the_colour_of_its_kind() -> None:
    z, y = codes(), np.random.default_rng(1).integers(0, 3, 300)
    figure = scatter_3d(z, y, KINDS)
    assert [cloud.name for cloud in figure.data] == list(KINDS)
    assert [cloud.marker.color for cloud in figure.data] == [NOMINAL, look(1).colour, look(2).colour]
    for label, cloud in enumerate(figure.data):
        assert np.allclose(np.stack([cloud.x, cloud.y, cloud.z], 1), z[y == label], rtol=1e-6)
        assert np.asarray(cloud.customdata).tolist() == np.flatnonzero(y == label).tolist()
    assert not figure.layout.title.text and not figure.layout.updatemenus
    assert [figure.layout.scene[f"{a}axis"].title.text for a in "xyz"] == ["z1", "z2", "z3"]


def test_a_button_shows_classes_in_place_of_kinds() -> None:
    z, y, digit = codes(), np.arange(300) % 3, np.arange(300) % 10
    figure = scatter_3d(z, y, KINDS, digit, "digit")
    assert [cloud.visible for cloud in figure.data] == [True] * 3 + [False] * 10
    by_kind, by_digit = figure.layout.updatemenus[0].buttons
    assert (by_kind.label, by_digit.label) == ("by kind", "by digit")
    assert by_digit.args[0]["visible"] == [False] * 3 + [True] * 10
    assert by_kind.args[0]["visible"] == [True] * 3 + [False] * 10
    assert [cloud.name for cloud in figure.data[3:]] == [str(d) for d in range(10)]
    assert len({(cloud.marker.color, cloud.marker.symbol) for cloud in figure.data[3:]}) == 10
    assert np.allclose(figure.data[3 + 7].x, z[digit == 7, 0])


def test_a_cloud_of_many_codes_shows_some_and_says_so() -> None:
    n = MOST + 500
    figure = scatter_3d(codes(n + 10), [0] * n + [1] * 10, KINDS)
    assert [len(cloud.x) for cloud in figure.data] == [MOST, 10]
    assert figure.layout.title.text == f"{MOST + 10:,} of {n + 10:,} events shown"


def test_a_cloud_of_more_dimensions_lies_along_principal_components() -> None:
    z = codes(d=6)
    figure = scatter_3d(z, [0] * len(z))
    ours, theirs = np.stack([figure.data[0][a] for a in "xyz"], 1), PCA(3).fit_transform(z)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    assert figure.layout.scene.xaxis.title.text.startswith("component 1 (")


@pytest.mark.parametrize(
    "z, y, classes, words",
    [
        (np.zeros((4, 2)), [0] * 4, None, "2 dimensions"),
        (np.zeros((4, 3)), [0] * 3, None, "N labels"),
        (np.zeros((4, 3)), [0] * 4, [1, 2], "2 classes were given for 4 codes"),
        (np.full((4, 3), np.nan), [0] * 4, None, "not finite"),
    ],
)
def test_unfit_codes_are_refused(z, y, classes, words) -> None:
    with pytest.raises(ValueError, match=words):
        scatter_3d(z, y, KINDS, classes)


# the sliders


def test_a_slider_moves_the_code_along_its_component() -> None:
    z, seen = codes(500, 4), []

    def decode(code: np.ndarray) -> np.ndarray:
        seen.append(code)
        return np.zeros((1, 1, 4, 4))

    column, _ = sliders(z, decode).children
    pca = PCA().fit(z)
    width = np.sqrt(pca.explained_variance_ * (len(z) - 1) / len(z))
    assert seen[-1].shape == (1, 4) and seen[-1].dtype == np.float32
    assert np.allclose(seen[-1], z.mean(0), atol=1e-5)
    for k, slider in enumerate(column.children[:4]):
        assert slider.description == f"component {k + 1} ({pca.explained_variance_ratio_[k]:.0%})".replace("%", " %")
        assert (slider.min, slider.max) == (-3, 3)
        slider.value = 2.0
        moved = seen[-1][0] - z.mean(0)
        assert np.allclose(np.abs(moved), np.abs(2 * width[k] * pca.components_[k]), atol=1e-4)
        slider.value = 0.0
    column.children[0].value, column.children[1].value = 1.0, -1.0
    assert np.linalg.norm(seen[-1][0] - z.mean(0)) == pytest.approx(np.hypot(width[0], width[1]), rel=1e-4)
    button, where = column.children[4:]
    button.click()
    assert [slider.value for slider in column.children[:4]] == [0] * 4
    assert np.allclose(seen[-1], z.mean(0), atol=1e-5)
    assert where.value == f"z = ({', '.join(f'{m:.2f}' for m in z.mean(0))})"


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (1, 1, 5, 7)])
def test_the_picture_is_what_is_decoded(shape) -> None:
    image = np.random.default_rng(0).random((5, 7))
    column, picture = sliders(codes(), lambda z: (image * (z[0, 0] > 2)).reshape(shape)).children
    assert not shades(picture).any()
    column.children[0].value = 3.0  # the first axis, nearly, along which the codes spread most
    lit, times = shades(picture), SIDE // 7
    assert lit.shape == (5 * times, 7 * times)
    assert np.allclose(lit[times // 2 :: times, times // 2 :: times], image, atol=1 / 255)


def test_colours_are_drawn_and_one_scale_of_brightness_holds_for_all() -> None:
    rgb = np.stack([np.full((4, 4), v) for v in (0.2, 0.6, 1.0)])
    _, picture = sliders(codes(), lambda z: rgb).children
    drawn = imread(io.BytesIO(picture.value), format="png")
    assert np.allclose(drawn[0, 0, :3], [0.2, 0.6, 1.0], atol=1 / 255)
    z = codes()
    column, picture = sliders(z, lambda code: np.full((4, 4), 16 * code[0, 0])).children
    middle = shades(picture)[0, 0]
    column.children[0].value = 1.0
    brighter = shades(picture)[0, 0]
    assert 0.4 < middle < 0.6 and abs(brighter - middle) == pytest.approx(1 / 6, abs=0.02)


def test_of_many_components_the_first_have_sliders() -> None:
    column, _ = sliders(codes(d=20), lambda z: np.zeros((4, 4)), most=5, span=2).children
    assert len(column.children) == 5 + 2 and column.children[0].max == 2 and column.children[-1].value.endswith(", …)")


@pytest.mark.parametrize(
    "z, made, words",
    [
        (np.zeros((1, 3)), np.zeros((4, 4)), "two codes or more"),
        (np.zeros(3), np.zeros((4, 4)), "shape"),
        (np.full((5, 3), np.inf), np.zeros((4, 4)), "not finite"),
        (np.eye(3), np.zeros((2, 4, 4)), "must be an image"),
        (np.eye(3), np.zeros(57), "must be an image"),
    ],
)
def test_what_is_no_code_or_no_image_is_refused(z, made, words) -> None:
    with pytest.raises(ValueError, match=words):
        sliders(z, lambda _: made)


# without the extra


@pytest.mark.parametrize(
    "name, call",
    [
        ("plotly", lambda: scatter_3d(np.eye(3), [0] * 3)),
        ("ipywidgets", lambda: sliders(np.eye(3), lambda z: np.zeros((4, 4)))),
    ],
)
def test_what_is_missing_is_named_with_how_to_install_it(monkeypatch, name, call) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as error:
        call()
    said = str(error.value)
    assert said == f"This needs {name}, which is not installed: pip install 'straylight[notebooks]'."
