"""What a notebook shows of a run and of a study: the numbers of its record, and nothing of it as markup."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from straylight.data import Digits
from straylight.detectors import PCA
from straylight.folder import RunFolder
from straylight.report.card import STRANGEST, WIDEST, card, of_folder
from straylight.run import Run
from straylight.study import study

EVIL = "<img src=x onerror=alert(1)>&\"'"
VOID = ("img", "br", "hr", "meta")


class Parsed(HTMLParser):
    """Tags in their order, and the text between them; every tag that opens is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" not in self.open and data.strip():
            self.said.append(data.strip())


def test_a_run_shows_what_its_record_says(finished) -> None:
    run = Run.open(finished)
    shown = Parsed(run._repr_html_())
    assert shown.said[0] == "vae on blobs, seed 0"
    assert str(finished) in shown.said
    assert f"{run.result['metrics']['test/auroc']:.4f}" in shown.said
    low, high = run.result["intervals"]["test/auroc"]
    assert f"{low:.4f}-{high:.4f}" in shown.said
    assert any(text.startswith("quantile") for text in shown.said) and "p50 us" in shown.said
    assert {"img", "script"} & set(shown.tags) == set()


def test_the_strangest_rows_come_from_the_folder(finished, sent) -> None:
    sent.figures.mkdir(exist_ok=True)
    names = [f"f{i}" for i in range(20)]
    rows = [f"strangest,{i + 1},{i},{9 - i}.123456789,far,{','.join(['1.5'] * 20)}" for i in range(9)]
    ordinary = f"ordinary,1,77,0,nominal,{','.join(['0'] * 20)}"
    (sent.figures / "extremes.csv").write_text(
        "\n".join([f"end,rank,row,score,kind,{','.join(names)}", *rows, ordinary])
    )
    said = Parsed(of_folder(sent)).said
    assert f"The {STRANGEST} strangest test rows" in said
    assert "9.12346" in said and "5.12346" in said and "4.12346" not in said and "77" not in said
    assert f"f{WIDEST - 4}" in said and f"f{WIDEST - 3}" not in said and f"and {20 + 3 - WIDEST} more columns" in said


def test_a_study_shows_its_strangest_rows_where_they_are_a_table() -> None:
    from straylight.data import Blobs

    data = Blobs(seed=0)
    found = study(PCA(data.shape), data, progress=False)
    said = Parsed(found._repr_html_()).said
    assert said[0] == "PCA on blobs, seed 0" and f"{found.metric('auroc'):.4f}" in said
    assert f"{max(found.scores):.6g}" in said
    images = Digits(nominal=3)
    shown = Parsed(study(PCA(images.shape), images, progress=False)._repr_html_()).said
    assert not [text for text in shown if "strangest" in text]


def test_nothing_that_a_run_says_is_taken_for_markup() -> None:
    threshold = {"rule": EVIL, "asked": {}, "value": 1.0, "remark": EVIL}
    result = {
        **dict.fromkeys(("reason", "detector", "data", "device"), EVIL),
        "status": "failed",
        "notices": [EVIL],
        "metrics": {"test/auroc": 0.5, f"test/auroc/{EVIL}": 0.25},
        "thresholds": [threshold],
        "latency": [{"runtime": EVIL, "batch": 1, "p50_us": 1.0}],
    }
    quoted = '"' + EVIL.replace('"', '""') + '"'
    page = card(result, f"end,rank,row,score,kind,{quoted}\nstrangest,1,1,2,far,{quoted}", EVIL)
    shown = Parsed(page)
    assert set(shown.tags) <= {"div", "style", "span", "h4", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert page.count(html.escape(EVIL).split("&amp;")[0]) >= 9
    assert "failed" in shown.said


@pytest.mark.parametrize("result", [{}, {"status": "interrupted"}, {"status": "ok", "metrics": {}}])
def test_a_run_of_which_little_is_known_is_shown(result) -> None:
    assert Parsed(card(result)).said[0] == "A run on its data"


def test_a_card_takes_the_colours_of_the_notebook(finished) -> None:
    page = of_folder(RunFolder(finished))
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.findall(r"(?<!-)color: #|background: #", style) and "color: inherit" in style
