"""Kill runs, change their files and fill their disk, many times at random: how often does it go wrong?

    python tests/trials.py kill --tries 60
    python tests/trials.py change --tries 400
    python tests/trials.py full --tries 40

Each prints what went wrong, and in its last line how many tries there were and how many of them failed. `docs/trust.md`
says what came of it. They take minutes, and are no part of the test suite, which tries the same kinds of things less.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from fresh import Programs
from straylight.commands.report import main as report
from straylight.errors import StraylightError
from straylight.folder import RunFolder, SweepFolder
from straylight.run import Run

RUN = ["data=blobs", "detector=vae", "data.batch_size=16", "data.group=2", "callbacks=numbers"]
RUN += ["callbacks.latency.budget_s=0.01"]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_S = 60.0


def straylight(programs: Programs, *arguments: str, cwd: Path):
    return programs.start([sys.executable, "-W", "ignore", "-m", "straylight", *arguments], cwd=cwd, merged=True)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return torch.load(folder.checkpoint("last"), weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Trial:
    """What is tried, and how often it went wrong."""

    def __init__(self, kind: str) -> None:
        self.kind, self.tries, self.wrong, self.seen = kind, 0, 0, Counter()

    def ended(self, wrong: str | None, how: str) -> None:
        self.tries += 1
        self.seen[how] += 1
        if wrong is not None:
            self.wrong += 1
            print(f"{self.kind}, {how}: {wrong}", flush=True)

    def conclude(self) -> int:
        print(", ".join(f"{count} {how}" for how, count in sorted(self.seen.items())))
        print(f"{self.kind}: {self.tries} tries, {self.wrong} failures")
        return int(self.wrong > 0)


def kill(place: Path, tries: int, draw: random.Random) -> int:
    """Signals at random times, up to three in a row; what is resumed in the end has an uninterrupted run's weights."""
    trial, programs = Trial("kill"), Programs()
    start = time.monotonic()
    whole, long = RunFolder(place / "whole"), [*RUN, "trainer.max_epochs=60"]
    straylight(programs, "train", *long, f"hydra.run.dir={whole}", cwd=place).communicate(LONGEST_S * 5)
    lasts, expected = time.monotonic() - start, weights(whole)
    while trial.tries < tries:
        folder = RunFolder(place / str(trial.tries))
        command = ["train", *long, f"hydra.run.dir={folder}"]
        how = []
        for _ in range(draw.randint(1, 3)):
            program = straylight(programs, *command, cwd=place)
            time.sleep(draw.uniform(0, lasts))
            number = draw.choice(SIGNALS)
            program.send_signal(number)
            how.append(number.name)
            said = program.communicate(LONGEST_S)[0]
            if folder.config.is_file():
                command = ["train", f"resume={folder}"]
            if "Traceback" in said:
                break
        wrong = f"a traceback: {said[-1500:]}" if "Traceback" in said else None
        last = straylight(programs, *command, cwd=place)
        said = last.communicate(LONGEST_S * 2)[0]
        result = folder.read() or {}
        if wrong is None and (last.returncode or result.get("status") != "ok"):
            wrong = f"status {last.returncode}, {result.get('status')}: {said[-300:]}"
        elif wrong is None and not same(weights(folder), expected):
            wrong = "other weights"
        trial.ended(wrong, draw.choice(how))
        shutil.rmtree(folder.path, ignore_errors=True)
    return trial.conclude()


