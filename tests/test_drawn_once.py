"""What is remembered while a figure is drawn changes no pixel, and what is read once for many runs no value."""

import io

import numpy as np
import pyarrow as pa
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from straylight.report import arrow, figures
from straylight.report.figures.axes import logarithmic
from straylight.report.figures.style import at_ticks, beside, panels, rule
from straylight.report.runs import _config, _flat

RANDOM = np.random.default_rng(0)
Y = np.repeat([0, 1, 2], [300, 60, 40])
SCORES = RANDOM.normal(size=400) + Y
POINTS = RANDOM.normal(size=(400, 3))


def pixels(figure: Figure, write, **options) -> np.ndarray:
    file = io.BytesIO()
    write(figure, file, format="png", **options)
    return np.asarray(Image.open(file))


def of_logarithms() -> Figure:
    random = np.random.default_rng(1)
    figure, axes = panels(2, 2, ruled=True)
    for k, axis in enumerate(axes):
        axis.plot(np.geomspace(1e-4, 10.0**k, 20), random.normal(size=20) * 1e4, label=f"a longer name {k}")
        axis.set(title="title", xlabel="x\nin two lines", ylabel="y")
        logarithmic(axis.xaxis)
        rule(axis, which="both")
    return beside(figure, *axes, titles=["a", "b", "c", None])


def of_names() -> Figure:
    figure, (left, right) = panels(1, 2, legend=False, sharey=True)
    left.imshow(SCORES[:24].reshape(4, 6), aspect="auto")
    at_ticks(left.xaxis, [f"name {i}" for i in range(6)], rotation=45, ha="right")
    left.set_yticks(range(4), ["a", "b", "c", "d"], rotation=45, rotation_mode="anchor")
    right.xaxis.tick_top()
    right.invert_xaxis()
    figure.colorbar(left.images[0], ax=right)
    return figure


MADE = {
    "logarithms": of_logarithms,
    "names": of_names,
    "roc": lambda: figures.roc(SCORES, Y, ("nominal", "A", "B")),
    "histogram": lambda: figures.score_histogram(SCORES, Y),
    "precision_recall": lambda: figures.precision_recall(SCORES, Y),
    "rates": lambda: figures.selected_fraction(SCORES, Y),
    "latent_3d": lambda: figures.latent_3d(POINTS, Y),
}


@pytest.mark.parametrize("dpi", [72, 120])
@pytest.mark.parametrize("name", MADE)
def test_a_figure_is_saved_as_matplotlib_saves_it(name, dpi) -> None:
    ours, theirs = MADE[name](), MADE[name]()
    expected, found = pixels(theirs, Figure.savefig, dpi=dpi), pixels(ours, figures.save, dpi=dpi)
    assert np.array_equal(found, expected)
    assert np.array_equal(pixels(ours, figures.save, dpi=dpi), expected)  # once more, as the page does
    for panel in ours.axes:
        for axis in (panel.xaxis, panel.yaxis):
            assert not {"_update_ticks", "get_tightbbox"} & vars(axis).keys()  # it is matplotlib's again


@pytest.mark.parametrize(
    "text",
    [
        "seed: 0\ndata:\n  a: [1, 2]\n  b: {c: null}\nlist:\n- 1\n- x\n\nlast: 'a\n  b'\n",
        "a: 1\na: 2\n",
        "a: {b: 1}\na: {c: 2}\n",
        "# a comment\na: 1\n",
        "a: 'x\nb: y'\nc: 1\n",
        "a: {x: 1,\nb: 2}\n",
        "a: |\n  text\n\n  more\nb: 2",
        "---\na: 1\n",
        "on: 1\nyes: 2\n",
        "a: 1\n? b\n: 2\n",
        "word",
        "a:\n",
    ],
)
def test_a_config_in_parts_says_what_it_says_as_a_whole(text) -> None:
    said = yaml.safe_load(text)
    assert list(_config(text.encode()).items()) == list(_flat("config", said).items())


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: [1\nb: 2\n", "a: 1\n" + "#" * 2**20])
def test_a_config_that_cannot_be_read_is_refused_in_parts_too(text) -> None:
    with pytest.raises(ValueError):
        _config(text.encode())


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "", "ü"],
        [1.5, None, float("inf")],
        [1, 2, None, -(2**63)],
        [True, None, False] * 5,
        [None, None],
        [],
        [["a"], None],
        ["a"] * 9,
        [1.0] * 9,
    ],
    ids=str,
)
def test_columns_are_arrows_own(values) -> None:
    ours, theirs = arrow.array(values), pa.array(values)
    ours.validate(full=True)
    assert ours.type == theirs.type and ours.equals(theirs) and ours.null_count == theirs.null_count


@pytest.mark.parametrize("values", [[2**63], ["\ud800"]])
def test_what_arrow_cannot_hold_it_says_itself(values) -> None:
    with pytest.raises((OverflowError, UnicodeEncodeError, ValueError)):
        pa.array(values)
    with pytest.raises((OverflowError, UnicodeEncodeError, ValueError)):
        arrow.array(values)


@pytest.mark.parametrize(
    "column", [pa.chunked_array([[1.0, None]]), pa.chunked_array([[1, 2], [3]]), pa.chunked_array([[True], [False]])]
)
def test_numbers_are_those_of_arrow(column) -> None:
    assert np.array_equal(arrow.numbers(column), column.to_numpy(), equal_nan=column.type == pa.float64())
