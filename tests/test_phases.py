"""One line that says what is done now, and leaves alone what others print."""

import io
import os
import pty
import subprocess
import sys

import pytest

from straylight.phases import CLEAR, Phases


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text: str) -> list[str]:
    """What stands on a terminal that got a text: lines, the last of them the one that is written in."""
    lines = [""]
    for part in text.replace(CLEAR, "\r\r").replace("\r\n", "\n").split("\n"):
        lines[-1] = (lines[-1] + part).rpartition("\r\r")[2]
        lines.append("")
    return lines[:-1]


def on(monkeypatch) -> Terminal:
    """Standard output and error are one terminal; in the test itself, before which pytest puts its own there."""
    shared = Terminal()
    monkeypatch.setattr(sys, "stdout", shared)
    monkeypatch.setattr(sys, "stderr", shared)
    return shared


def test_elsewhere_every_phase_is_a_line_and_said_once():
    out = io.StringIO()
    phases = Phases(out)
    for text in ("reading", "reading", "testing"):
        phases(text)
    phases.keep("epoch 3/3")
    phases.done()
    assert out.getvalue().splitlines() == ["reading", "testing", "epoch 3/3"] and not phases.live


def test_in_a_monkeypatch_one_line_is_written_over_and_goes(monkeypatch):
    terminal = on(monkeypatch)
    phases = Phases()
    phases("reading")
    phases("testing")
    assert screen(terminal.getvalue()) == ["testing"]
    phases.done()
    assert screen(terminal.getvalue()) == [""]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_others_print_stands_above_it_and_whole(stream, monkeypatch):
    terminal = on(monkeypatch)
    phases = Phases()
    phases("reading")
    print("a notice", file=getattr(sys, stream))
    assert screen(terminal.getvalue()) == ["a notice", "reading"]
    print("half", end="", file=getattr(sys, stream))  # as a prompt does
    phases("testing")
    assert screen(terminal.getvalue()) == ["a notice", "half"]
    print(" a line", file=getattr(sys, stream))
    assert screen(terminal.getvalue()) == ["a notice", "half a line", "testing"]
    phases.done()
    assert screen(terminal.getvalue()) == ["a notice", "half a line", ""]


def test_the_streams_are_as_they_were_when_all_is_done(monkeypatch):
    terminal = on(monkeypatch)
    phases = Phases()
    phases("reading")
    held = sys.stdout  # as the handlers of a log hold it
    phases.done()
    assert sys.stdout is sys.stderr is terminal
    print("late", file=held)
    assert screen(terminal.getvalue()) == ["late", ""]


def test_a_line_that_stays_is_followed_by_no_older_one(monkeypatch):
    terminal = on(monkeypatch)
    phases = Phases()
    phases("epoch 2/3")
    phases.keep("epoch 3/3")
    print("done")
    assert screen(terminal.getvalue()) == ["epoch 3/3", "done", ""]


def test_how_long_it_stands_is_said_after_a_while(monkeypatch):
    terminal = on(monkeypatch)
    now = [0.0]
    phases = Phases(clock=lambda: now[0])
    phases("reading")
    now[0] = 5.0
    phases._draw()
    assert screen(terminal.getvalue()) == ["reading  5 s"]
    phases.done()


def test_what_moves_a_cursor_is_shown_and_not_sent(monkeypatch):
    terminal = on(monkeypatch)
    phases = Phases()
    phases("reading \x1b[2J")
    assert "\x1b[2J" not in terminal.getvalue().replace(CLEAR, "")
    phases.done()


@pytest.mark.slow
def test_the_first_line_comes_before_anything_heavy_is_imported():
    parent, child = pty.openpty()
    command = [sys.executable, "-X", "importtime", "-m", "straylight", "train", "detector=vea"]
    with subprocess.Popen(command, stdout=child, stderr=child, close_fds=True) as process:
        os.close(child)
        said = b""
        while chunk := _read(parent):
            said += chunk
        process.wait()
    os.close(parent)
    text = said.decode()
    before = text[: text.index("starting detector=vea")]
    assert not {name for name in ("torch", "hydra", "omegaconf", "numpy", "rich") if f" {name}\r\n" in before}
    assert process.returncode == 1 and text.rstrip().splitlines()[-1] and "did you mean 'vae'" in text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # its other end is closed
        return b""
