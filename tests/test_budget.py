"""What a file says that it holds is compared with the file and with the machine before any of it is read."""

import gzip
import json
import re
import tracemalloc
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from straylight.data import File
from straylight.errors import ConfigError, DataError
from straylight.files import budget
from straylight.files.formats import open_file
from straylight.run import Run

N = 80
Y = (np.arange(N) % 8 == 0).astype(int)


def refused(path, **options):
    with pytest.raises(DataError) as error:
        File(path=str(path), **options).setup()
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and str(path) in said
    return said


def empty_hdf5(path, rows=2**33):
    with h5py.File(path, "w") as file:
        file.create_dataset("X", shape=(rows, 3), dtype="f4", chunks=(1024, 3))
        file.create_dataset("y", shape=(rows,), dtype="i1", chunks=(1024,))
    return path


def claiming_npz(path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 3), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 240)
    return path


@pytest.mark.parametrize(
    "make, name, options",
    [
        (empty_hdf5, "mine.h5", {"label": "y"}),
        (empty_hdf5, "mine.h5", {"features": "X"}),
        (empty_hdf5, "mine.h5", {"label": "y", "memory_mb": 0}),
        (claiming_npz, "mine.npz", {}),
    ],
)
def test_more_than_a_file_can_hold_is_refused_with_the_numbers(tmp_path, make, name, options):
    said = refused(make(tmp_path / name), **options)
    assert "does not hold" in said and re.search(r"[\d,]{7,} rows", said) and re.search(r"[GT]B", said)


@pytest.mark.parametrize("ending", [".npz", ".h5", ".parquet"])
def test_more_than_is_free_is_refused_with_the_numbers(tmp_path, ending, monkeypatch):
    x, path = np.random.default_rng(0).normal(size=(2000, 50)), tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, X=x)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file["X"] = x
    else:
        pq.write_table(pa.table({f"c{i}": x[:, i] for i in range(50)}), path)
    monkeypatch.setattr(budget, "SMALL", 1000)
    monkeypatch.setattr(budget, "free_memory", lambda: 300_000)
    said = refused(path)
    assert "300 kB are free in memory" in said and "2,000 rows of 50 numbers" in said
    if ending != ".npz":  # a copy of these is read where it lies
        monkeypatch.setattr(budget.shutil, "disk_usage", lambda folder: type("Disk", (), {"free": 50_000}))
        assert "50 kB are free on the disk" in refused(path, memory_mb=0)


def test_rows_that_are_nothing_in_the_file_and_much_in_memory_are_refused(tmp_path, monkeypatch):
    zeros = np.zeros(2**20, np.int8)
    pq.write_table(pa.table({"a": zeros, "y": zeros}), tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").stat().st_size < 20_000
    monkeypatch.setattr(budget, "free_memory", lambda: 90_000_000)
    assert "1,048,576 rows of 1 number (a)" in refused(tmp_path / "mine.parquet", label="y")


def test_what_a_container_holds_of_files_is_free(tmp_path, monkeypatch):
    for name, value in {"memory.max": 2**30, "memory.current": 2**30 - 2**20}.items():
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1000\ninactive_file {2**29}\nactive_file {2**20}\n")
    monkeypatch.setattr(budget, "GROUPS", ((tmp_path, "memory.max", "memory.current"),))
    assert budget.free_memory() == 2**20 + 2**29 + 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert budget.free_memory() > 2**30


def test_what_unpacks_to_more_than_is_free_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"0,0\n" * 2_000_000))
    monkeypatch.setattr(budget, "SMALL", 1000)
    monkeypatch.setattr(budget, "free_memory", lambda: 1_000_000)
    assert "unpacks to more than 1 MB" in refused(tmp_path / "mine.csv.gz", label="y")


def test_a_first_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("straylight.files.dialect.HEAD", 2**18)
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(b"a" * 2**21))
    assert "first line" in refused(tmp_path / "mine.csv.gz")
    (tmp_path / "long.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"1" * 2**24))
    assert "cannot be read" in refused(tmp_path / "long.csv.gz", label="y")


def wide_npz(path):
    np.savez_compressed(
        path, X=np.random.default_rng(0).normal(size=(N, 3)), y=Y, unused=np.zeros((5_000_000, 4), order="F")
    )
    return path


def wide_hdf5(path):
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = np.random.default_rng(0).normal(size=(N, 3)), Y
        file.create_dataset("unused", data=np.zeros((5_000_000, 4)), compression="gzip")
    return path


@pytest.mark.parametrize("make, name", [(wide_npz, "mine.npz"), (wide_hdf5, "mine.h5")])
def test_arrays_that_are_not_named_are_not_read(tmp_path, make, name):
    path = make(tmp_path / name)
    File(path=str(path), features="X", label="y").setup()  # what is imported
    tracemalloc.start()
    try:
        File(path=str(path), features="X", label="y").setup()
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_an_array_of_objects_that_is_not_named_is_no_matter(tmp_path):
    np.savez(
        tmp_path / "mine.npz", X=np.random.default_rng(0).normal(size=(N, 3)), y=Y, note=np.array([{}], dtype=object)
    )
    data = File(path=str(tmp_path / "mine.npz"), features="X", label="y")
    data.setup()
    assert data.shape == (3,)
    with pytest.raises(DataError):
        open_file(tmp_path / "mine.npz").table(["note"])


def test_names_of_a_hundred_thousand_columns_take_no_time_that_grows_with_their_square(tmp_path):
    names = [f"c{i}" for i in range(100_000)]
    (tmp_path / "mine.csv").write_text(",".join(names) + "\n" + ",".join("1" * 100_000) + "\n")
    source = open_file(tmp_path / "mine.csv")
    assert source.names == names and source.find("c99999") == ("c99999", None)


def test_a_shape_that_no_checkpoint_as_small_can_be_of_is_refused(sent):
    result = json.loads(sent.result.read_text())
    result.pop("digests", None)  # as whoever made it up would
    sent.result.write_text(json.dumps(result))
    sent.shape.write_text(json.dumps(json.loads(sent.shape.read_text()) | {"shape": [10**9]}))
    with pytest.raises(ConfigError, match="an event has 1,000,000,000 numbers"):
        Run.open(sent.path)
