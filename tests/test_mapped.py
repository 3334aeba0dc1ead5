"""Rows on disk are what indexing a tensor of all of them would give, whatever the sources and the order."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from straylight.rows.mapped import Mapped

few = settings(deadline=None, max_examples=80)
DTYPES = [torch.float16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
SHAPES = [(2,), (1,), (2, 1, 3)]


@st.composite
def sources(draw, shape=None):
    """Tensors of several lengths and types, whose values tell the rows apart, one event's shape for all."""
    shape = draw(st.sampled_from(SHAPES)) if shape is None else shape
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    found, start = [], 0
    for n in lengths:
        size = n * int(np.prod(shape))
        found.append(torch.arange(start, start + size).reshape(n, *shape).to(draw(st.sampled_from(DTYPES))))
        start = (start + size) % 100  # small enough for a byte
    return found


def whole(parts):
    return torch.cat([part.to(torch.float32) for part in parts])


def positions(n):
    return st.lists(st.integers(0, n - 1), max_size=30) if n else st.just([])


def selected(rows, at):
    return rows.index_select(0, torch.tensor(at, dtype=torch.int64))


def same(rows, expected):
    assert rows.dtype == torch.float32 and rows.shape == expected.shape and torch.equal(rows, expected)


# in memory


@few
@given(sources(), st.data())
def test_rows_at_any_positions_are_those_of_the_tensor_of_all(parts, data):
    rows, plain = Mapped(parts), whole(parts)
    assert (len(rows), rows.shape, rows.ndim, rows.nbytes) == (len(plain), plain.shape, plain.ndim, plain.nbytes)
    at = data.draw(positions(len(plain)))
    same(rows.index_select(0, torch.tensor(at, dtype=torch.int64)), selected(plain, at))
    same(rows.take(at).to("cpu"), selected(plain, at))
    same(rows.to("cpu"), plain)


@few
@given(sources(), st.data())
def test_slices_are_those_of_the_tensor_of_all(parts, data):
    rows, plain = Mapped(parts), whole(parts)
    at = data.draw(positions(len(plain)))
    ends = st.none() | st.integers(-40, 40)
    part = slice(data.draw(ends), data.draw(ends), data.draw(st.none() | st.integers(1, 5)))
    same(rows[part], plain[part])
    same(rows.take(at)[part], selected(plain, at)[part])


@few
@given(sources(), st.data())
def test_taking_twice_is_taking_from_what_was_taken(parts, data):
    plain = whole(parts)
    first = data.draw(positions(len(plain)))
    second = data.draw(positions(len(first)))
    rows = Mapped(parts).take(np.array(first, dtype=np.int64)).take(np.array(second, dtype=np.int64))
    same(rows[:], selected(selected(plain, first), second))
    assert rows.places().tolist() == [first[i] for i in second]


@few
@given(sources(), st.integers(1, 50))
def test_a_split_is_that_of_a_tensor_and_holds_every_row(parts, size):
    plain = whole(parts)
    chunks = list(Mapped(parts).split(size))
    assert [len(chunk) for chunk in chunks] == [len(chunk) for chunk in plain.split(size) if len(chunk)]
    same(torch.cat([plain[:0], *chunks]), plain)


@few
@given(st.lists(sources((2,)), min_size=1, max_size=4), st.data())
def test_joined_rows_follow_each_other_whether_in_memory_or_not(groups, data):
    parts, expected = [], []
    for group in groups:
        plain, kind = whole(group), data.draw(st.sampled_from(["tensor", "mapped", "taken"]))
        at = data.draw(positions(len(plain)))
        parts.append({"tensor": plain, "mapped": Mapped(group), "taken": Mapped(group).take(at)}[kind])
        expected.append(selected(plain, at) if kind == "taken" else plain)
    rows, plain = Mapped.cat(parts), torch.cat(expected)
    same(rows[:], plain)
    at = data.draw(positions(len(plain)))
    same(rows.take(at)[:], selected(plain, at))
    same(Mapped.cat([rows, rows.take(at)])[:], torch.cat([plain, selected(plain, at)]))


@few
@given(sources(), st.data())
def test_what_is_done_with_rows_is_done_whenever_they_are_read(parts, data):
    plain = whole(parts)
    at = data.draw(positions(len(plain)))
    rows = Mapped(parts).map(lambda x: x + 1).take(at).map(lambda x: x.flatten(1)[:, :1] * 2)
    expected = (selected(plain, at) + 1).flatten(1)[:, :1] * 2
    assert rows.shape == expected.shape
    same(rows[:], expected)
    same(rows[::2], expected[::2])
    same(rows.to("cpu"), expected)


def test_rows_done_with_alike_are_joined_and_others_are_not():
    def double(x):
        return x * 2

    x = torch.arange(6.0).reshape(3, 2)
    rows = Mapped([x]).map(double)
    same(Mapped.cat([rows, rows.take([2, 0])])[:], torch.cat([x, x[[2, 0]]]) * 2)
    same(Mapped.cat([Mapped([x]).take([]), rows])[:], x * 2)  # what holds no row does not matter
    with pytest.raises(ValueError, match="prepared differently"):
        Mapped.cat([rows, Mapped([x])])
    with pytest.raises(ValueError, match="prepared differently"):
        Mapped.cat([rows, x])


