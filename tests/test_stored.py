"""Files are fetched whole, with their checksum, or not at all, and what is missing is named with where to find it."""

from __future__ import annotations

import gc
import gzip
import hashlib
import logging
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from given import sentence
from straylight.data import ADBench, Remote, Stored
from straylight.data import adbench as adbench_page
from straylight.errors import DataError

# a response that broke off keeps its socket until it is collected, which is pooch's to close
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning"),
]
CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves what it is given; remembers what was asked for, and can hang up half-way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.half = False

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        if name not in self.server.content:
            self.send_error(404)
            return
        content = self.server.content[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.half else content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    gc.collect()  # here, so that no other test is warned


class Rows(Stored):
    """Needs every file of its remotes."""

    def __init__(self, remotes, **options):
        super().__init__(**options)
        self.remotes = remotes

    def files(self):
        return [self.root / remote.file for remote in self.remotes]

    def load(self):
        self.require()
        raise AssertionError("all files are there")


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def left(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []


@pytest.fixture
def plain(server, tmp_path):
    server.content["rows.bin"] = CONTENT
    return Rows([Remote(server.url("rows.bin"), "deep/rows.bin", sha256(CONTENT))], root=str(tmp_path / "new"))


def test_a_missing_file_is_fetched_once_and_told_in_one_line(plain, server, caplog):
    caplog.set_level(logging.DEBUG)
    (path,) = plain.fetch()
    assert path == plain.root / "deep" / "rows.bin" and path.read_bytes() == CONTENT
    assert left(plain.root) == [path] and not plain.missing()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith(("straylight", "pooch"))]
    assert str(path) in line and "1.0 MB" in line and server.url("rows.bin") in line
    assert plain.fetch() == [] and server.asked == ["rows.bin"]


def test_a_zipped_file_is_unpacked_under_its_own_name_and_kept_zipped_where_it_is_called_so(server, tmp_path):
    zipped = gzip.compress(CONTENT)
    server.content["rows.gz"] = zipped
    md5 = f"md5:{hashlib.md5(zipped).hexdigest()}"
    data = Rows([Remote(server.url("rows.gz"), name, md5) for name in ("rows", "rows.gz")], root=str(tmp_path))
    assert data.fetch() == [tmp_path / "rows", tmp_path / "rows.gz"]
    assert (tmp_path / "rows").read_bytes() == CONTENT and (tmp_path / "rows.gz").read_bytes() == zipped
    assert len(left(tmp_path)) == 2


def test_only_what_is_missing_is_fetched(server, tmp_path):
    server.content |= {"a": b"a", "b": b"b"}
    (tmp_path / "a").write_bytes(b"mine")
    data = Rows([Remote(server.url(name), name, sha256(name.encode())) for name in "ab"], root=str(tmp_path))
    assert data.fetch() == [tmp_path / "b"] and server.asked == ["b"] and (tmp_path / "a").read_bytes() == b"mine"


def test_setup_fetches_where_it_is_told_to_and_else_names_every_way(plain, server):
    with pytest.raises(DataError) as error:
        plain.setup() or plain.splits
    said = sentence(error)
    path = plain.root / "deep" / "rows.bin"
    for word in ("rows:", str(path), server.url("rows.bin"), "data.download=true", "`straylight data fetch rows`"):
        assert word in said
    assert "paths.data to the folder that holds new/" in said and "nor" not in said and server.asked == []
    plain.download = True
    with pytest.raises(AssertionError, match="all files are there"):
        plain.load()
    assert path.read_bytes() == CONTENT


def test_several_missing_files_are_one_sentence(tmp_path):
    data = Rows([Remote(f"http://localhost/{name}", name, "md5:0") for name in "abc"], root=str(tmp_path))
    with pytest.raises(DataError) as error:
        data.require()
    assert f"{tmp_path / 'a'}, nor 2 more;" in sentence(error)


@pytest.mark.parametrize("packed", [False, True])
def test_another_checksum_leaves_nothing(server, tmp_path, packed):
    url = server.url("rows.gz" if packed else "rows")
    server.content |= {"rows": CONTENT, "rows.gz": gzip.compress(CONTENT)}
    data = Rows([Remote(url, "rows", sha256(b"other"))], root=str(tmp_path), download=True)
    with pytest.raises(DataError) as error:
        data.load()
    said = sentence(error)
    assert "checksum" in said and sha256(b"other") in said and url in said and str(tmp_path) in said
    assert list(tmp_path.iterdir()) == []


def test_what_the_server_refuses_is_named_with_its_answer(server, tmp_path):
    data = Rows([Remote(server.url("gone"), "rows", sha256(CONTENT))], root=str(tmp_path), download=True)
    with pytest.raises(DataError) as error:
        data.load()
    said = sentence(error)
    assert "404 Not Found" in said and server.url("gone") in said and "rows" in said and f"into {tmp_path}" in said
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_gone_is_named(server, tmp_path):
    url = server.url("rows")
    server.shutdown()
    server.server_close()
    data = Rows([Remote(url, "rows", sha256(CONTENT))], root=str(tmp_path), download=True)
    with pytest.raises(DataError) as error:
        data.load()
    said = sentence(error)
    assert "ConnectionError" in said and url in said and f"into {tmp_path}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_connection_that_breaks_half_way_leaves_nothing_and_the_next_try_succeeds(server, tmp_path, packed):
    content = gzip.compress(np.random.default_rng(0).bytes(100_000)) if packed else CONTENT
    name = "rows.gz" if packed else "rows"
    server.content[name], server.half = content, True
    data = Rows([Remote(server.url(name), "rows", sha256(content))], root=str(tmp_path), download=True)
    with pytest.raises(DataError) as error:
        data.load()
    assert server.url(name) in sentence(error) and list(tmp_path.iterdir()) == []
    server.half = False
    assert data.fetch() == [tmp_path / "rows"]


def test_what_stops_a_fetch_leaves_nothing(plain, monkeypatch):
    import pooch

    def stopped(url, *, path, **options):
        (Path(path) / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch, "retrieve", stopped)
    with pytest.raises(KeyboardInterrupt):
        plain.fetch()
    assert left(plain.root) == []


@pytest.mark.parametrize("how", ["read-only", "a file in the way"])
def test_a_folder_that_cannot_be_written_is_named(plain, monkeypatch, how, server):
    if how == "a file in the way":
        plain.root.write_bytes(b"")
    else:  # a superuser may write anywhere, so that a mode would stop nobody

        def refused(self, *arguments, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(DataError) as error:
        plain.fetch()
    said = sentence(error)
    assert str(plain.root / "deep") in said and "rows.bin" in said and "paths.data" in said and server.asked == []
    assert how != "read-only" or "Permission denied" in said


@pytest.mark.parametrize("download", [False, True])
def test_a_file_without_a_checksum_is_never_fetched(server, tmp_path, download):
    server.content |= {"bare": b"bare", "known": b"known"}
    remotes = [Remote(server.url("bare"), "bare", None), Remote(server.url("known"), "known", sha256(b"known"))]
    data = Rows(remotes, root=str(tmp_path), download=download)
    with pytest.raises(DataError) as error:
        data.load()
    said = sentence(error)
    assert f"download {server.url('bare')} by hand into that folder" in said and str(tmp_path / "bare") in said
    assert "data.download" not in said
    assert server.asked == (["known"] if download else [])


def test_adbench_fetches_the_data_set_it_is_asked_for(server, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "made.npz", X=rng.normal(size=(80, 3)), y=np.arange(80) % 4 == 0)
    content = (tmp_path / "made.npz").read_bytes()
    server.content["6_cardio.npz"] = content
    monkeypatch.setattr(adbench_page, "SOURCE", server.url(""))
    monkeypatch.setattr(adbench_page, "_sums", lambda: {"6_cardio.npz": sha256(content).removeprefix("sha256:")})
    data = ADBench(name="cardio", root=str(tmp_path / "new"), download=True)
    data.setup()
    assert data.shape == (3,) and left(tmp_path / "new") == [tmp_path / "new" / "6_cardio.npz"]


def test_adbench_says_how_to_fetch_a_data_set_it_knows(tmp_path):
    with pytest.raises(DataError) as error:
        ADBench(name="cardio", root=str(tmp_path)).splits  # noqa: B018
    said = sentence(error)
    assert "`straylight data fetch adbench data.name=6_cardio`" in said and "/adbench/datasets/Classical/6_ca" in said


def test_adbench_knows_the_checksums_of_the_files_beside_the_checkout(shared):
    for file, digest in adbench_page._sums().items():
        path = shared / "adbench" / file
        assert not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert len(adbench_page._sums()) == 31
