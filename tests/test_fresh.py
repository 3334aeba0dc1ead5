"""A program forked from the warm server is, to a test, one that was started anew."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

TELLS = """
import multiprocessing, os, signal, sys, threading
print(sys.argv, os.getcwd(), os.environ["TOLD"], sys.path[0] if "." in sys.argv else repr(sys.path[0]))
print(__name__, sorted(n for n in globals() if not n.startswith("__")), sys.modules["__main__"].__dict__ is globals())
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM).name)
print(multiprocessing.get_start_method(), multiprocessing.parent_process(), multiprocessing.current_process().name)
print(sorted(sys.path) == sorted(set(sys.path)), [p for p in sys.path if p.endswith(("first", "second"))])
print(threading.active_count(), sys.stdin.read() == "", os.environ.get("LEFT"))
print("warned", file=sys.stderr)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so in five seconds."""
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(params=["forked", "new"])
def either(request, fresh):
    """`subprocess.run`, the real one and ours, which must not be told apart."""

    def new(arguments, **options):
        merged = {"stderr": subprocess.STDOUT} if options.pop("merged", False) else {"stderr": subprocess.PIPE}
        # some shells have what they start in the background ignore Ctrl-C
        options["preexec_fn"] = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.run(
            arguments, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, **merged, text=True, **options
        )

    return new if request.param == "new" else fresh.run


@pytest.mark.parametrize("how", ["-c", "script", "-m"])
def test_what_a_program_finds(how, either, tmp_path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    given = {"-c": ["-c", TELLS], "script": [str(tmp_path / "tells.py")], "-m": ["-m", "tells"]}[how]
    env = {**os.environ, "TOLD": "you", "PYTHONPATH": f"{tmp_path}/first{os.pathsep}{tmp_path}/second"}
    env.pop("LEFT", None)
    ended = either([sys.executable, *given, "a", "b c"], cwd=tmp_path, env=env)
    assert ended.returncode == 0, ended.stderr
    argv0 = {"-c": "-c", "script": str(tmp_path / "tells.py"), "-m": str(tmp_path / "tells.py")}[how]
    lines = ended.stdout.splitlines()
    assert lines[0] == f"{[argv0, 'a', 'b c']} {tmp_path} you {('' if how == '-c' else str(tmp_path))!r}"
    assert lines[1] == "__main__ ['multiprocessing', 'os', 'signal', 'sys', 'threading'] True"
    assert lines[2:] == [
        "True SIG_DFL",
        "fork None MainProcess",
        f"True {[f'{tmp_path}/first', f'{tmp_path}/second']}",
        "1 True None",
    ]
    assert ended.stderr == "warned\n"


@pytest.mark.parametrize(
    ("text", "status", "out", "err"),
    [
        ("print(1, end='')", 0, "1", ""),
        ("import sys; sys.exit()", 0, "", ""),
        ("import sys; sys.exit(3)", 3, "", ""),
        ("import sys; sys.exit(-1)", 255, "", ""),
        ("import sys; sys.exit('so long')", 1, "", "so long\n"),
        ("import os; os._exit(7)", 7, "", ""),
        ("import os; os.kill(os.getpid(), 9)", -9, "", ""),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV, "", None),
        ("import atexit; atexit.register(print, 'bye'); print('hi')", 0, "hi\nbye\n", ""),
        ("import threading; threading.Timer(0.1, print, ['late']).start()", 0, "late\n", ""),
        ("1 / 0", 1, "", 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nZero'),
        ("raise KeyboardInterrupt", -signal.SIGINT, "", "Traceback (most recent call last):\n"),
        ("import os; os.write(1, b'low'); print('high')", 0, "lowhigh\n", ""),
        ("import warnings; warnings.warn('so')", 0, "", "<string>:1: UserWarning: so\n"),
    ],
)
def test_how_a_program_ends(text, status, out, err, either) -> None:
    ended = either([sys.executable, "-c", text])
    assert (ended.returncode, ended.stdout) == (status, out)
    assert err is None or (ended.stderr.startswith(err) if err.startswith("Traceback") else ended.stderr == err)


def test_warnings_and_streams_are_as_asked(either) -> None:
    text = "import sys, warnings; print('a'); sys.stdout.flush(); warnings.warn('so'); print('b')"
    assert either([sys.executable, "-W", "ignore", "-c", text], merged=True).stdout == "a\nb\n"
    ended = either([sys.executable, "-Werror", "-c", text], merged=True)
    assert ended.returncode == 1 and ended.stdout.startswith("a\nTraceback") and ended.stderr is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_a_program(number, fresh, tmp_path) -> None:
    program = fresh.start([sys.executable, "-c", "import time; print('on', flush=True); time.sleep(600)"], cwd=tmp_path)
    assert program.stdout.readline() == "on\n" and program.poll() is None
    assert os.getpgid(program.pid) == program.pid
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.05)
    program.send_signal(number)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, out, "KeyboardInterrupt" in err) == (-number, "", number == signal.SIGINT)


def test_nothing_is_left_of_a_program_that_is_closed(fresh) -> None:
    text = "import os, time; os.write(1, b'%d\\n' % os.fork()); time.sleep(600)"
    program = fresh.start([sys.executable, "-c", text])
    pids = {int(program.stdout.readline()) for _ in range(2)} - {0} | {program.pid}
    assert len(pids) == 2
    program.close()
    assert all(gone(pid) for pid in pids)


def test_a_sweep_has_a_server_of_its_own_that_ends_with_it(fresh, tmp_path) -> None:
    asked = ["train", "-m", "data=blobs", "detector=hbos", "seed=0,1", "callbacks=numbers", "hydra.sweep.dir=sweep"]
    text = (
        "from multiprocessing import forkserver; from straylight.cli import main; main()\n"
        "print('server', forkserver._forkserver._forkserver_pid, flush=True)"
    )
    before = time.monotonic()
    ended = fresh.run([sys.executable, "-c", text, *asked], cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list(tmp_path.glob("sweep/*/scores.parquet"))) == 2
    pid = int(ended.stdout.splitlines()[-1].removeprefix("server "))
    assert pid > 0 and time.monotonic() - before < 60
    assert gone(pid)


def test_the_command_by_its_name(fresh, tmp_path) -> None:
    ended = fresh.run(["straylight", "train", "data=blobs", "detector=vea"], cwd=tmp_path)
    assert ended.returncode == 1 and "\nError: " in ended.stderr and "'vae'" in ended.stderr
    assert fresh.run(["straylight", "--version"]).stdout.startswith("straylight ")
