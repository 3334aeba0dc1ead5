"""What `study` shows while it works: in a notebook a bar that goes, elsewhere lines, and nothing where unwanted."""

from __future__ import annotations

import types

import pytest

from straylight import bar
from straylight import study as module
from straylight.bar import Bar, in_notebook
from straylight.data import Blobs
from straylight.detectors import KNN, PCA, VAE
from straylight.errors import StraylightError
from straylight.study import study


class Places(list):
    """Every place that was made, a list of what stood in it one after the other."""

    def __call__(self, text: str):
        shown = [str(text)]
        self.append(shown)
        return types.SimpleNamespace(update=lambda text: shown.append(str(text)))


@pytest.fixture
def places(monkeypatch) -> Places:
    made = Places()
    monkeypatch.setattr(bar, "_below_the_cell", made)
    monkeypatch.setattr(module, "in_notebook", lambda: True)
    return made


def test_a_bar_goes_on_with_the_epochs_in_one_place_and_leaves_it_empty(places, monkeypatch, capsys) -> None:
    data = Blobs(seed=0)
    monkeypatch.setattr(module, "Progress", lambda: _progress(interval_s=0.0))
    study(VAE(data.shape, hidden=[8], latent=2), data, epochs=4)
    (shown,) = places
    assert shown[0] == "<code>reading Blobs</code>" and shown[-1] == "" and "" not in shown[:-1]
    assert "<code>training VAE</code>" in shown
    bars = [line for line in shown if "<progress" in line]
    for epoch in (1, 2, 3, 4):
        (line, *_) = [one for one in bars if f"epoch {epoch}/4" in one]
        assert f'max="4" value="{epoch}"' in line and "loss" in line
        assert ("left" in line) == (epoch < 4)
    assert "epoch 1/4" not in capsys.readouterr().err


def _progress(**options):
    from straylight.callbacks import Progress

    return Progress(**options)


def test_it_goes_when_a_study_fails(places) -> None:
    data = Blobs(seed=0)
    with pytest.raises(StraylightError, match="Nothing was trained"):
        study(VAE(data.shape), data, epochs=0)
    assert places[0][-1] == ""


def test_what_is_linesis_shown_as_it_is(places) -> None:
    shown = Bar()
    shown("a < b & c")
    shown.keep("done")
    shown.done()
    shown.done()
    assert places == [["<code>a &lt; b &amp; c</code>", "<code>done</code>", ""]]


def test_elsewhere_each_phase_is_a_line_on_standard_error(capsys) -> None:
    data = Blobs(seed=0)
    study(KNN(data.shape), data)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and lines[0] == "reading Blobs" and "testing" in lines
    assert any(line.startswith("fitting KNN to") and line.endswith("rows") for line in lines)


def test_nothing_is_said_where_it_is_unwanted_and_ones_own_takes_its_place(capsys, places) -> None:
    data = Blobs(seed=0)
    study(PCA(data.shape), data, progress=False)
    lines = capsys.readouterr().err
    assert not places and not any(word in lines for word in ("reading", "fitting", "testing"))
    said: list[str] = []
    own = _progress()
    own.tell = said.append
    study(PCA(data.shape), data, callbacks=[own])
    assert "testing" in said and not [line for shown in places for line in shown if "testing" in line]


@pytest.mark.parametrize(
    ("shell", "there"), [(None, False), (types.SimpleNamespace(), False), (types.SimpleNamespace(kernel=1), True)]
)
def test_a_notebook_is_told_by_its_kernel(shell, there: bool, monkeypatch) -> None:
    monkeypatch.setitem(bar.sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook() is there


def test_without_ipython_there_is_no_notebook(monkeypatch) -> None:
    monkeypatch.delitem(bar.sys.modules, "IPython", raising=False)
    assert not in_notebook()
