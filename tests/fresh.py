"""Commands and programs in processes of their own, forked from the server that jobs are forked from.

To a test such a process is one of `subprocess`, but for the 10 seconds of imports: what the server has imported is
there already. Its arguments, folder, environment, search path, standard streams, signals and process group are its
own, its `__main__` is empty, and it ends as the interpreter does. torch has one thread in it, as with
OMP_NUM_THREADS=1. A server that it starts for jobs of its own is forked from it, too. A test of what is imported
takes `subprocess`.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import functools
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, process, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1  # of Linux: be told when the parent ends


def server() -> Any:
    """The context of the server, which imports while we go on."""
    from straylight.engines.local import pool

    pool.warm()
    return pool.SERVER


class Program:
    """A process like `subprocess.Popen(arguments, stdout=PIPE, stderr=PIPE, text=True)`.

    Args:
        arguments: `straylight ...`, or an interpreter (`sys.executable`) with `-c TEXT`, `-m MODULE` or a script.
        cwd: the folder it runs in; this one.
        env: the whole of its environment; a copy of ours.
        merged: what it says on standard error comes with the rest.
        silent: what it says is lost.
    """

    stdin = None

    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        merged: bool = False,
        silent: bool = False,
    ) -> None:
        context = server()
        self.args = [os.fspath(a) for a in arguments]
        self.stdout, out = (None, None) if silent else _pipe(context)
        self.stderr, err = (None, None) if silent or merged else _pipe(context)
        given = (self.args, _search_path(), os.fspath(cwd or Path.cwd()), dict(os.environ if env is None else env))
        begun, begin = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(*given, begin, out, err), daemon=False)
        self._process.start()
        self.pid: int = self._process.pid
        for end in filter(None, (begin, out, err)):
            end.close()
        with begun, suppress(EOFError):
            begun.recv_bytes()  # from here on its signals and its group are its own

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """All that it says until its end."""
        said: list[str | None] = [None, None]

        def read(number: int, stream: Any) -> None:
            said[number] = stream.read()

        streams = [(n, stream) for n, stream in enumerate((self.stdout, self.stderr)) if stream is not None]
        readers = [threading.Thread(target=read, args=one, daemon=True) for one in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return said[0] or "", said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it with all of its group, whether or not it has ended itself."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        for stream in filter(None, (self.stdout, self.stderr)):
            with suppress(OSError):
                stream.close()


class Programs:
    """Those of one test, or of one fixture, which are ended with it."""

    def __init__(self) -> None:
        self.started: list[Program] = []

    def start(self, arguments: Sequence[Any], **options: Any) -> Program:
        """A process that runs: see `Program`."""
        self.started.append(Program(arguments, **options))
        return self.started[-1]

    def run(
        self, arguments: Sequence[Any], *, timeout: float | None = 600, check: bool = False, **options: Any
    ) -> subprocess.CompletedProcess:
        """As `subprocess.run(arguments, capture_output=True, text=True)`."""
        program = self.start(arguments, **options)
        out, err = program.communicate(timeout)
        ended = subprocess.CompletedProcess(program.args, program.wait(), out, err)
        if check:
            ended.check_returncode()
        return ended

    def close(self) -> None:
        for program in self.started:
            program.close()


def _pipe(context: Any) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe(duplex=False)
    with ours:
        return os.fdopen(os.dup(ours.fileno()), encoding="utf-8", errors="replace"), theirs


@functools.cache
def _search_path() -> list[str]:
    """Of a new interpreter, without what is said by PYTHONPATH and by how it is started."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import sys; print(*sys.path[1:], sep='\\n')"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


# in the process itself


def _child(
    arguments: list[str],
    path: list[str],
    cwd: str,
    env: dict[str, str],
    begin: Connection,
    out: Connection | None,
    err: Connection | None,
) -> NoReturn:
    os.setpgid(0, 0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _take_signals_as_at_first()
    with begin:
        begin.send_bytes(b"")
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    with Path(os.devnull).open("w") if out is None else out as to:
        os.dup2(to.fileno(), 1)
        os.dup2((err or to).fileno(), 2)
    if err is not None:
        err.close()
    unbuffered = bool(env.get("PYTHONUNBUFFERED"))
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stdout.reconfigure(write_through=unbuffered)
    sys.stderr.reconfigure(line_buffering=True, write_through=unbuffered)
    _be_nobodys_child()
    _keep_a_server()
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.modules.pop("__mp_main__", None)
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    _end(arguments, main)


def _take_signals_as_at_first() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _be_nobodys_child() -> None:
    """Forget what `multiprocessing` knows of how this process came to be."""
    process._parent_process = None
    main = process.current_process()
    main._name, main._identity, main._parent_name, main._parent_pid = "MainProcess", (), None, None
    os.close(forkserver._forkserver._forkserver_alive_fd)
    forkserver._forkserver.__init__()
    multiprocessing.set_start_method(None, force=True)


def _keep_a_server() -> None:
    """A process forked from this one as it is at first, which becomes the fork server that the program starts."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        message, descriptors, *_ = socket.recv_fds(theirs, 2**16, 2)
        theirs.close()
        if message:
            forkserver.main(*descriptors, pickle.loads(message))
        os._exit(0)
    theirs.close()
    start = util.spawnv_passfds

    def started(executable: Any, arguments: list[str], descriptors: Sequence[int]) -> int:
        if not arguments[-1].startswith("from multiprocessing.forkserver import main"):
            return start(executable, arguments, descriptors)
        socket.send_fds(ours, [pickle.dumps(forkserver._forkserver._preload_modules)], list(descriptors))
        return pid

    util.spawnv_passfds = started


def _end(arguments: list[str], main: types.ModuleType) -> NoReturn:
    """Run the program and end as the interpreter does."""
    status, interrupted = 0, False
    try:
        _run(arguments, main)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        status, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # which waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def _run(arguments: list[str], main: types.ModuleType) -> None:
    program, *rest = arguments
    if Path(program).name == "straylight":
        sys.argv = arguments
        sys.path.insert(0, str(Path(program).parent))
        from straylight.cli import main as command

        sys.exit(command())
    while rest and rest[0].startswith("-"):
        option, *rest = rest
        match option[:2]:
            case "-W":
                said = option[2:] or rest.pop(0)
                sys.warnoptions.append(said)
                warnings._processoptions([said])
            case "-X":  # how it imports
                rest = rest if option[2:] else rest[1:]
            case "-c":
                text, *rest = rest
                sys.argv = ["-c", *rest]
                sys.path.insert(0, "")
                exec(compile(text, "<string>", "exec"), main.__dict__)
                return
            case "-m":
                sys.argv = rest
                sys.path.insert(0, str(Path.cwd()))
                runpy._run_module_as_main(rest[0])
                return
            case _:
                raise ValueError(f"no such option of a program here: {option}")
    sys.argv = rest
    sys.path.insert(0, str(Path(rest[0]).absolute().parent))
    main.__file__ = rest[0]
    exec(compile(Path(rest[0]).read_text(), rest[0], "exec"), main.__dict__)
