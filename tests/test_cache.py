"""What is made of a file is made once, whole or not at all, and made anew when the file says something else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from straylight.errors import DataError
from straylight.files import cache
from straylight.files.cache import STAMP, converted, sha256


class Making:
    """Copies the file in capitals, and counts how often."""

    def __init__(self, source: Path):
        self.source, self.times = source, 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "made").write_bytes(self.source.read_bytes().upper())


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.delenv("STRAYLIGHT_CACHE", raising=False)
    path = tmp_path / "data" / "rows.csv"
    path.parent.mkdir()
    path.write_bytes(b"a,b")
    return path


def left(source):
    """What stands beside the file, but for the locks."""
    return [path.name for path in (source.parent / ".straylight").iterdir() if path.suffix != ".lock"]


def made(source, make, recipe="copy-1"):
    return (converted(source, recipe, make) / "made").read_bytes()


def test_a_file_is_converted_once_beside_it(source):
    make = Making(source)
    assert [made(source, make) for _ in range(3)] == [b"A,B"] * 3 and make.times == 1
    folder = converted(source, "copy-1", make)
    assert folder == source.parent / ".straylight" / "rows.csv.copy-1"
    assert {path.name for path in folder.iterdir()} == {"made", STAMP}
    assert left(source) == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_another_recipe_or_another_file_is_converted_for_itself(source):
    make, other = Making(source), source.with_name("more.csv")
    other.write_bytes(b"c")
    assert made(source, make) == made(source, make, "copy-2") == b"A,B" and make.times == 2
    assert made(other, Making(other)) == b"C" and made(source, make) == b"A,B"


@pytest.mark.parametrize("content", [b"a,b,c", b"x,y"], ids=["another size", "the same size"])
def test_a_file_that_has_changed_is_converted_again(source, content):
    make = Making(source)
    made(source, make)
    source.write_bytes(content)
    os.utime(source, ns=(0, 10**18))
    assert made(source, make) == content.upper() and make.times == 2
    assert made(source, make) == content.upper() and make.times == 2
    assert len(left(source)) == 1  # what was made before is gone


def test_a_file_that_was_only_touched_is_not_converted_again_and_looked_through_once(source, monkeypatch):
    make, looked = Making(source), []
    folder = converted(source, "copy-1", make)
    monkeypatch.setattr(cache, "sha256", lambda path: looked.append(path) or sha256(path))
    os.utime(source, ns=(0, 10**18))
    for _ in range(3):
        assert made(source, make) == b"A,B"
    assert make.times == 1 and len(looked) == 1
    stamp = json.loads((folder / STAMP).read_text())
    assert stamp["mtime_ns"] == 10**18 and stamp["sha256"] == sha256(source) and stamp["size"] == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_conversion_leaves_nothing_and_is_begun_again(source, error):
    def half(folder):
        (folder / "made").write_bytes(b"A")
        raise error("in the middle")

    with pytest.raises(error):
        converted(source, "copy-1", half)
    assert not left(source)
    assert made(source, Making(source)) == b"A,B"


def test_an_interrupted_conversion_of_a_changed_file_does_not_serve_the_old_one(source):
    made(source, Making(source))
    source.write_bytes(b"new")
    os.utime(source, ns=(0, 10**18))
    with pytest.raises(KeyboardInterrupt):
        converted(source, "copy-1", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
    assert made(source, Making(source)) == b"NEW"


def test_a_full_disk_is_said_in_one_sentence(source):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder / "made"))

    with pytest.raises(DataError, match="No space left on device") as error:
        converted(source, "copy-1", full)
    assert "\n" not in str(error.value) and str(source) in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"{}", b'{"size": 3}', None])
def test_a_damaged_stamp_is_not_believed(source, damage):
    make = Making(source)
    folder = converted(source, "copy-1", make)
    (folder / STAMP).unlink() if damage is None else (folder / STAMP).write_bytes(damage)
    assert made(source, make) == b"A,B" and make.times == 2
    assert made(source, make) == b"A,B" and make.times == 2


@pytest.mark.parametrize("damage", ["null", "[]", "3", '"text"'])
def test_a_stamp_that_holds_something_else_is_not_believed(source, damage):
    make = Making(source)
    (converted(source, "copy-1", make) / STAMP).write_text(damage)
    assert made(source, make) == b"A,B" and make.times == 2


def test_a_file_that_changes_while_it_is_converted_is_converted_again(source):
    def meanwhile(folder):
        Making(source)(folder)
        source.write_bytes(b"x,y")
        os.utime(source, ns=(0, 10**18))

    with pytest.raises(DataError, match="changed while it was being converted"):
        converted(source, "copy-1", meanwhile)
    assert made(source, Making(source)) == b"X,Y"


def test_what_a_killed_process_had_put_aside_is_in_nobody_s_way(source):
    made(source, Making(source))
    aside = source.parent / ".straylight" / ".rows.csv.copy-1.old"
    shutil.copytree(source.parent / ".straylight" / "rows.csv.copy-1", aside)
    source.write_bytes(b"new")
    assert made(source, Making(source)) == b"NEW"


# where


def closed(folder, monkeypatch):
    """Let the folder be one that cannot be written to, which for root none is."""
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not (mode == os.W_OK and Path(path).is_relative_to(folder)) and access(path, mode),
    )


def test_a_folder_that_cannot_be_written_to_is_left_for_the_user_s(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    closed(source.parent, monkeypatch)
    make = Making(source)
    folder = converted(source, "copy-1", make)
    assert folder.is_relative_to(tmp_path / "home" / "straylight")
    assert (made(source, make), make.times) == (b"A,B", 1)
    assert [path.name for path in source.parent.iterdir()] == ["rows.csv"]


def test_the_environment_says_where(source, tmp_path, monkeypatch):
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "chosen"))
    other = tmp_path / "elsewhere" / source.name
    other.parent.mkdir()
    other.write_bytes(b"other")
    one, two = Making(source), Making(other)
    assert (made(source, one), made(other, two), made(source, one)) == (b"A,B", b"OTHER", b"A,B")  # not each other's
    assert (one.times, two.times) == (1, 1)
    assert len(list((tmp_path / "chosen").rglob("made"))) == 2
    assert not (source.parent / ".straylight").exists()


def test_where_nothing_can_be_written_is_said_with_the_way_out(source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="STRAYLIGHT_CACHE") as error:
        converted(source, "copy-1", Making(source))
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and str(source) in said


def test_a_source_that_is_gone_is_an_error(source):
    source.unlink()
    with pytest.raises((OSError, DataError)):
        converted(source, "copy-1", Making(source))
    assert not left(source)


# two at once


def test_threads_at_once_convert_once(source):
    make, found = Making(source), []

    def slow(folder):
        time.sleep(0.1)
        make(folder)

    threads = [threading.Thread(target=lambda: found.append(made(source, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [b"A,B"] * 4 and make.times == 1 and left(source) == ["rows.csv.copy-1"]


def test_the_place_is_the_same_while_another_makes_its_folder(source, monkeypatch):
    access = os.access

    def meanwhile(path, mode):
        answer = access(path, mode)
        (source.parent / ".straylight").mkdir(exist_ok=True)
        return answer

    monkeypatch.setattr(os, "access", meanwhile)
    assert converted(source, "copy-1", Making(source)).parent == source.parent / ".straylight"


CONVERT = """
import runpy, sys, time
from pathlib import Path
converted = runpy.run_path(sys.argv[1])["converted"]  # without all that the package imports
source = Path(sys.argv[2])
def make(folder):
    with source.with_name("began").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    (folder / "made").write_bytes(source.read_bytes().upper())
print((converted(source, "copy-1", make) / "made").read_bytes().decode())
"""


def test_processes_at_once_leave_one_good_folder(source):
    began = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, cache.__file__, str(source)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in began] == ["A,B"] * 2
    assert left(source) == ["rows.csv.copy-1"]
    again = Making(source)
    assert made(source, again) == b"A,B" and again.times == 0
