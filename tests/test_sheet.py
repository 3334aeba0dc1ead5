"""Tables at any width: no number is shortened, names fold, and what is left out is said."""

import io
import re

import pytest
from rich.console import Console

from straylight.report import page
from straylight.report.leaderboard import rows
from straylight.report.sheet import Cell, Column, Sheet, ranged
from test_details import RESULT
from test_report import result

WIDTHS = (60, 80, 100, 120, 200)
NUMBER = re.compile(r"(?<![\w.=])~?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def printed(what, width):
    """What a terminal of that width shows, line by line."""
    out = io.StringIO()
    console = Console(file=out, width=width)
    page.leaderboard(what, console) if isinstance(what, list) else console.print(what)
    return out.getvalue().splitlines()


def made(detectors, overrides=(), data="digits", others=False):
    """Results whose every number is another, of detectors whose names hold no digit."""
    found = []
    for i in range(detectors):
        for seed in (0, 1, 2):
            run = result(f"detector_{LETTERS[i]}", data, seed, auroc=0.98 + 1e-3 * i + 1e-4 * seed, overrides=overrides)
            run |= {"parameters": 1_000_003 * (i + 1), "duration_s": 10.1 * (i + 1)}
            run["latency"] = [
                {"runtime": name, "batch": batch, "p50_us": p50 + i, "events_per_s": 1e9 / p50 + i}
                for name, batch, p50 in (("eager", 1, 3310.0), ("onnx", 1, 2660.0), ("eager", 1024, 7001.0))
            ]
            run["cost"] = {"shared": {"others": others}}
            found.append(run)
    return rows(found)


def numbers(lines):
    """Those of the rows below the headings, with ranges taken apart."""
    begin = next(i for i, line in enumerate(lines) if line.startswith("detector ")) + 1
    body = [line for line in lines[begin:] if not line.startswith(("left out", "n.r.:", "~:"))]
    return [token.strip("~") for line in body for token in NUMBER.findall(line.replace("-", " "))]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(
    "overrides", [(), ("detector.name=" + "a_long_word_" * 8, "detector.other=[pt,eta,phi]")], ids=["plain", "long"]
)
def test_no_number_of_the_leaderboard_is_shortened(width, overrides, others):
    table = made(12, overrides, data="a data set of a very long name indeed, " * 3, others=others)
    whole, lines = numbers(printed(table, 1000)), printed(table, width)
    found = numbers(lines)
    assert found and set(found) <= set(whole)
    assert "…" not in "".join(lines) and max(map(len, lines)) <= width
    for row in table:
        assert f"{row.numbers['auroc'].mean:.4f}" in found
        assert all(f"{value:.4f}" in found for value in row.numbers["auroc"][1:])
    said = [line for line in lines if line.startswith("left out: ")]
    assert bool(said) == (sorted(found) != sorted(whole))
    if said:
        assert "leaderboard.csv" in " ".join(lines) and "widen the terminal" in " ".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_folded_and_not_cut(width):
    runs = [result("vae", overrides=[f"detector.columns=[{'energy,' * n}eta]"], variant=str(n)) for n in (1, 20)]
    lines = printed(rows(runs), width)
    text = "".join(part for line in lines if not line.startswith(" ") for part in re.split(r"\s{2,}", line)[:1])
    for n in (1, 20):
        assert f"vaedetector.columns=[{'energy,' * n}eta]" in text.replace(" ", "")


def test_columns_leave_by_their_rank_and_come_back_in_their_order():
    table = made(3)
    left = {
        width: next((line for line in printed(table, width) if line.startswith("left out")), "")
        for width in (45, 60, 80, 200)
    }
    assert left[200] == ""
    order = ["seconds", "parameters", "events/s", "seeds", "AP", "TPR @FPR 1e-2", "TPR @FPR 1e-1", "p50 us"]
    for width in (60, 80):
        gone = [name for name in order if name in left[width].split(";")[0].replace("left out: ", "").split(", ")]
        assert gone == order[: len(gone)]
    assert left[80].count(",") < left[60].count(",") or not left[80]


@pytest.mark.parametrize("width", [24, 40, *WIDTHS])
def test_a_table_without_ranks_goes_on_below_and_leaves_nothing_out(width):
    sheet = Sheet([Column("kind", text=True), *(Column(f"column {i}") for i in range(9))])
    for row in range(3):
        sheet.add_row(
            f"row {LETTERS[row]}", *(ranged(f"{row}.{i}234", f"{row}.{i}111", f"{row}.{i}999") for i in range(9))
        )
    lines = printed(sheet, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width and "left out" not in text
    for row in range(3):
        assert all(f"{row}.{i}{end}" in text for i in range(9) for end in ("234", "111", "999"))


def test_cells_of_wide_letters_are_measured_as_a_terminal_shows_them():
    sheet = Sheet([Column("detector", text=True), Column("AUROC")])
    sheet.add_row("検出器" * 10, "0.9876")
    assert all("0.98" not in line or line.endswith("0.9876") for line in printed(sheet, 30))
    assert Cell.of("a") == ("a", "a")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("details", [False, True])
def test_no_number_of_a_run_is_shortened(tmp_path, width, details):
    import json

    kinds = {f"{name}/{LETTERS[i] * 30}": 0.8 + i / 1000 for i in range(9) for name in ("test/auroc", "test/ap")}
    full = RESULT | {"metrics": RESULT["metrics"] | kinds}
    (tmp_path / "result.json").write_text(json.dumps(full))

    def shown(width):
        out = io.StringIO()
        page.show_run(tmp_path, Console(file=out, width=width), details=details)
        return out.getvalue()

    def found(text):
        return set(NUMBER.findall(text.replace("-", " ")))

    assert "…" not in shown(width)
    assert found(shown(width)) == found(shown(1000))
