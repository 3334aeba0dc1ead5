"""A signal is never lost: wherever a run is, it ends, and says how to go on."""

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from crashing import make
from straylight.engines.local import pool
from straylight.engines.local.slots import Slots
from straylight.errors import ConfigError, Interrupted
from straylight.stopping import SIGNALS, STOP, Stop

pytestmark = pytest.mark.usefixtures("terminal")


def test_a_signal_ends_a_run_where_nothing_is_lost_and_is_kept_in_mind_where_something_is() -> None:
    stop = Stop()
    with pytest.raises(Interrupted):
        stop(signal.SIGTERM)
    stop.look()  # no run is in progress: what was asked of an earlier one is not meant for what comes now
    stop = Stop()
    stop.careful = stop.begun = True
    stop(signal.SIGTERM)
    stop.look()
    stop.careful = False
    with pytest.raises(Interrupted):
        stop.look()
    stop.careful = True
    with pytest.raises(Interrupted):
        stop(signal.SIGTERM)  # a second one does not wait


def test_handlers_are_put_back_and_what_was_ignored_stays_so() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with STOP.listening():
        assert signal.getsignal(signal.SIGINT) is STOP and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, ignored)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def swallowing(number: int):
    """Something that gets a signal and keeps it to itself."""

    def swallow(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        except BaseException:
            return

    return swallow


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("where", ["drawing", "data", "validation", "test"])
def test_no_signal_is_swallowed(where, number, straylight_train, monkeypatch) -> None:
    from straylight.callbacks import drawings
    from straylight.data import Blobs
    from straylight.detectors import VAE

    swallow = swallowing(number)
    match where:
        case "drawing":
            monkeypatch.setitem(drawings.DRAWINGS, "losses", swallow)
        case "data":
            load = Blobs.load
            monkeypatch.setattr(Blobs, "load", lambda self: (swallow(), load(self))[1])
        case "validation" | "test":
            step = getattr(VAE, f"{where}_step")
            monkeypatch.setattr(VAE, f"{where}_step", lambda self, *a, **k: (swallow(), step(self, *a, **k))[1])
    figures = ["callbacks.figures.only=[losses,scores]"] if where == "drawing" else []
    ended = straylight_train("data=blobs", "detector=vae", "logger=none", *figures, epochs=2)
    assert ended.status == 130, (ended.status, ended.err)
    assert ended.result["status"] == "interrupted" and "resume=" in ended.err
    again = straylight_train(f"resume={ended.run}")
    assert again.status in (0, 130)


def test_a_signal_while_training_leaves_a_checkpoint_whatever_its_kind(straylight_train, monkeypatch) -> None:
    from straylight.detectors import VAE

    step = VAE.training_step
    for number in SIGNALS:
        with monkeypatch.context() as patch:
            swallow = swallowing(number)
            patch.setattr(VAE, "training_step", lambda self, *a, s=swallow, **k: (s(), step(self, *a, **k))[1])
            ended = straylight_train("data=blobs", "detector=vae", "logger=none", epochs=2, output=number.name)
        assert ended.status == 130 and (ended.run / "checkpoints" / "interrupt.ckpt").is_file()
        again = straylight_train(f"resume={ended.run}")
        assert again.status == 0, again.err


SERVERLESS = """
import os, signal
from pathlib import Path
from straylight.detectors import HBOS

class Killer(HBOS):
    def __init__(self, shape, kill=0, **common):
        super().__init__(shape, **common)
        self.kill = kill

    def on_fit_start(self):
        super().on_fit_start()
        mark = Path(f"killed.{self.kill}")
        if self.kill and not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            import time
            time.sleep(30)
"""


@pytest.mark.slow
def test_a_sweep_outlives_the_server_that_its_jobs_are_forked_from(straylight_train, tmp_path, monkeypatch) -> None:
    own = make(tmp_path)
    (tmp_path / "killing.py").write_text(SERVERLESS)
    (tmp_path / "own" / "detector" / "killer.yaml").write_text("_target_: killing.Killer\nkill: 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    asked = ("-m", own, "data=blobs", "detector=killer", "detector.kill=1,0,2,3", "hydra.launcher.n_jobs=2")
    ended = straylight_train(*asked, "callbacks=numbers", "logger=none", pictures=False, epochs=1)
    assert ended.status == 0, ended.out + ended.err
    assert [r["status"] for r in ended.results] == ["ok"] * 4 and "is started again" in ended.out


@pytest.mark.parametrize("after_s", [0.0, 0.3, None])
def test_a_server_that_is_about_to_die_counts_as_dead(after_s, monkeypatch) -> None:
    # the pipes of a process that is killed close before it is dead: what is seen then is no end of its job
    monkeypatch.setattr(pool, "DYING_S", 0.6 if after_s is None else 30.0)
    with subprocess.Popen(["sleep", "60" if after_s is None else str(after_s)]) as process:
        try:
            assert pool._dies(process.pid) == (after_s is not None)
        finally:
            process.kill()


# where GPUs are shared


def test_locks_are_put_where_no_link_leads(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is no folder: remove it"):
        Slots(1, ("0",), folder=tmp_path / "locks").take(1)
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_lock_that_is_a_link_is_not_followed(tmp_path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "locks").mkdir(mode=0o700)
    (tmp_path / "locks" / "0.0.lock").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"0\.0\.lock"):
        Slots(1, ("0",), folder=tmp_path / "locks").take(1)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600 and (tmp_path / "secret").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o700, "it was there, and is somebody's"


def test_a_new_folder_of_locks_is_for_everybody(tmp_path) -> None:
    place = Slots(1, ("0",), folder=tmp_path / "locks").take(1)
    assert place is not None and stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o1777
    assert Path(tmp_path / "locks" / "0.0.lock").exists()