def test_joining_nothing_but_empty_parts_gives_no_row_of_their_shape():
    for empty in (torch.empty(0, 3), Mapped([torch.empty(0, 3)]), Mapped([torch.eye(3)]).take([])):
        rows = Mapped.cat([empty, empty])
        assert rows.shape == (0, 3) and rows[:].shape == (0, 3)


def test_rows_in_memory_are_read_in_chunks_onto_a_device(monkeypatch):
    monkeypatch.setattr("straylight.rows.mapped.CHUNK", 4)
    x = torch.rand(11, 3)
    same(Mapped([x[:5], x[5:]]).take(torch.arange(10, -1, -1)).to(torch.device("cpu")), x.flip(0))
    assert Mapped([x]).to("meta").device.type == "meta"


def test_another_axis_is_refused():
    with pytest.raises(ValueError, match="axis 0"):
        Mapped([torch.eye(3)]).index_select(1, torch.tensor([0]))


def test_reading_is_in_the_order_of_the_file():
    asked = []

    class Seen:
        def __len__(self):
            return 100

        def __getitem__(self, part):
            return torch.zeros(100, 2)[part]

        def index_select(self, axis, index):
            asked.append(index.tolist())
            return torch.stack([index, -index], 1)

    rows = Mapped([Seen(), Seen()])
    asked.clear()
    found = rows.index_select(0, torch.tensor([150, 3, 99, 3, 100]))
    assert asked == [[3, 3, 99], [0, 50]]
    assert found[:, 0].tolist() == [50, 3, 99, 3, 0]


@pytest.mark.parametrize("at", [[-1, 2], [3, 12], [10]], ids=str)
def test_a_position_outside_is_an_error_as_it_is_of_a_tensor(at):
    rows = Mapped([torch.arange(10.0)[:, None]])
    for read in (lambda: rows.index_select(0, torch.tensor(at)), lambda: rows.take(at)[:]):
        with pytest.raises(IndexError):
            read()


def test_joined_rows_of_more_than_31_bits_are_counted_on():
    many, more = (Mapped([torch.zeros(1, 1).expand(2**30 + 5, 1)]) for _ in range(2))
    last = Mapped.cat([many.take([0]), more.take([2**30 + 4])])
    assert last.places().tolist() == [0, 2**31 + 9]


# files

STORED = {
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "uint8": np.uint8,
    "int64": np.int64,
    "big-endian float": ">f4",
    "big-endian double": ">f8",
    "big-endian integer": ">i2",
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", STORED.values(), ids=STORED)
def test_a_file_is_opened_as_it_would_be_read(tmp_path, dtype, order):
    values = np.random.default_rng(0).integers(0, 100, (13, 2, 3)).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(values, order=order))
    rows = Mapped.open(tmp_path / "x.npy")
    plain = torch.from_numpy(values.astype(np.float32))
    same(rows[:], plain)
    same(rows.take([7, 0, 12, 7])[1:], plain[[0, 12, 7]])


def test_a_file_without_rows_is_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.empty((0, 3), np.float32))
    assert Mapped.open(tmp_path / "x.npy").shape == (0, 3)


def test_files_and_tensors_are_joined(tmp_path):
    a, b, c = torch.rand(5, 3), torch.rand(7, 3).double(), torch.rand(2, 3)
    np.save(tmp_path / "a.npy", a.numpy())
    np.save(tmp_path / "b.npy", b.numpy())
    a_file, b_file = (Mapped.open(tmp_path / f"{name}.npy") for name in "ab")
    rows = Mapped.cat([a_file.take([4, 1]), c, b_file, a_file.take([])])
    same(rows[:], torch.cat([a[[4, 1]], c, b.float()]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_is_never_written_to_whatever_is_done_with_its_rows(tmp_path, dtype):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(20, dtype=dtype).reshape(10, 2))
    before = path.read_bytes()
    path.chmod(0o444)
    rows = Mapped.open(path)
    for read in (rows[:], rows[2:5], rows.index_select(0, torch.tensor([3, 1])), rows.to("cpu")):
        read.fill_(-1)
    rows.map(lambda x: x.mul_(0))[:]
    rows.sources[0].fill_(7)  # straight into the map
    del rows
    assert path.read_bytes() == before


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("how", ["object array", "pickle"])
def test_nothing_is_unpickled(tmp_path, how):
    path, sprung = tmp_path / "x.npy", tmp_path / "sprung"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        np.save(path, np.array([[Trap(sprung)]], dtype=object), allow_pickle=True)
    with pytest.raises((ValueError, OSError)):
        Mapped.open(path)
    assert not sprung.exists()


def test_a_damaged_file_is_an_error_wherever_it_was_cut(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(40, dtype=np.float32).reshape(20, 2))
    content = path.read_bytes()
    for end in (3, 8, 60, 128, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises((ValueError, OSError)):
            Mapped.open(path)
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises((ValueError, OSError)):
        Mapped.open(path)
    with pytest.raises(OSError):
        Mapped.open(tmp_path / "none.npy")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.array([["a", "b"]]), id="text"),
        pytest.param(np.zeros((3, 2), [("a", "f4")]), id="named columns"),
        pytest.param(np.ones((3, 2), np.complex64), id="complex"),
        pytest.param(np.float32(1), id="a single number"),
    ],
)
def test_a_file_of_something_other_than_numbers_is_an_error(tmp_path, values):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises((ValueError, OSError)):
        Mapped.open(tmp_path / "x.npy")[:]


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "x.npy").touch()
    with pytest.raises((ValueError, OSError)):
        Mapped.open(tmp_path / "x.npy")
