"""What a run leaves is whole, is what it wrote, and outlives an attempt to go on with it that fails."""

import errno
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from given import equal
from straylight.commands.report import main as report
from straylight.errors import ConfigError, StraylightError, no_room
from straylight.folder import CHECKPOINTS, RunFolder, SweepFolder
from straylight.job.checkpoints import WholeCheckpoints, read_checkpoint, to_go_on_from
from straylight.run import Run
from straylight.sweep.lease import leased
from straylight.sweep.manifest import Manifest

ROWS = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)


def weights(folder: RunFolder, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder.checkpoint(name), weights_only=True)["state_dict"]


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


# checkpoints


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    path = tmp_path / "last.ckpt"
    writer = WholeCheckpoints()
    writer.save_checkpoint({"state_dict": {"w": torch.zeros(3)}}, path)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(bytes(data)[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as error:
        writer.save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    assert str(path) in (no_room(error.value) or "")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_no_checkpoint_goes_through_the_folder_for_temporary_files(straylight_train, monkeypatch) -> None:
    def moved(*_: object) -> None:
        raise AssertionError("Lightning's own way, which moves a file from there")

    monkeypatch.setattr("lightning_fabric.plugins.io.torch_io._atomic_save", moved)
    ended = straylight_train("data=blobs", "detector=vae", "callbacks=numbers", pictures=False, epochs=1)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize("broken", ["last", "interrupt", "both"])
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(broken, sent, caplog) -> None:
    newest = sent.checkpoint("interrupt")
    newest.write_bytes(sent.checkpoint("last").read_bytes())
    for name in ("last", "interrupt") if broken == "both" else (broken,):
        flip(sent.checkpoint(name), 8 * 5000 + 3)
    with caplog.at_level("INFO"):
        found = to_go_on_from(sent)
    expected = {"last": "interrupt", "interrupt": "last", "both": "best"}[broken]
    assert found == sent.checkpoint(expected) and f"Going on from {found}" in caplog.text
    assert broken == "last" or "An older one is tried" in caplog.text


def test_a_run_without_a_checkpoint_that_is_whole_begins_anew(sent, straylight_train) -> None:
    done = weights(sent)
    for name in CHECKPOINTS:
        sent.checkpoint(name).write_bytes(b"half")
    sent.result.unlink()
    ended = straylight_train(f"resume={sent}")
    assert ended.status == 0 and "training starts anew" in ended.out, ended.err
    assert equal(weights(sent), done), "which comes to the same"


def test_a_checkpoint_of_another_run_is_left_alone(sent, caplog) -> None:
    sent.job.write_text(sent.job.read_text().replace(str(sent.run), "other"))
    assert to_go_on_from(sent) is None and "is of another run" in caplog.text


@pytest.mark.parametrize("bit", range(3, 300_000, 23_456))
def test_a_bit_that_changed_in_a_checkpoint_is_noticed(bit, sent) -> None:
    scores = Run.open(sent.path).score(ROWS)
    flip(sent.checkpoint("best"), bit)
    with pytest.raises(ConfigError, match=r"best\.ckpt"):
        Run.open(sent.path)
    flip(sent.checkpoint("best"), bit)
    assert (Run.open(sent.path).score(ROWS) == scores).all()


def test_a_bit_that_changed_in_what_thresholds_are_set_on_is_noticed(sent) -> None:
    assert np.isfinite(Run.open(sent.path).p_values(ROWS)).all()
    for bit in range(77, 8 * sent.calibration.stat().st_size, 4321):
        flip(sent.calibration, bit)
        with pytest.raises(ConfigError, match=r"calibration\.parquet"):
            Run.open(sent.path).p_values(ROWS)
        flip(sent.calibration, bit)


def test_a_record_that_cannot_be_read_is_no_reason_to_score_with_another_checkpoint(sent) -> None:
    for text in ("", "{", '{"status": "ok", "checkpoint": 3}', "[" * 5000):
        sent.result.write_text(text)
        with pytest.raises(ConfigError, match=r"result\.json cannot be read"):
            Run.open(sent.path)


def test_a_checkpoint_is_named_in_the_runs_own_folder(sent, tmp_path) -> None:
    (tmp_path / "other.ckpt").write_bytes(sent.checkpoint("best").read_bytes())
    sent.write_result({**(sent.read() or {}), "checkpoint": "../../other.ckpt"})
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        Run.open(sent.path)


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file:
        file.writestr("x", "y")
    torch.save([1], tmp_path / "b.ckpt")
    torch.save({"state_dict": Path}, tmp_path / "c.ckpt")
    for name in "abc":
        with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
            read_checkpoint(tmp_path / f"{name}.ckpt")


# going on


def snapshot(folder: RunFolder) -> dict[str, bytes]:
    kept = (folder.result, folder.config, folder.shape, folder.scores, folder.calibration, folder.job)
    return {str(path): path.read_bytes() for path in (*kept, folder.checkpoint("best"), folder.checkpoint("last"))}


def diverging(monkeypatch) -> None:
    """Training that fails after an epoch more."""
    from straylight.detectors import VAE

    step = VAE.training_step

    def fail(self, batch, batch_idx):
        if self.current_epoch > 2:
            raise RuntimeError("it broke")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VAE, "training_step", fail)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("trainer.max_epochs=1", "it has more"),
        ("trainer.accelerator=gpu", "there is none"),
        ("trainer.max_epoch=9", "no such key"),
        ("trainer.max_epochs=-5", "out of range"),
        ("trainer.max_epochs=9", "it breaks on the way"),
    ],
)
def test_a_finished_run_keeps_what_it_reached_when_going_on_fails(
    change, why, sent, straylight_train, monkeypatch
) -> None:
    if change == "trainer.accelerator=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    diverging(monkeypatch)
    before = snapshot(sent)
    ended = straylight_train(f"resume={sent}", change)
    assert ended.status == 1 and "Error: " in ended.err, why
    assert snapshot(sent) == before and not list(sent.path.glob(".before*")), why
    assert Run.open(sent.path).result["metrics"]


