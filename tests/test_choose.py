"""What validation chooses among runs, what that costs on the labels of the test, and the experiment that is written."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from entered import entered
from straylight import config
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.groups import FOLDER
from straylight.report.leaderboard import interval, rows
from straylight.report.selection import Selection


def run(detector: str, auroc: float | None, criteria: dict[str, float | None], **more: Any) -> dict[str, Any]:
    typed = [f"detector={detector}", "data=moons", *more.pop("typed", ())]
    known = {"status": "ok", "detector": detector, "data": "moons", "seed": 0, "overrides": typed, "criteria": criteria}
    return {**known, "metrics": {"test/auroc": auroc}, "variant": " ".join(typed), "folder": detector, **more}


def made(seed: int, sets: int = 4, seeds: int = 3) -> list[dict[str, Any]]:
    """A sweep by chance: three detectors in two settings each, and what was measured of them."""
    dice = random.Random(seed)
    return [
        run(
            detector,
            dice.random(),
            {"val/separation": dice.random(), "val/loss": dice.random(), "val/separation/local": dice.random()},
            typed=typed,
            data=f"set{data}",
            seed=number,
            objective=["val/separation"],
        )
        for data in range(sets)
        for detector in ("knn", "pca", "vae")
        for typed in ([], ["detector.k=3"])
        for number in range(seeds)
    ]


def by_hand(results: list[dict[str, Any]], criterion: str, sign: int) -> dict[str, tuple[str, float]]:
    """Of each data set the variant that is chosen, and its regret, by dictionaries alone."""
    found = {}
    for data in {r["data"] for r in results}:
        groups: dict[str, list[dict[str, Any]]] = {}
        for r in results:
            if r["data"] == data:
                groups.setdefault(r["variant"], []).append(r)
        score = {v: sign * statistics.mean(r["criteria"][criterion] for r in rs) for v, rs in groups.items()}
        auroc = {v: statistics.mean(r["metrics"]["test/auroc"] for r in rs) for v, rs in groups.items()}
        best = max(score, key=score.__getitem__)
        found[data] = best, max(auroc.values()) - auroc[best]
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("criterion", ["val/separation", "val/separation/local"])
def test_the_best_by_the_mean_over_seeds_is_chosen(seed, criterion) -> None:
    results = made(seed)
    expected = by_hand(results, criterion, 1)
    found = Selection(results).choices(criterion)
    assert {c.data: c.chosen.runs[0]["variant"] for c in found} == {data: v for data, (v, _) in expected.items()}
    assert [c.regret for c in found] == pytest.approx([expected[c.data][1] for c in found])
    assert {c.candidates for c in found} == {6}
    (cost,) = [c for c in Selection(results).costs() if c.criterion == criterion]
    regrets = [regret for _, regret in expected.values()]
    assert cost.regret.mean == pytest.approx(statistics.mean(regrets)) and cost.sets == 4
    assert sorted(cost.regret.interval) == pytest.approx(interval(regrets))
    plain = [c.chosen.auroc - statistics.mean(p.auroc for p in _plain(results, c.data)) for c in found]
    assert cost.plain.mean == pytest.approx(statistics.mean(plain))


def _plain(results: list[dict[str, Any]], data: str) -> list[Any]:
    table = [row for row in rows(results) if row.data == data and row.detector.endswith("(default)")]
    return [type("Known", (), {"auroc": row.numbers["auroc"].mean}) for row in table]


def test_losses_choose_among_the_settings_of_one_detector_alone() -> None:
    found = Selection(made(0, sets=1)).choices("val/loss")
    assert [(c.data, c.candidates) for c in found] == [(f"set0 {d}", 2) for d in ("knn", "pca", "vae")]
    assert all(c.value == min(statistics.mean(r["criteria"]["val/loss"] for r in g) for g in _of(c)) for c in found)


def test_choices_on_one_data_set_count_once_among_several() -> None:
    results = made(3, sets=2)
    selection = Selection(results)
    (cost,) = [c for c in selection.costs() if c.criterion == "val/loss"]
    found = selection.choices("val/loss")
    assert len(found) == 6 and cost.sets == 2
    of_sets = [statistics.mean(c.regret for c in found if c.chosen.data == data) for data in ("set0", "set1")]
    assert cost.regret.mean == pytest.approx(statistics.mean(of_sets))
    assert cost.regret.interval == pytest.approx(interval(of_sets))


def _of(choice: Any) -> list[list[dict[str, Any]]]:
    results = [r for r in made(0, sets=1) if r["detector"] == choice.chosen.detector]
    ordered = sorted(results, key=lambda r: r["variant"])
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda r: r["variant"])]


def test_no_label_of_the_test_reaches_a_choice() -> None:
    results = made(1)
    flipped = [{**r, "metrics": {"test/auroc": 1 - r["metrics"]["test/auroc"]}} for r in results]
    hidden = [{**r, "metrics": {}} for r in results]
    for criterion in Selection(results).measured:
        chosen = [c.chosen.name for c in Selection(results).choices(criterion)]
        assert [c.chosen.name for c in Selection(flipped).choices(criterion)] == chosen
        assert [c.chosen.name for c in Selection(hidden).choices(criterion)] == chosen
    assert all(c.regret is None and c.best is None for c in Selection(hidden).choices("val/separation"))
    assert not Selection(hidden).parts()


def test_what_cannot_be_judged_is_counted_and_what_sees_the_truth_is_left_out() -> None:
    results = [
        run("knn", 0.7, {"val/separation": 0.8}),
        run("vae", 0.9, {"val/separation": 0.6}),
        run("pca", 0.99, {"val/separation": None}),
        run("supervised", 1.0, {"val/separation": 1.0}, truth=True),
        run("aae", 0.5, {"val/separation": 0.9}, status="failed"),
    ]
    (choice,) = Selection(results).choices("val/separation")
    assert (choice.chosen.name, choice.candidates, choice.without, choice.best) == ("knn", 2, 1, 0.9)
    assert Selection(results[:1]).choices("val/separation") == []


def test_another_data_set_or_contamination_is_no_candidate() -> None:
    results = [
        run(detector, 0.5, {"val/separation": value}, typed=[f"data.contamination={c}"])
        for detector, c, value in (("knn", 0, 0.9), ("vae", 0, 0.8), ("knn", 0.1, 0.6), ("vae", 0.1, 0.7))
    ]
    found = {c.data: c.chosen.detector for c in Selection(results).choices("val/separation")}
    assert found == {"moons data.contamination=0": "knn", "moons data.contamination=0.1": "vae"}


def test_the_leaderboard_marks_what_validation_chose() -> None:
    results = made(2)
    table = Selection(results).marked(rows(results))
    marked = {(row.data, row.detector) for row in table if row.chosen}
    chosen = Selection(results).choices("val/separation")
    assert marked == {(c.chosen.data, c.chosen.name) for c in chosen} and len(marked) == 4
    assert {row.chosen for row in table} == {"", "val/separation"}


@pytest.mark.parametrize("wrong", ["test/auroc", "auroc", "val/nothing"])
def test_what_no_choice_can_be_made_by_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="criterion="):
        Selection(made(0)).choices(wrong)


# the command


@pytest.fixture
def chosen_from(straylight_train, tmp_path) -> Path:
    typed = ["data=blobs", "detector=knn,pca", "data.nominal=200", "seed=0,1", "hydra.launcher.jobs_per_process=9"]
    ended = straylight_train("-m", *typed, f"hydra.sweep.dir={tmp_path}/sweep")
    assert ended.status == 0, ended.err
    for folder in (tmp_path / "sweep").glob("[0-9]"):
        kept = RunFolder(folder)
        result = json.loads(kept.result.read_text())
        result["criteria"] = {"val/separation": 0.9 if result["detector"] == "pca" else 0.8}
        kept.result.write_text(json.dumps(result))
    return tmp_path / "sweep"


def typed(monkeypatch, capfd, *words) -> tuple[int, str, str]:
    return entered(monkeypatch, capfd, "choose", *words)


def test_the_experiment_that_is_written_is_what_was_chosen(chosen_from, monkeypatch, capfd, tmp_path) -> None:
    status, out, err = typed(monkeypatch, capfd, str(chosen_from))
    assert status == 0, err
    assert out.startswith("blobs: pca, of 2, by val/separation = 0.9. On the labels of the test it reached an AUROC")
    (path,) = (chosen_from / "chosen" / "experiment").iterdir()
    assert f"--config-dir={chosen_from}/chosen experiment={path.stem} seed=0,1,2" in out
    with initialize_config_dir(str(FOLDER), version_base=config.HYDRA):
        search = f"hydra.searchpath=[file://{chosen_from}/chosen]"
        cfg = compose("train", [f"experiment={path.stem}", "seed=0", f"paths.output={tmp_path / 'out'}", search])
    (run,) = [f for f in chosen_from.glob("[0-9]") if _is(f, "pca", 0)]
    config.settle_paths(cfg)
    assert config.identity(cfg, seed=False) == config.identity(config.saved(RunFolder(run)), seed=False)
    assert cfg.data.nominal == 200 and "nominal: 200" in path.read_text()


def test_groups_of_ones_own_are_found_beside_what_was_chosen(straylight_train, tmp_path, monkeypatch, capfd) -> None:
    own = tmp_path / "own"
    (own / "detector").mkdir(parents=True)
    (own / "detector" / "near.yaml").write_text("defaults: [knn]\nk: 3\n")
    typed_words = [f"--config-dir={own}", "data=blobs", "detector=near,hbos", "detector.scaling=minmax"]
    assert straylight_train("-m", *typed_words, f"hydra.sweep.dir={tmp_path}/sweep").status == 0
    for folder in (tmp_path / "sweep").glob("[0-9]"):
        result = json.loads((folder / "result.json").read_text())
        result["criteria"] = {"val/separation": 0.9 if result["detector"] == "near" else 0.8}
        (folder / "result.json").write_text(json.dumps(result))
    status, out, err = typed(monkeypatch, capfd, str(tmp_path / "sweep"))
    assert status == 0, err
    words = shlex.split(out.splitlines()[-1])
    assert words[:3] == ["straylight", "train", "-m"] and f"--config-dir={own}" in words
    again = straylight_train(*(word for word in words[2:] if not word.startswith("seed=")), "seed=4")
    assert again.status == 0, again.err
    cfg = config.saved(RunFolder(again.results[-1]["folder"]))
    assert (cfg.detector.k, cfg.detector.scaling) == (3, "minmax")


def _is(folder: Path, detector: str, seed: int) -> bool:
    result = json.loads((folder / "result.json").read_text())
    return (result["detector"], result["seed"]) == (detector, seed)


def test_programs_are_told_as_json_and_nothing_is_written(chosen_from, monkeypatch, capfd) -> None:
    status, out, _ = typed(monkeypatch, capfd, str(chosen_from), "--json", "--data", "blobs")
    (found,) = json.loads(out)
    assert status == 0 and (found["chosen"], found["candidates"], len(found["folders"])) == ("pca", 2, 2)
    assert not (chosen_from / "chosen").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--by", "test/auroc"], "--by=test/auroc would select by the test rows"),
        (["--by", "val/stability"], "val/stability"),
        (["--data", "mnist"], "There is nothing to choose among on mnist"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_a_sentence(more, words, chosen_from, monkeypatch, capfd) -> None:
    status, _, err = typed(monkeypatch, capfd, str(chosen_from), *more)
    assert status == 2 and err.count("Error:") == 1 and words in err and "Traceback" not in err


@pytest.mark.parametrize("folder", ["absent", "."])
def test_a_folder_without_runs_is_said(folder, tmp_path, monkeypatch, capfd) -> None:
    status, _, err = typed(monkeypatch, capfd, str(tmp_path / folder))
    said = err.splitlines()
    assert status == 2 and [line[:7] for line in said if not line.startswith("reading ")] == ["Error: "]
