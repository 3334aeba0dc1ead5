"""The page of a run and of a sweep: what stands in it, and that nothing in it can run."""

import csv
import html as markup
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from matplotlib.figure import Figure
from sklearn.metrics import f1_score, precision_score, recall_score

from straylight.commands.report import main as report_main
from straylight.folder import SweepFolder
from straylight.report import answer, choice, own
from straylight.report.figures.about import about
from straylight.report.html.dial import dial, marks
from straylight.report.html.numbers import tables
from straylight.report.html.vector import svg
from straylight.report.kept import WEIGHT, Kept, finite
from straylight.report.leaderboard import grouped, rows
from straylight.report.leading import differs, leaders
from test_report import result, write

HOSTILE = (
    "<script>window.hacked=1</script>",
    "</style><b>",
    '"><img src=x onerror=window.hacked=1>',
    'it\'s "quoted"',
    "[red]bold[/]",
    "\u202eright to left",
    "😀 {{ 7 * 7 }} {% raw %}",
    "$\\frac{",
    "nul\x00 and bell\x07",
    "_hidden",
    "x" * 10_000,
)


class Page(HTMLParser):
    """All elements of a page with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._in = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def scored(folder, seed=0, n=200, shift=1.0, kinds=("nominal", "A", "B"), weight=None):
    """Scores, labels and calibration scores of a made run, in its folder."""
    random = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [n // 2, n // 4, n // 4])
    columns = {"index": np.arange(n), "score": (random.normal(size=n) + y * shift).astype("float32"), "y": y}
    columns["kind"] = [kinds[label] for label in y]
    if weight is not None:
        columns[WEIGHT] = weight
    pq.write_table(pa.table(columns), folder / "scores.parquet")
    held = {"index": np.arange(99), "score": random.normal(size=99).astype("float32"), "y": np.zeros(99, int)}
    pq.write_table(pa.table(held), folder / "calibration.parquet")
    (folder / "shape.json").write_text(json.dumps({"kinds": kinds}))
    return columns


def made(root, detectors=("knn", "pca"), sets=("digits", "moons"), seeds=(0, 1), kinds=("nominal", "A", "B"), **more):
    """The folder of a made sweep, every run with scores and two kinds."""
    number = 0
    for detector in detectors:
        for data in sets:
            for seed in seeds:
                auroc = 0.7 + 0.01 * number
                record = result(detector, data, seed, auroc, **more)
                record["metrics"] |= {f"test/auroc/{kind}": auroc - 0.1 for kind in kinds[1:]}
                record["intervals"] = {"test/auroc": [auroc - 0.02, auroc + 0.02]}
                write(root / str(number), record)
                scored(root / str(number) / "0", seed, kinds=kinds)
                number += 1
    return root


def page_of(folder, *arguments):
    """The page that the command writes, as text."""
    report_main([str(folder), "--html", *map(str, arguments)])
    return (folder / "report.html").read_text(encoding="utf-8")


# a figure as SVG


def elements(text):
    return Page(text).elements


def test_a_figure_has_no_styles_no_scripts_and_no_names_of_another_figure() -> None:
    figure = Figure(figsize=(4, 3))
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, 3], [1, 3, 2], "o-", label="<b>x</b>")
    left.set_yscale("log")
    left.legend()
    right.imshow([[0.0, 1.0], [0.5, 0.2]])
    one, other = svg(figure, "one", "what it shows"), svg(figure, "other", "what it shows")
    found = elements(one)
    assert (
        not [attrs for _, attrs in found if "style" in attrs]
        and not {"style", "script", "metadata"} & dict(found).keys()
    )
    names = {attrs["id"] for _, attrs in found if attrs.get("id")}
    assert names and all(name.startswith("one-") for name in names)
    assert not names & {attrs["id"] for _, attrs in elements(other) if attrs.get("id")}
    referred = {
        ref for _, attrs in found for v in attrs.values() for ref in re.findall(r"url\(#([^)]+)\)|^#(one-.*)", v or "")
    }
    assert {a or b for a, b in referred} == names  # every name is used, every use has a name
    assert found[0][1]["role"] == "img" and found[0][1]["aria-label"] == "what it shows"
    assert [attrs["href"][:22] for tag, attrs in found if tag == "image"] == ["data:image/png;base64,"]


def test_ink_and_paper_are_the_pages_and_other_colours_stay() -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#0072B2")
    axis.plot([0, 1], [1, 0], color="0.3")
    found = elements(svg(figure, "k", ""))
    strokes = {attrs["stroke"] for _, attrs in found if "stroke" in attrs}
    assert "#0072b2" in strokes and "currentColor" in strokes
    assert not strokes & {"#000000", "#4d4d4d"} and "#ffffff" not in {attrs.get("fill") for _, attrs in found}


def test_what_is_written_on_an_image_keeps_its_colour_and_ticks_do_not() -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    axis.imshow([[0.0, 1.0]], cmap="viridis")
    axis.text(0, 0, "dark", color="white")
    axis.text(1, 0, "light", color="black")
    axis.set_xlabel("across")
    text = svg(figure, "k", "")
    fills = {said: fill for fill, said in re.findall(r'<text[^>]*?fill="([^"]+)"[^>]*>(\w+)</text>', text)}
    assert fills["dark"] == "#ffffff" and fills["light"] == "#000000" and "across" not in fills


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_figure_is_text(name) -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    (line,) = axis.plot([1, 2], [1, 2], "o", label=name)
    about(line, detector=name, run=[name, name + "2"])
    axis.set_title(name)
    figure.legend([line], [name])
    found = elements(svg(figure, "k", name))
    assert {tag for tag, _ in found} <= {"svg", "g", "path", "text", "tspan", "use", "defs", "clippath", "rect"}
    assert name in [attrs.get("data-detector") for _, attrs in found] or "\x00" in name
    runs = [attrs["data-run"] for _, attrs in found if "data-run" in attrs]
    assert runs == [name, name + "2"] or "\x00" in name


# its numbers


def test_numbers_of_a_figure_are_those_that_it_was_drawn_from() -> None:
    figure = Figure()
    first, second = figure.subplots(1, 2)
    x = np.linspace(0, 1, 1000)
    (line,) = first.plot(x, x**2, label="cut na…")
    about(line, detector="cut name in full")
    first.plot(x, x, label="chance")
    first.set(title="panel", xlabel="x", ylabel="square")
    second.bar([0, 1], [0.25, 0.5], bottom=0.5, label="bars")
    points, bars = tables(figure)
    assert points.caption == "panel (some of the points)"
    assert [heading.name for heading in points.headings] == ["series", "x", "square"]
    assert {row[0] for row in points.rows} == {"cut name in full"} and len(points.rows) == 25
    assert points.rows[0][1:] == ["0", "0"] and points.rows[-1][1:] == ["1", "1"]
    assert all(float(b) == pytest.approx(float(a) ** 2, rel=1e-3) for _, a, b in points.rows)
    assert [row[2] for row in bars.rows] == ["0.75", "1"]


def test_numbers_of_an_image_have_the_names_of_its_ticks() -> None:
    figure = Figure()
    axis = figure.subplots()
    axis.imshow([[0.1, np.nan], [0.3, 0.4]])
    axis.set_xticks([0, 1], ["knn", "pca"])
    axis.set_yticks([0, 1], ["a", "b"])
    (table,) = tables(figure)
    assert [h.name for h in table.headings] == ["", "knn", "pca"] and table.rows == [
        ["a", "0.1", ""],
        ["b", "0.3", "0.4"],
    ]


# who leads


def runs_of(values, width=0.02):
    intervals = {"test/auroc": [0.0, width]} if width else {}
    return [{"seed": s, "metrics": {"test/auroc": v}, "intervals": intervals} for s, v in enumerate(values)]


def test_detectors_are_told_apart_by_seeds_and_test_rows_together() -> None:
    assert differs(runs_of([0.9]), runs_of([0.85])) is True
    assert differs(runs_of([0.9]), runs_of([0.89])) is False  # half widths of 0.01 each
    assert differs(runs_of([0.9], 0), runs_of([0.1], 0)) is None  # nothing says how well they are known
    steady, moving = runs_of([0.90, 0.91, 0.92], 0), runs_of([0.80, 0.81, 0.82], 0)
    assert differs(steady, moving) is True  # the difference is the same with every seed
    assert differs(steady, runs_of([0.92, 0.70, 0.95], 0)) is False


def test_a_leader_has_read_no_truth_and_says_who_is_as_good(tmp_path) -> None:
    for detector, auroc, more in (
        ("knn", 0.9, {}),
        ("pca", 0.895, {}),
        ("hbos", 0.6, {}),
        ("supervised", 0.99, {"truth": True}),
    ):
        for seed in (0, 1, 2):
            record = result(detector, "digits", seed, auroc + 0.001 * seed, **more)
            record["intervals"] = {"test/auroc": [auroc - 0.02, auroc + 0.02]}
            write(tmp_path / f"{detector}{seed}", record)
    found = SweepFolder(tmp_path).results()
    (leader,) = leaders(rows(found), grouped(found))
    assert (leader.detector, leader.alike, leader.others) == ("knn", ("pca",), 2)
    assert leader.auroc == pytest.approx(0.901) and leader.interval[0] < 0.901 < leader.interval[1]
    first, led = answer.answer(found, rows(found))
    assert first.startswith(
        "4 detectors (hbos, knn, pca and supervised) were compared on 1 data set (digits), over 3 seeds"
    )
    assert led.startswith("On digits, knn leads with an AUROC of 0.9010 [") and led.endswith(
        "pca cannot be told apart from it."
    )


def test_an_answer_of_nothing_says_so() -> None:
    assert list(answer.answer([], [])) == ["There are no runs."]
    failed = [{"status": "failed", "folder": "x"}]
    assert list(answer.answer(failed, [])) == ["None of 1 runs ended well."]


# the slider


@pytest.mark.parametrize("weighted", [False, True])
def test_the_slider_flags_what_scikit_learn_counts(tmp_path, weighted) -> None:
    random = np.random.default_rng(1)
    weight = random.uniform(0.1, 3, 400) if weighted else None
    columns = scored(tmp_path, n=400, weight=weight)
    record = {"thresholds": [{"rule": "quantile", "asked": {"quantile": 0.95}, "value": 1.25}]}
    kept = Kept.of(tmp_path, record)
    found = dial(kept)
    assert found.thresholds == sorted(found.thresholds) and found.thresholds[found.rules["quantile 0.95"]] == 1.25
    y, scores = columns["y"], columns["score"].astype(float)
    ones = np.ones(400) if weight is None else weight
    for place in (0, 17, len(found.thresholds) // 2, found.rules["quantile 0.95"], len(found.thresholds) - 1):
        flagged = scores > found.thresholds[place]
        for label, name, total, counted in found.kinds:
            assert name == ("nominal", "A", "B")[label] and total == pytest.approx(ones[y == label].sum())
            assert counted[place] == pytest.approx(ones[flagged & (y == label)].sum())
        by = {kind.label: kind.flagged[place] for kind in found.kinds}
        strange, true = by[1] + by[2], (y > 0).astype(int)
        if flagged.any() and strange:
            precision, recall = strange / sum(by.values()), strange / ones[y > 0].sum()
            assert precision == pytest.approx(precision_score(true, flagged, sample_weight=ones))
            assert recall == pytest.approx(recall_score(true, flagged, sample_weight=ones))
            f1 = 2 * precision * recall / (precision + recall)
            assert f1 == pytest.approx(f1_score(true, flagged, sample_weight=ones))


def test_the_line_of_the_slider_stands_where_the_figure_has_its_thresholds(tmp_path) -> None:
    scored(tmp_path, n=400)
    record = {"thresholds": [{"rule": "quantile", "asked": {"quantile": 0.95}, "value": 1.25}]}
    kept = Kept.of(tmp_path, record)
    figure = own.DRAWINGS["scores"](kept)
    text = svg(figure, "k", "")
    height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', text)[1])
    drawn = {round(float(x), 1) for x in re.findall(r'd="M ([\d.]+) [\d.]+ L \1 [\d.]+"[^>]*stroke-dasharray', text)}
    found = dial(kept)
    for mark in marks(figure, found.thresholds):
        assert any(abs(mark.across[found.rules["quantile 0.95"]] - x) <= 0.11 for x in drawn), (mark.across, drawn)
        assert 0 <= mark.top < mark.bottom <= height and mark.across == sorted(mark.across)


def test_scores_that_are_no_numbers_have_no_slider() -> None:
    assert dial(Kept(np.array([np.nan, np.inf]), np.array([0, 1]))) is None


# the page of a sweep


def test_the_page_allows_its_own_parts_alone(tmp_path) -> None:
    made(tmp_path)
    page = Page(page_of(tmp_path))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert (
        policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy and "http" not in policy
    )
    assert not [tag for tag, attrs in page.elements if "style" in attrs]
    assert not [(tag, name) for tag, attrs in page.elements for name in attrs if name.startswith("on")]
    places = [(tag, v) for tag, attrs in page.elements for k, v in attrs.items() if k in ("src", "href", "action")]
    assert places and all(v.startswith(("#", "data:")) for _, v in places)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1


def test_the_leaderboard_of_the_page_is_that_of_the_csv(tmp_path) -> None:
    made(tmp_path)
    text = page_of(tmp_path)
    lines = re.findall(r'<tr data-detector="(\w+)" data-data="(\w+)" data-kind="" [^>]*>(.*?)</tr>', text, re.S)
    with (tmp_path / "leaderboard.csv").open() as file:
        expected = {(row["detector"], row["data"]): row for row in csv.DictReader(file)}
    assert len(lines) == len(expected) == 4
    for detector, data, cells in lines:
        values = [float(value) for value in re.findall(r'data-value="([^"]+)"', cells)]
        row = expected[detector, data]
        assert values[0] == pytest.approx(float(row["auroc_mean"])) and values[1] == pytest.approx(
            float(row["ap_mean"])
        )
        assert values[-1] == int(row["seeds"])
    kinds = re.findall(r'data-kind="(A|B)" data-follow="\w+" hidden', text)
    assert sorted(kinds) == ["A"] * 4 + ["B"] * 4


def test_every_run_is_there_with_its_command(tmp_path) -> None:
    made(tmp_path)
    page = Page(page_of(tmp_path))
    runs = [attrs["data-run"] for attrs in page.all("tr") if "data-run" in attrs]
    assert runs == [f"{i}/0" for i in range(8)]
    text = (tmp_path / "report.html").read_text()
    for run in SweepFolder(tmp_path).results():
        assert markup.escape(run["command"], quote=False) in text
    marked = {attrs["data-run"] for tag, attrs in page.elements if tag == "use" and "data-run" in attrs}
    assert marked == set(runs)  # of the figure of every run


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_run_becomes_markup(tmp_path, name) -> None:
    made(
        tmp_path,
        detectors=(name, "knn"),
        sets=(name, "moons"),
        kinds=("nominal", name, "B"),
        command=name,
        versions={"torch": name},
    )
    write(tmp_path / "failed", result(name, name, 0, status="failed", reason=name, metrics={}, latency=[]))
    page = Page(page_of(tmp_path))
    clean = Page(page_of(made(tmp_path / "clean")))
    tags = {tag for tag, _ in clean.elements} | {"details", "summary", "li", "ul", "bdi"}
    assert {tag for tag, _ in page.elements} <= tags
    assert len(page.all("script")) == 1 and not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    assert page.scripts == clean.scripts
    said = name.translate({0: "\ufffd", 7: "\ufffd"})
    assert said in {attrs.get("data-detector") for _, attrs in page.elements} | {markup.unescape(name)}
    assert markup.escape(said, quote=False) in markup.unescape((tmp_path / "report.html").read_text()).replace(
        "&", "&amp;"
    ).replace("<", "&lt;").replace(">", "&gt;")


ODD = {
    "no JSON": "{",
    "numbers as text": json.dumps(result() | {"metrics": {"test/auroc": "0.9"}}),
    "a list": "[]",
    "fields missing": json.dumps({"status": "ok"}),
    "another version": json.dumps(result("other") | {"schema": 99, "metrics": {"test/auroc": 0.5}, "latency": []}),
    "nulls": json.dumps(result("nulls") | {"versions": None, "intervals": {}, "seed": None, "command": ""}),
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_one_odd_run_costs_no_other_its_place(tmp_path, text) -> None:
    made(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "result.json").write_text(text)
    page = Page(page_of(tmp_path))
    runs = [attrs["data-run"] for attrs in page.all("tr") if "data-run" in attrs]
    assert sorted(runs) == sorted([*(f"{i}/0" for i in range(8)), "odd"])
    board = [attrs for attrs in page.all("tr") if attrs.get("data-kind") == ""]
    assert {"knn", "pca"} <= {attrs["data-detector"] for attrs in board}


def test_failed_and_unfinished_runs_are_named_with_their_reason(tmp_path) -> None:
    made(tmp_path)
    write(tmp_path / "x", result("vae", "digits", 3, status="failed", reason="CUDA is <away>", metrics={}, latency=[]))
    (tmp_path / "killed" / ".hydra").mkdir(parents=True)
    (tmp_path / "killed" / ".hydra" / "config.yaml").write_text("seed: 0\n")
    text = page_of(tmp_path)
    assert "What did not end well" in text and "CUDA is &lt;away&gt;" in text and "1 more without a result" in text


# the page of a run


def run_folder(root, kinds=("nominal", "A", "B"), **more):
    """The folder of a made run with a threshold, scores and calibration scores."""
    record = result("knn", "digits", 0, 0.9, **more)
    record["metrics"] |= {"test/nominal": 100, "test/anomalous": 100}
    record["thresholds"] = [{"rule": "quantile", "asked": {"quantile": 0.95}, "value": 1.25}]
    write(root, record)
    scored(root / "0", kinds=kinds)
    return root / "0"


def test_the_page_of_a_run_has_what_applies(tmp_path) -> None:
    folder = run_folder(tmp_path, losses={"train/loss": [[1, 2.0], [2, 1.0]]}, notices=["<i>a notice</i>"])
    page = Page(page_of(folder))
    figures = [attrs["id"].removeprefix("figure-") for attrs in page.all("figure")]
    assert figures == ["losses", "scores", "selected", "pvalues", "roc", "precisionrecall", "significance"]
    text = (folder / "report.html").read_text()
    assert "&lt;i&gt;a notice&lt;/i&gt;" in text and "What is not shown" not in text
    data = json.loads(page.scripts[0])
    kept = dial(Kept.of(folder, json.loads((folder / "result.json").read_text())))
    assert data["thresholds"] == kept.thresholds and [kind["label"] for kind in data["kinds"]] == [0, 1, 2]
    assert data["strangest"] == sorted(data["strangest"], reverse=True) and len(data["strangest"]) == 25


@pytest.mark.parametrize("broken", ["scores.parquet", "calibration.parquet", "shape.json", ".hydra/config.yaml"])
def test_a_damaged_file_of_a_run_is_named_and_the_rest_is_shown(tmp_path, broken) -> None:
    folder = run_folder(tmp_path)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    (folder / broken).write_bytes(b"\x00: [damaged")
    text = page_of(folder)
    assert "What is not shown" in text and "cannot be shown" in text and "0.9000" in text


def test_the_config_shows_what_differs_from_the_defaults(tmp_path) -> None:
    from straylight.commands.pages import defaults_of
    from straylight.folder import RunFolder

    folder = run_folder(tmp_path)
    (folder / ".hydra").mkdir()
    chosen = {"detector": "knn", "data": "digits", "optimizer": "adam", "trainer": "cpu", "callbacks": "numbers"}
    known = {"hydra": {"runtime": {"choices": {**chosen, "logger": "none", "paths": "default", "experiment": None}}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(known))
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    config = dict(defaults_of(RunFolder(folder)))
    config["detector"] = {**config["detector"], "k": 77}
    config["mine"] = {"<b>": True}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    text = page_of(folder)
    differs = text[text.index("What differs from the defaults") : text.index("settings that are the defaults")]
    assert re.findall(r"<code><bdi>(.*?)</bdi></code>", differs)[:3] == ["detector.k", "77", "5"]
    assert "mine.&lt;b&gt;" in differs and "detector.scaling" not in differs


# the command


@pytest.mark.parametrize("name", ["page.txt", "page", "folder"])
def test_a_file_that_is_no_page_is_refused(tmp_path, capsys, name) -> None:
    made(tmp_path / "sweep")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit) as end:
        report_main([str(tmp_path / "sweep"), "--html", str(tmp_path / name)])
    assert end.value.code == 1 and "--html" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "leaderboard.csv").exists()  # nothing half done


def test_the_page_goes_where_it_is_asked_to(tmp_path, capsys) -> None:
    made(tmp_path / "sweep")
    report_main([str(tmp_path / "sweep"), "--html", str(tmp_path / "there" / "page.html")])
    assert (tmp_path / "there" / "page.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "sweep" / "report.html").exists()
    report_main(["--html", str(tmp_path / "sweep")])
    assert (tmp_path / "sweep" / "report.html").is_file()
    capsys.readouterr()
    report_main([str(tmp_path / "sweep")])
    assert "is of an earlier report; --html writes it anew" in capsys.readouterr().out


def test_json_and_a_page_are_not_asked_for_together(tmp_path, capsys) -> None:
    made(tmp_path)
    with pytest.raises(SystemExit):
        report_main([str(tmp_path), "--html", "--json"])
    assert "one after the other" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(tmp_path, capsys) -> None:
    made(tmp_path / "sweep")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        report_main([str(tmp_path / "sweep"), "--html", str(tmp_path / "file" / "page.html")])
    assert "cannot be written" in capsys.readouterr().err


def test_a_run_ends_in_a_page_where_that_is_asked_for(straylight_train) -> None:
    ended = straylight_train("detector=hbos", "data=blobs", "report.html=true")
    assert ended.status == 0, ended.err
    assert f"To open in a browser, or to send: out/runs/{ended.run.name}/report.html" in ended.out
    page = Page((ended.run / "report.html").read_text())
    assert {"figure-scores", "figure-roc"} <= {attrs.get("id") for attrs in page.all("figure")}
    without = straylight_train("detector=hbos", "data=blobs", output="without")
    assert not (without.run / "report.html").exists()
    assert without.result["variant"] == ended.result["variant"]  # the same is computed


def test_a_sweep_ends_in_a_page_where_that_is_asked_for(straylight_train) -> None:
    ended = straylight_train("-m", "detector=hbos,pca", "data=blobs", "report.html=true")
    assert ended.status == 0, ended.err
    (page,) = ended.folder.glob("sweeps/*/report.html")
    assert f"out/sweeps/{page.parent.name}/report.html" in ended.out and "hbos and pca" in page.read_text()
    assert not list(ended.folder.glob("sweeps/*/*/report.html"))  # of all of it, and not of each job


# what it is made from


def test_every_figure_has_a_title_and_a_sentence() -> None:
    assert set(own.SAID) == set(choice.NAMES) and set(own.DRAWINGS) <= set(own.SAID)
    assert all(said.title and said.sentence.endswith(".") for said in own.SAID.values())


def test_losses_are_kept_finite_and_few() -> None:
    kept = finite({"train/loss": [(i, float(i)) for i in range(1, 5001)], "val/loss": [(1, float("inf"))]}, most=100)
    assert list(kept) == ["train/loss"] and len(kept["train/loss"]) == 100
    assert kept["train/loss"][0] == (1, 1.0) and kept["train/loss"][-1] == (5000, 5000.0)