def changed(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A file cut or changed in one of several ways."""
    how, place = draw.choice(["cut", "bit", "byte", "zeros", "line", "text"]), draw.randrange(max(1, len(data)))
    match how:
        case "cut":
            return how, data[:place]
        case "bit":
            return how, data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
        case "byte":
            return how, data[:place] + draw.randbytes(1) + data[place + 1 :]
        case "zeros":
            return how, data[:place] + bytes(min(512, len(data) - place)) + data[place + 512 :]
        case "line":
            lines = data.split(b"\n")
            del lines[draw.randrange(len(lines))]
            return how, b"\n".join(lines)
    word = draw.choice([b"null", b"[]", b"{}", b"-1", b"1e999", b'"x"', b"true", b"[" * 5000, b"\xff"])
    return how, data[:place] + word + data[place + draw.randrange(8) :]


def tried(run: RunFolder, top: Path) -> str | None:
    """Open, score, judge and report; what went wrong that is no sentence."""
    start = time.monotonic()
    rows = np.zeros((3, 2), np.float32)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            with suppress(StraylightError):
                opened = Run.open(run.path)
                opened.score(rows)
                opened.p_values(rows)
                opened.flag(rows)
            for folder in (run.path, top):
                with suppress(SystemExit, StraylightError):
                    report([str(folder)])
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    lasted = time.monotonic() - start
    return f"it took {lasted:.0f} s" if lasted > LONGEST_S else None


def change(place: Path, tries: int, draw: random.Random) -> int:
    """Every file of a sweep cut or changed at random; nothing but sentences comes of it."""
    trial, programs = Trial("change"), Programs()
    sweep, kept = place / "sweep", place / "kept"
    swept = [*RUN[:1], "detector=vae,hbos", *RUN[2:], "trainer.max_epochs=2", f"hydra.sweep.dir={sweep}"]
    straylight(programs, "train", "-m", *swept, cwd=place).communicate(LONGEST_S * 5)
    shutil.copytree(sweep, kept)
    files = sorted(path for path in sweep.rglob("*") if path.is_file() and path.suffix not in (".log", ".png"))
    for number in range(tries):
        path = files[number % len(files)]
        how, data = changed(path.read_bytes(), draw)
        path.write_bytes(data)
        run = next((run for run in SweepFolder(sweep).runs() if path.is_relative_to(run.path)), None)
        wrong = tried(run or RunFolder(sweep / "0"), sweep)
        if wrong is None and path.suffix in (".yaml", ".json", ".ckpt"):
            for command in ([f"resume={sweep / '0'}", "trainer.max_epochs=3"], ["-m", f"resume={sweep}"]):
                said = straylight(programs, "train", *command, cwd=place).communicate(LONGEST_S)[0]
                wrong = wrong or (f"a traceback when resumed: {said[-300:]}" if "Traceback" in said else None)
        shutil.rmtree(sweep)
        shutil.copytree(kept, sweep)
        trial.ended(wrong and f"{path.relative_to(sweep)}: {wrong}", how)
    return trial.conclude()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
from straylight.cli import main
sys.argv = ["straylight", *{arguments}]
main()
"""


def full(place: Path, tries: int, draw: random.Random) -> int:
    """No file may grow beyond a random size: one sentence, nothing half written, and with room it comes to the same."""
    trial, programs = Trial("full"), Programs()
    whole = RunFolder(place / "whole")
    short = [*RUN, "trainer.max_epochs=4"]
    straylight(programs, "train", *short, f"hydra.run.dir={whole}", cwd=place).communicate(LONGEST_S * 5)
    expected = weights(whole)
    largest = max(path.stat().st_size for path in whole.path.rglob("*") if path.is_file())
    for number in range(tries):
        folder = RunFolder(place / str(number))
        command = ["train", *short, f"hydra.run.dir={folder}"]
        code = LIMITED.format(size=draw.randrange(largest), arguments=command)
        limited = programs.start([sys.executable, "-W", "ignore", "-c", code], cwd=place, merged=True)
        said = limited.communicate(LONGEST_S)[0]
        halves = [path.name for path in folder.path.rglob(".*") if path.suffix]
        wrong = f"a traceback: {said[-1500:]}" if "Traceback" in said else f"half written: {halves}" if halves else None
        begun = folder.config.is_file() and folder.hydra.is_file()
        again = ["train", f"resume={folder}"] if begun else command
        program = straylight(programs, *again, cwd=place)
        end = program.communicate(LONGEST_S * 2)[0]
        if wrong is None and (program.returncode or not same(weights(folder), expected)):
            wrong = f"not the same with room again: {end[-300:]}"
        trial.ended(wrong, "filled" if "no room" in said else "fitted")
    return trial.conclude()


COMMANDS: dict[str, Callable[[Path, int, random.Random], int]] = {"kill": kill, "change": change, "full": full}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        return COMMANDS[given.what](Path(place), given.tries, random.Random(given.seed))


if __name__ == "__main__":
    sys.exit(main())
