"""`straylight report --retime`: new numbers in the same records, and nothing else touched."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from straylight import cli, config
from straylight.callbacks.timing import Timing
from straylight.commands import retime
from straylight.commands.train import main as train
from straylight.data import Blobs
from straylight.folder import RunFolder


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """Three small runs, two of them on the same rows."""
    folder = tmp_path_factory.mktemp("retime")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        patch.setenv("HYDRA_FULL_ERROR", "0")
        common = ["data=blobs", "logger=none", "callbacks.latency.budget_s=0.001", "paths.output=out"]
        common += ["callbacks.latency.batches=[1,8]", "callbacks.latency.runtimes=[eager]", "trainer.max_epochs=1"]
        for number, chosen in enumerate((["detector=pca"], ["detector=autoencoder"], ["detector=pca", "seed=1"])):
            train([*common, *chosen, f"hydra.run.dir=out/{number}"])
    signal.signal(signal.SIGTERM, before)
    return folder / "out"


@pytest.fixture
def runs(swept, tmp_path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "out"))


def records(folder: Path) -> list[dict]:
    return [json.loads((folder / name / "result.json").read_text()) for name in "012"]


def planted(monkeypatch, calls: list, after=lambda number: None) -> None:
    """Timing without any time: each call is kept, and gives its number."""

    def timed(self, detector, x, context, precision):
        after(len(calls))
        calls.append((self, detector, x, context))
        entry = {"runtime": "eager", "batch": 1, "scaling": True, "p50_us": 1000.0 * len(calls)}
        return [entry], {"parameters": 7, "shared": {"others": len(calls) == 2}}

    monkeypatch.setattr(Timing, "__call__", timed)


def test_latency_and_cost_are_measured_again_and_all_else_is_kept(runs, monkeypatch, capsys) -> None:
    before, files = records(runs), sorted(runs.rglob("*"))
    planted(monkeypatch, calls := [])
    assert retime.retime(runs) == 0
    for number, (old, new) in enumerate(zip(before, records(runs), strict=True), 1):
        assert [e["p50_us"] for e in new["latency"]] == [1000.0 * number] and new["cost"]["parameters"] == 7
        assert set(new) - set(old) == {"retimed"} and set(new["retimed"]) == {"time"}
        same = set(old) - {"latency", "cost"}
        assert {k: old[k] for k in same} == {k: new[k] for k in same}
    assert sorted(runs.rglob("*")) == files
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("[1/3] pca on blobs, seed 0: p50 1000 us (eager), before p50 ")
    assert [line for line in said if "others used the device" in line] == [said[2]]
    # with the run's own settings, detector and test rows
    for timing, detector, x, context in calls:
        assert timing.batches == (1, 8) and timing.budget_s == 0.001 and timing.runtimes == ("eager",)
        assert not detector.training and len(x) == len(context) == 8
    assert [type(detector).__name__ for _, detector, _, _ in calls] == ["PCA", "AutoEncoder", "PCA"]
    assert (calls[0][2] == Blobs(seed=0).splits.test.x[:8]).all()
    assert (calls[2][2] == Blobs(seed=1).splits.test.x[:8]).all()


def test_a_data_set_that_runs_share_is_loaded_once(runs, monkeypatch) -> None:
    planted(monkeypatch, [])
    loaded = []
    load = Blobs.load
    monkeypatch.setattr(Blobs, "load", lambda self: loaded.append(self.seed) or load(self))
    retime.retime(runs)
    assert loaded == [0, 1]


def test_really_timed(runs) -> None:
    assert retime.retime(runs / "1") == 0
    new = records(runs)[1]
    assert [(e["runtime"], e["batch"], e["scaling"]) for e in new["latency"]] == [
        ("eager", 1, True),
        ("eager", 8, True),
        ("eager", 1, False),
        ("eager", 8, False),
    ]
    assert new["cost"]["flops_per_event"] > 0 and new["cost"]["parameters"] == new["parameters"]


def test_a_run_that_cannot_be_opened_is_named_and_left_alone(runs, monkeypatch, capsys) -> None:
    planted(monkeypatch, [])
    (runs / "0" / "shape.json").unlink()
    elsewhere = json.loads((runs / "1" / "result.json").read_text()) | {"device": "mps:0"}
    RunFolder(runs / "1").write_result(elsewhere)
    monkeypatch.setattr(retime.torch.backends.mps, "is_available", lambda: False)
    before = [(runs / name / "result.json").read_bytes() for name in "012"]
    assert retime.retime(runs) == 2
    after = [(runs / name / "result.json").read_bytes() for name in "012"]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    first, second = capsys.readouterr().err.splitlines()
    assert "left alone" in first and str(runs / "0") in first and "shape.json" in first
    assert "left alone" in second and "tested on mps:0, which is not here" in second


def test_runs_that_did_not_finish_are_passed_over(runs, monkeypatch) -> None:
    planted(monkeypatch, calls := [])
    RunFolder(runs / "0").write_result({"status": "failed", "metrics": {}, "latency": []})
    assert retime.retime(runs) == 0 and len(calls) == 2


def test_an_interrupt_leaves_every_record_whole(runs, monkeypatch) -> None:
    def interrupt(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    before = records(runs)
    planted(monkeypatch, [], interrupt)
    monkeypatch.setattr(sys, "argv", ["straylight", "report", "--retime", str(runs)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    after = records(runs)
    assert "retimed" in after[0] and after[1:] == before[1:]
    assert not list(runs.rglob(".result*"))


@pytest.mark.parametrize("arguments", [["--retime", "{}"], ["{}", "--retime"]])
def test_the_report_follows(arguments, runs, monkeypatch, capsys) -> None:
    planted(monkeypatch, [])
    monkeypatch.setattr(sys, "argv", ["straylight", "report", *(a.format(runs) for a in arguments)])
    cli.main()
    said = capsys.readouterr().out
    assert "[3/3]" in said and "AUROC" in said and (runs / "leaderboard.csv").is_file()
    (runs / "2" / "shape.json").unlink()
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1 and "AUROC" in capsys.readouterr().out


def test_relative_paths_that_an_earlier_version_kept_are_those_of_where_the_run_was_started(runs) -> None:
    folder = RunFolder(runs / "0")
    kept = OmegaConf.load(folder.config)
    assert Path(kept.paths.data).is_absolute()
    kept.paths.data = "data"
    OmegaConf.save(kept, folder.config)
    started = OmegaConf.load(folder.hydra).hydra.runtime.cwd
    assert config.saved(folder).paths.data == f"{started}/data"
    folder.hydra.unlink()
    assert config.saved(folder).paths.data == str(Path("data").absolute())


@pytest.mark.parametrize(("arguments", "status"), [(["--retime", "--help"], 0), (["--retime", "none"], 1)])
def test_help_and_missing_folders_are_the_reports_own(arguments, status, monkeypatch) -> None:
    monkeypatch.setattr(retime, "retime", lambda folder: pytest.fail("was timed"))
    monkeypatch.setattr(sys, "argv", ["straylight", "report", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
