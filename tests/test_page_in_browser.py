"""Pages of sweeps and runs in a real browser: what they say, what can be done, and that nothing in them runs."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import made_up
from browser import Browser, Opened, browser
from straylight.commands.pages import write_run
from straylight.report.page import report
from test_html_report import run_folder

SECTIONS = ("What was asked, and what was found", "Leaderboard", "Figures", "Runs", "How it was made")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
AUROC = 4  # column of the leaderboard, from 1
MOST_BYTES = 12e6


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def written(root: Path) -> Path:
    """The page of the runs below a folder."""
    page = root / "report.html"
    report(root, Console(file=io.StringIO(), width=200), html=page)
    return page


@pytest.fixture(scope="module")
def made(chromium, tmp_path_factory) -> Callable[[str], Path]:
    """Pages of made-up sweeps by their names, each made once."""
    pages: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in pages:
            pages[name] = written(getattr(made_up, name)(tmp_path_factory.mktemp("pages") / name))
        return pages[name]

    return page


@pytest.fixture
def opened(chromium, made) -> Iterator[Opened]:
    """The page of a sweep without troubles, with a reader's permission to copy; was quiet when it is closed."""
    with chromium.open(made("sweep"), permissions=["clipboard-read", "clipboard-write"]) as found:
        yield found
        found.quiet()


# what it holds


@pytest.mark.parametrize("name", ["sweep", "troubled", "hostile"])
def test_a_page_asks_for_nothing_says_nothing_and_fits_a_phone(chromium, made, name) -> None:
    with chromium.open(made(name), **PHONE) as found:
        assert found.texts("h2")[:3] == list(SECTIONS[:3])
        assert [heading for heading in found.texts("h2") if heading in SECTIONS] == list(SECTIONS)
        wide, room = found.page.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.scrollingElement)")
        assert wide <= room == 390
        found.quiet()


@pytest.mark.parametrize("name", ["sweep", "troubled"])
def test_the_numbers_are_those_of_the_table_of_runs(chromium, made, name) -> None:
    table = pq.read_table(made(name).with_name("runs.parquet")).to_pylist()
    with chromium.open(made(name)) as found:
        shown = dict(zip(found.column("#each", 1), found.column("#each", 6), strict=True))
        assert shown == {
            run["folder"]: "" if run["metrics.test/auroc"] is None else f"{run['metrics.test/auroc']:.4f}"
            for run in table
        }
        assert Counter(found.column("#each", 5)) == Counter(run["status"] for run in table)
        taken = sum(run["duration_s"] or 0 for run in table)
        assert re.search(r"runs took ([\d,]+) seconds", found.texts("#made-by")[0])[1] == f"{taken:,.0f}"
        seeds = sum(map(int, found.column("#board", 12)))
        assert seeds == sum(run["status"] == "ok" for run in table)
        found.quiet()


def test_means_are_those_over_the_seeds(opened, made) -> None:
    table = pq.read_table(made("sweep").with_name("runs.parquet")).to_pylist()
    shown = [*zip(*(opened.column("#board", place) for place in (1, 2, AUROC)), strict=True)]
    assert len(shown) == 10
    for detector, data, said in shown:
        own = [r["metrics.test/auroc"] for r in table if (r["detector"], r["data"]) == (plain(detector), data)]
        assert len(own) == 3 and said.split()[0] == f"{np.mean(own):.4f}"


def plain(text: str) -> str:
    """Without the marks that keep the direction of writing to itself."""
    return text.strip("\u2068\u2069")


def test_runs_that_did_not_end_well_are_there_with_their_reasons(chromium, made) -> None:
    with chromium.open(made("troubled")) as found:
        said = "\n".join(found.texts("#answer li"))
    for reason in (
        "ValueError: the loss was nan in epoch 3, [batch] 7",
        "interrupted (vae on moons, seed 1) SIGINT",
        "worded/result.json cannot be read (metrics must hold numbers)",
        "cut/result.json cannot be read",
        "empty/result.json cannot be read",
        "list/result.json cannot be read (it has no status)",
        "1 more without a result",
    ):
        assert reason in said


def test_hostile_texts_are_texts(chromium, made) -> None:
    with chromium.open(made("hostile")) as found:
        found.page.wait_for_timeout(100)  # in which an image that is not there would have failed
        assert found.page.evaluate("window.hacked") is None
        assert found.page.evaluate("document.scripts.length") == 1
        for way in ("detector", "data", "reason", "command", "versions"):
            place = {
                "detector": "#each td:nth-child(2)",
                "data": "#each td:nth-child(3)",
                "reason": "#answer li",
                "command": "#each code",
                "versions": "#made-by td",
            }[way]
            texts = found.page.eval_on_selector_all(f"{place} bdi", "found => found.map(e => e.textContent)")
            for tried, text in made_up.HOSTILE.items():
                assert any(_seen(text) in one for one in texts), (way, tried)
        kinds = found.page.eval_on_selector_all("#by-kind option", "found => found.map(e => e.textContent)")
        assert len(kinds) == 1 + len(made_up.HOSTILE)
        found.quiet()