def test_a_finished_run_that_was_gone_on_with_and_failed_goes_on_where_it_failed(
    sent, straylight_train, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        diverging(patch)
        straylight_train(f"resume={sent}", "trainer.max_epochs=5")
    again = straylight_train(f"resume={sent}", "trainer.max_epochs=5")
    assert again.status == 0 and "interrupt.ckpt, epoch 2" in again.out and "epoch 2" in sent.log().read_text()
    assert sent.sound()["epochs"] == 5 and not list(sent.path.glob(".before*"))


def test_what_a_killed_attempt_had_set_aside_is_put_back_by_the_next(sent, straylight_train) -> None:
    before = snapshot(sent)
    sent.set_aside()
    sent.result.unlink()
    sent.scores.unlink()
    assert not SweepFolder(sent.path.parent).runs()[1:], "what is set aside is no run"
    ended = straylight_train(f"resume={sent}")
    assert "is finished" in ended.out and snapshot(sent) == before


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_two_sweeps_in_one_folder_are_gone_on_with_both(order, straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = {"one": ("detector=hbos", "seed=0,1"), "two": ("detector=pca", "seed=0,1", "data.anomaly_std=0.5")}
    for name in order:
        lean = ("callbacks=numbers", f"hydra.sweep.dir={here}")
        ended = straylight_train("-m", "data=blobs", *asked[name], *lean, pictures=False)
        assert ended.status == 0, ended.err
    assert len(Manifest.all(SweepFolder(here))) == 2
    runs = SweepFolder(here).runs()
    assert len(runs) == 4
    for run in (runs[0], runs[-1]):
        run.result.unlink()
    again = straylight_train("-m", f"resume={here}")
    assert again.status == 0 and again.out.count("Next:") == 1, again.out + again.err
    assert [run.path for run in SweepFolder(here).runs()] == [run.path for run in runs]
    assert [result["status"] for result in SweepFolder(here).results()] == ["ok"] * 4


def test_a_run_has_one_process_at_a_time(sent, straylight_train) -> None:
    with leased(sent.path, alone=True, what="run"):
        for command in ([f"resume={sent}", "trainer.max_epochs=4"], ["data=blobs", f"hydra.run.dir={sent}"]):
            ended = straylight_train(*command)
            assert ended.status == 1 and "A run is running in" in ended.err
    sent.result.unlink()
    with leased(sent.path.parent, alone=False):
        ended = straylight_train(f"resume={sent}")
        assert ended.status == 1 and "belongs to a sweep that is running" in ended.err


# a full disk


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_on_a_disk_that_fills_says_so_and_goes_on_when_there_is_room(straylight_train, tmp_path) -> None:
    asked = ("data=blobs", "detector=vae", "callbacks=numbers")
    whole = straylight_train(*asked, f"hydra.run.dir={tmp_path / 'whole'}", epochs=3, pictures=False)
    largest = RunFolder(tmp_path / "whole").checkpoint("last").stat().st_size
    for size in (4_000, largest // 2, largest - 1):
        here = RunFolder(tmp_path / f"{size}")
        with room(size):
            ended = straylight_train(*asked, f"hydra.run.dir={here}", epochs=3, pictures=False)
        said = ended.err.strip().splitlines()
        assert ended.status == 1 and "Traceback" not in ended.err + ended.out
        assert said and said[-1].startswith("Error: There is no room to write "), ended.err
        assert (here.read() or {"status": "failed"})["status"] == "failed"
        assert not [path for path in here.path.rglob(".*") if path.suffix], "no half file"
        begun = here.config.is_file()
        anew = (*asked, f"hydra.run.dir={here}")
        again = straylight_train(f"resume={here}") if begun else straylight_train(*anew, epochs=3, pictures=False)
        assert again.status == 0, again.err
        assert equal(weights(here), weights(RunFolder(tmp_path / "whole")))
    assert whole.status == 0


# files that are cut and changed


def tried(folder: RunFolder) -> None:
    """What may be done with a run that somebody sent; it works, or says in a sentence why not."""
    with suppress(StraylightError):
        run = Run.open(folder.path)
        run.score(ROWS)
        run.p_values(ROWS)
        run.flag(ROWS)
    with suppress(SystemExit):
        report([str(folder.path)])


@pytest.fixture(scope="module")
def mangled(finished, tmp_path_factory) -> RunFolder:
    import shutil

    folder = tmp_path_factory.mktemp("mangled") / "run"
    shutil.copytree(finished, folder)
    return RunFolder(folder)


FILES = (
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    "result.json",
    "shape.json",
    "job.json",
    "scores.parquet",
    "calibration.parquet",
    "checkpoints/best.ckpt",
)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=60_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_was_cut_or_changed_ends_in_a_sentence(name, mangled, data) -> None:
    path = mangled.path / name
    before = path.read_bytes()
    how = data.draw(st.sampled_from(["cut", "flip", "digits", "lines", "null"]))
    place = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    if how == "cut":
        changed = changed[:place]
    elif how == "flip":
        changed[place] ^= data.draw(st.integers(1, 255))
    elif how == "digits":
        changed[place : place + 1] = data.draw(
            st.sampled_from([b"9", b"-", b'"', b"[", b"{", b"null", b"1e999", b"\n"])
        )
    elif how == "lines":
        lines = before.split(b"\n")
        del lines[place % len(lines)]
        changed = bytearray(b"\n".join(lines))
    else:
        changed[place : place + 64] = b"\0" * len(changed[place : place + 64])
    try:
        path.write_bytes(bytes(changed))
        tried(mangled)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("text", ["", "[]", "[" * 5000, "\0\0", '{"hydra": 3, "status": "ok", "run": 1}'])
def test_a_sweep_with_files_of_another_shape_is_reported_and_gone_on_with(text, sent_sweep, straylight_train) -> None:
    names = ("job.json", "result.json", ".hydra/hydra.yaml", ".hydra/config.yaml")
    for run, name in zip(sent_sweep.runs(), names, strict=True):
        (run.path / name).write_text(text)
    report([str(sent_sweep.path)])
    ended = straylight_train("-m", f"resume={sent_sweep.path}")
    assert "Traceback" not in ended.err, ended.err
    assert ended.status == 0 or ended.err.startswith("Error: "), ended.err


def test_an_error_that_came_of_itself_is_looked_at_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert no_room(first) is None
    second.__cause__ = OSError(errno.ENOSPC, "full", "here")
    assert "here" in (no_room(first) or "")


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[" * 5000, '{"overrides": 3}', '{"overrides": ["a=b"], "cwd": 1}']
)
def test_a_sweep_that_does_not_say_what_it_was_asked_for_says_that(text, sent_sweep, straylight_train) -> None:
    (path,) = sent_sweep.manifests.glob("*.json")
    path.write_text(text)
    ended = straylight_train("-m", f"resume={sent_sweep.path}")
    assert ended.status == 1 and ended.err.startswith("Error: ") and ended.err.count("\n") == 1, ended.err
    path.unlink()
    sent_sweep.multirun.write_text(text)
    ended = straylight_train("-m", f"resume={sent_sweep.path}")
    assert ended.status == 1 and ended.err.startswith("Error: ") and ended.err.count("\n") == 1, ended.err


def test_a_threshold_that_could_not_be_set_says_how_many_rows_it_takes(sent) -> None:
    few = {"rule": "fpr", "asked": {"fpr": 1e-4}, "value": None, "calibration": 50, "remark": "It takes 9,999 rows."}
    false = {"rule": "fdr", "asked": {"fdr": 1e-9}, "value": None, "calibration": 50}
    sent.write_result({**(sent.read() or {}), "thresholds": [few, false]})
    run = Run.open(sent.path)
    with pytest.raises(ConfigError, match="It takes 9,999 rows"):
        run.flag([[100.0, 100.0]], "fpr=0.0001")
    with pytest.raises(ConfigError, match="999,999,999 nominal calibration rows or more, and there are 50"):
        run.flag([[100.0, 100.0]], "fdr")
    assert run.thresholds == {"fpr=0.0001": float("inf")}
