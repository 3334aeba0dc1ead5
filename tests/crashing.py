"""A detector that ends its process in one way or another, for tests of sweeps; and what is left of such processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

SOURCE = """
import ctypes, os, signal, sys, time
from pathlib import Path
from straylight.detectors import HBOS

used = []  # by earlier jobs of this process

class Crash(HBOS):
    def __init__(self, shape, how="raise", **common):
        super().__init__(shape, **common)
        self.how = how

    def on_fit_start(self):
        super().on_fit_start()
        with open(f"pids.{self.how}", "a") as file:
            print(os.getpid(), file=file)
        used.append(self.how)
        match self.how:
            case "raise": raise RuntimeError("it broke")
            case "exit": os._exit(7)
            case "sys.exit": sys.exit(3)
            case "interrupt": raise KeyboardInterrupt
            case "kill": os.kill(os.getpid(), signal.SIGKILL)
            case "segfault": ctypes.string_at(0)
            case "hang":
                Path(f"hanging.{os.getpid()}").touch()
                if os.fork() == 0:  # a worker of its own
                    time.sleep(600)
                time.sleep(600)
            case "stubborn":
                Path(f"hanging.{os.getpid()}").touch()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                time.sleep(600)
            case "once":
                if not Path("tried").exists():
                    Path("tried").touch()
                    os._exit(9)
            case "first":
                if len(used) > 1: raise RuntimeError(f"others were here: {used}")
            case "untidy":
                import torch, warnings
                torch.set_default_dtype(torch.float64)
                torch.use_deterministic_algorithms(True)
                torch.set_num_threads(2)
                warnings.simplefilter("ignore")
                os.environ["LEFT"] = "behind"
                os.chdir("/")
            case "tidy":
                import torch
                assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() == 1
                assert not torch.are_deterministic_algorithms_enabled() and "LEFT" not in os.environ
                Path("tidy").touch()
"""
YAML = "_target_: crashing_detector.Crash\nhow: none\n"


def make(folder: Path) -> str:
    """Bring `detector=crash detector.how=HOW` to a folder; the argument that makes it known."""
    (folder / "crashing_detector.py").write_text(SOURCE)
    (folder / "own" / "detector").mkdir(parents=True)
    (folder / "own" / "detector" / "crash.yaml").write_text(YAML)
    return f"--config-dir={folder}/own"


def by_override(ended, key: str) -> dict[str, dict]:
    """Results by the value of one override."""
    return {
        next(o.partition("=")[2] for o in result["overrides"] if o.startswith(f"{key}=")): result
        for result in ended.results
    }


def pids(how: str) -> list[int]:
    """The processes in which jobs of that kind were, one for every attempt."""
    return [int(line) for line in Path(f"pids.{how}").read_text().split()]


def hanging() -> list[int]:
    """Processes of jobs that hang, by the files that they left here."""
    pids = [int(path.suffix[1:]) for path in Path.cwd().glob("hanging.*")]
    assert pids
    time.sleep(0.5)
    groups = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) in pids:
                groups.append(process.pid)
        except (psutil.Error, ProcessLookupError):
            continue
    return groups