def _seen(text: str) -> str:
    """With a mark for each character that is none, or commands a terminal."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", text)


def test_hostile_names_can_be_chosen_and_followed(chromium, made) -> None:
    with chromium.open(made("hostile")) as found:
        options = found.page.eval_on_selector_all("#by-detector option", "found => found.map(e => e.value)")
        assert len(options) == 1 + len(made_up.HOSTILE)
        every = found.page.evaluate(
            """options => options.filter(o => o).map(option => {
                document.querySelector("#by-detector").value = option;
                document.querySelector("#filters").dispatchEvent(new Event("change"));
                const rows = [...document.querySelectorAll("#board tbody tr")].filter(row => !row.hidden);
                rows[0].querySelector("button.follow").click();
                const left = [...document.querySelectorAll("svg [data-follow]:not(.faint)")];
                rows[0].querySelector("button.follow").click();
                return [rows.length, new Set(left.map(part => part.dataset.detector)).size];
            })""",
            options,
        )
        assert every == [[2, 1]] * len(made_up.HOSTILE)
        found.quiet()


# what can be done with it


def test_every_column_sorts_both_ways_and_rows_without_a_number_stand_last(opened) -> None:
    heads = opened.page.locator("#board thead th")
    for place in range(heads.count()):
        seen = []
        for _ in range(2):
            heads.nth(place).locator("button").click()
            column = opened.column("#board", place + 1)
            seen.append((heads.nth(place).get_attribute("aria-sort"), [_number(text) for text in column]))
        assert {way for way, _ in seen} == {"ascending", "descending"}
        for way, values in seen:
            known = [value for value in values if isinstance(value, float)]
            if known:
                assert known == sorted(known, reverse=way == "descending")
                assert values[: len(known)] == known
            else:
                texts = [plain(str(value)) for value in values]
                assert texts == sorted(texts, reverse=way == "descending")
    assert opened.page.locator("#board th[aria-sort]").count() == 1
    assert "n.r." in opened.column("#board", 7)


def _number(text: str) -> float | str:
    first = text.split()[0].replace(",", "") if text.split() else ""
    try:
        return float(first)
    except ValueError:
        return text


def test_rows_are_chosen_by_detector_data_set_and_kind(opened) -> None:
    page = opened.page
    assert len(opened.column("#board", 1)) == 10 and opened.texts("#count") == ["10 rows shown."]
    page.select_option("#by-data", "moons")
    assert set(opened.column("#board", 2)) == {"moons"} and opened.texts("#count") == ["5 rows shown."]
    assert set(opened.column("#each", 3)) == {"moons"} and len(opened.column("#each", 1)) == 15
    page.select_option("#by-detector", "knn")
    assert [plain(name) for name in opened.column("#board", 1)] == ["knn"]
    assert opened.texts("#count") == ["1 row shown."]
    page.select_option("#by-kind", "ring")  # of which the moons have none
    assert opened.column("#board", 1) == [] and opened.texts("#count") == ["0 rows shown."]
    page.select_option("#by-data", "")
    assert opened.column("#board", 3) == ["ring"]
    page.click("#filters button[type=reset]")
    opened.wait("#count", "10 rows shown.")
    assert len(opened.column("#each", 1)) == 30


def test_a_detector_is_followed_through_all_figures_until_escape(opened) -> None:
    page = opened.page
    faint = """[...document.querySelectorAll("svg [data-follow]")].map(e => [e.dataset.follow,
        e.classList.contains("faint"), e.closest("figure").id])"""
    page.get_by_role("button", name="hbos").first.click()
    parts = page.evaluate(faint)
    assert all(is_faint == (name != "hbos") for name, is_faint, _ in parts)
    figures = {figure for _, _, figure in parts}
    assert figures == {f"figure-{key}" for key in ("pareto", "roc", "heatmap", "ranks", "seeds", "kinds")}
    assert {figure for name, _, figure in parts if name == "hbos"} == figures
    assert page.locator("#board tr.followed").count() == 4  # two of them of a kind
    assert page.locator("#board button[aria-pressed=true]").count() == 4
    page.keyboard.press("Escape")
    assert not any(is_faint for _, is_faint, _ in page.evaluate(faint))
    mark = page.locator("#figure-seeds [data-detector=knn] use").first
    mark.dispatch_event("click")
    assert page.evaluate("followed") == "knn"
    page.click("#unfollow")
    assert page.evaluate("followed") is None and not page.is_visible("#unfollow")


def test_pointing_at_a_marker_shows_its_run(opened, made) -> None:
    page = opened.page
    mark = page.locator("#figure-seeds svg [data-run]").first
    run = mark.get_attribute("data-run")
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    said = page.inner_text("#card").splitlines()
    result = json.loads((made("sweep").with_name(run) / "result.json").read_text())
    assert said[0] == f"run: {run}" and f"command: {result['command']}" in said
    assert f"detector: {result['detector']}" in said and f"data set: {result['data']}" in said
    page.keyboard.press("Escape")
    assert not page.is_visible("#card")


def test_a_command_is_copied(opened) -> None:
    page = opened.page
    button = page.get_by_role("button", name="Copy the command of").nth(7)
    button.click()
    opened.wait("#said", re.compile("copied"))
    assert page.evaluate("navigator.clipboard.readText()") == opened.page.locator("#each code").nth(7).text_content()


def test_the_keyboard_reaches_everything(opened) -> None:
    page = opened.page
    what = """(e => [e.tagName, e.className, (e.labels?.[0] ?? e).textContent.trim().split(/\\s/)[0],
        getComputedStyle(e).outlineStyle])(document.activeElement)"""
    seen: list[list[str]] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(what))
        if seen[-1][:3] == ["BUTTON", "sort", "AUROC"]:
            break
    assert seen[0][:2] == ["A", "skip"]
    assert {outline for *_, outline in seen} == {"solid"}  # where one is can be seen
    assert [word for tag, _, word, _ in seen if tag == "SELECT"] == ["Detector", "Data", "Kind"]
    assert [word for _, name, word, _ in seen if name == "sort"] == ["detector", "data", "kind", "AUROC"]
    page.keyboard.press("Enter")
    assert page.locator("#board th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert opened.page.text_content("#said").startswith("sorted by AUROC")
    page.evaluate("document.querySelector('#board button.follow').focus()")
    page.keyboard.press("Space")
    assert page.evaluate("followed") is not None


def test_without_a_script_everything_is_there(chromium, made) -> None:
    with chromium.open(made("sweep"), java_script_enabled=False) as found:
        held = found.page.content()
    with chromium.open(made("sweep")) as found:
        whole = found.page.evaluate("document.body.innerText")
    said = " ".join(re.sub("<[^>]*>", " ", held).split())
    assert all(section in said for section in SECTIONS)
    assert held.count("<svg") == 6 and len(re.findall("<tr data-run", held)) == 30
    assert "pca leads with an AUROC of" in said and "pca leads with an AUROC of" in whole


# how it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_figures_can_be_read_in_light_and_in_dark(chromium, made, scheme) -> None:
    with chromium.open(made("sweep"), color_scheme=scheme) as found:
        words = ["body", "#board td", "#figure-roc svg text", "#figure-heatmap svg text", "#figure-kinds svg text"]
        for selector in words:
            ink, paper = found.colours(selector)
            assert (paper > 0.9 and ink < 0.2) if scheme == "light" else (paper < 0.2 and ink > 0.8), selector
        cells = found.page.eval_on_selector_all(
            "#figure-heatmap [data-detector] text", "found => found.map(e => getComputedStyle(e).fill)"
        )
        assert set(cells) == {"rgb(0, 0, 0)", "rgb(255, 255, 255)"}  # as the colours below them ask


def test_what_is_printed_has_all_sections_and_none_of_what_is_for_a_screen(chromium, made) -> None:
    with chromium.open(made("sweep"), color_scheme="dark") as found:
        pdf = found.page.pdf(tagged=True, outline=True)
        found.page.emulate_media(media="print")
        found.page.set_viewport_size({"width": 1030, "height": 700})  # a sheet of A4 between its margins
        cut = "found => found.filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
        assert found.page.eval_on_selector_all("div.wide", cut) == []
        assert found.colours("body") == (0, 1)
        assert not any(found.page.locator(e).first.is_visible() for e in ("nav", "#filters", "button.copy"))
        assert found.texts("h2") and all(section in found.texts("h2") for section in SECTIONS)
    assert pdf.startswith(b"%PDF-")
    for section in SECTIONS:
        assert section.encode() in pdf or section.encode("utf-16-be").hex().upper().encode() in pdf.upper()


@pytest.mark.parametrize(
    "name, scheme", [("sweep", "light"), ("sweep", "dark"), ("troubled", "dark"), ("hostile", "light")]
)
def test_axe_finds_no_serious_fault(chromium, made, name, scheme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core: make setup")
    with chromium.open(made(name), color_scheme=scheme) as found:
        violations = axe.Axe().run(found.page).response["violations"]
    assert violations_of(violations) == []


def violations_of(found: list[dict[str, Any]]) -> list[str]:
    """Those that keep somebody from reading."""
    return [
        f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def test_800_runs_are_one_page_that_can_be_used(chromium, tmp_path) -> None:
    detectors, sets = [f"detector_{i:02}" for i in range(16)], [f"set_{i}" for i in range(5)]
    page = written(made_up.sweep(tmp_path, detectors, sets, range(10), scores=False))
    assert page.stat().st_size < MOST_BYTES
    with chromium.open(page) as found:
        assert len(found.column("#each", 1)) == 800
        found.page.select_option("#by-data", "set_3")
        assert len(found.column("#each", 1)) == 160 and len(found.column("#board", 1)) == 16
        found.page.locator("#board thead button").nth(AUROC - 1).click()
        values = [float(text.split()[0]) for text in found.column("#board", AUROC)]
        assert values == sorted(values, reverse=True)
        found.quiet()


def test_the_page_of_a_sweep_that_was_run_is_quiet_and_has_every_run(chromium, sent_sweep) -> None:
    with chromium.open(written(sent_sweep.path)) as found:
        assert found.column("#each", 1) == ["0", "1", "2", "3"] and len(found.column("#board", 1)) == 2
        assert {"Quality against latency", "ROC curves", "Every run"} <= set(found.texts("h3"))
        found.quiet()
    page = write_run(sent_sweep.runs()[0].path)
    with chromium.open(page) as found:
        assert {"Anomaly scores", "ROC curve", "Are p-values as promised?", "What differs from the defaults"} <= set(
            found.texts("h3")
        )
        found.quiet()


# the page of a run


@pytest.fixture(scope="module")
def of_a_run(chromium, tmp_path_factory) -> Callable[[str], Path]:
    """Pages of made-up runs: an ordinary one, and one whose every text is hostile."""
    pages: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in pages:
            texts = (
                list(made_up.HOSTILE.values())
                if name == "hostile"
                else ["noise", "ring", "a notice", "2.13.0", "a cost"]
            )
            more = {
                "notices": [texts[2], *texts[5:]],
                "versions": {"torch": texts[3], texts[4]: texts[0]},
                "command": texts[0],
            }
            losses = {"train/loss": [[1, 2.0], [2, 1.0]], "val/loss": [[1, 2.5], [2, 1.5]]}
            folder = run_folder(
                tmp_path_factory.mktemp("run") / name, ("nominal", texts[0], texts[1]), losses=losses, **more
            )
            pages[name] = write_run(folder)
        return pages[name]

    return page


@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_the_page_of_a_run_asks_for_nothing_and_fits_a_phone(chromium, of_a_run, name) -> None:
    with chromium.open(of_a_run(name), **PHONE) as found:
        assert {"What it reached", "Thresholds", "Figures", "The strangest events"} <= set(found.texts("h2"))
        wide, room = found.page.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.scrollingElement)")
        assert wide <= room == 390
        assert found.page.evaluate("window.hacked") is None
        found.quiet()


def test_the_slider_moves_what_is_flagged_and_the_line_in_the_figure(chromium, of_a_run) -> None:
    page = of_a_run("ordinary")
    table = pq.read_table(page.with_name("scores.parquet"))
    scores, y = table["score"].to_numpy().astype(float), table["y"].to_numpy()
    with chromium.open(page) as found:
        slider = found.page.locator("#place")
        thresholds = json.loads(found.page.locator("#dial-data").text_content())["thresholds"]
        assert found.texts("#threshold") == ["1.25"]  # where the run's own rule is
        seen = set()
        for place in (0, 40, len(thresholds) - 1):
            slider.evaluate("(e, at) => { e.value = at; e.dispatchEvent(new Event('input')); }", place)
            flagged = scores > thresholds[place]
            assert found.column("#flags", 3) == [str((flagged & (y == label)).sum()) for label in (0, 1, 2)]
            true = (flagged & (y > 0)).sum()
            said = found.texts("#decided")[0]
            assert (
                said.startswith(f"{flagged.sum()} events are flagged") and f"recall {true / (y > 0).sum():.4f}" in said
            )
            assert ("precision none" if not flagged.any() else f"precision {true / flagged.sum():.4f}") in said
            seen.add(found.page.locator("#figure-scores svg > line").first.get_attribute("x1"))
            bold = found.page.locator("#listed tbody tr.flagged").count()
            assert bold == (np.sort(scores)[::-1][:25] > thresholds[place]).sum()
        assert len(seen) == 3
        slider.focus()
        found.page.keyboard.press("ArrowLeft")
        assert slider.input_value() == str(len(thresholds) - 2)
        found.page.get_by_role("button", name="quantile 0.95").click()
        assert found.texts("#threshold") == ["1.25"]
        found.quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_in_the_page_of_a_run(chromium, of_a_run, scheme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core: make setup")
    with chromium.open(of_a_run("ordinary"), color_scheme=scheme) as found:
        violations = axe.Axe().run(found.page).response["violations"]
    assert violations_of(violations) == []
