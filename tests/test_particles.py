"""Files of particles, what is made of their units, and the cuts that every detector has to beat."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fitting import scores as scored
from given import sentence
from straylight.data import ADC2021
from straylight.data import particles as page
from straylight.data.particles import COLUMNS, FEATURES, PARTICLES, padding, particles
from straylight.detectors import AutoEncoder, ParticleBaseline
from straylight.errors import DataError
from straylight.nn import ParticleScaling
from straylight.rows.batch import Events, Group
from straylight.rows.loaders import GroupLoader
from straylight.rows.mapped import Mapped

BACKGROUND = "background_for_training.h5"
FILES = {"a": "first.h5", "b": "second.h5"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "cache"))


def events(n, seed=0):
    """`(n, 19, 4)` as the challenge has them: pT, eta, phi and a class; half of the slots empty, MET always there."""
    rng = np.random.default_rng(seed)
    rows = np.empty((n, 19, 4), np.float32)
    rows[..., 0] = rng.exponential(30, (n, 19)) + 3
    rows[..., 1] = rng.uniform(-2, 2, (n, 19))
    rows[..., 2] = rng.uniform(-3.1, 3.1, (n, 19))
    rows[..., 3] = np.repeat([1, 2, 3, 4], [1, 4, 4, 10])
    rows[:, 0, 1] = 0
    empty = rng.random((n, 19)) < 0.5
    empty[:, 0] = False
    rows[empty] = 0
    return rows


def write(path, rows=None, *, columns=None, **options):
    """An HDF5 file, as h5py writes it with these options; `rows` are those of `Particles`."""
    with h5py.File(path, "w") as file:
        if rows is not None:
            file.create_dataset("Particles", data=rows, **options)
        for name, values in (columns or {}).items():
            file.create_dataset(name, data=values)
    return path


@pytest.fixture
def folder(tmp_path):
    """Background of 500 events and two signals of 60 and 40, without groups."""
    root = tmp_path / "adc2021"
    root.mkdir()
    write(root / BACKGROUND, events(500), compression="gzip")
    write(root / FILES["a"], events(60, 1), compression="gzip")
    write(root / FILES["b"], events(40, 2), compression="gzip")
    return root


@pytest.fixture
def grouped(folder):
    """The same with groups, one to five events each, and the process of the background."""
    rng = np.random.default_rng(3)
    for name, n in ((BACKGROUND, 500), (FILES["a"], 60), (FILES["b"], 40)):
        group = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]
        with h5py.File(folder / name, "a") as file:
            file["Group"] = rng.permutation(group)
            if name == BACKGROUND:
                file["Process"] = rng.integers(0, 4, n).astype(np.int8)
    return folder


def adc(root, **options):
    return ADC2021(**{"root": str(root), "signals": FILES, **options})


def rows_of(part):
    """Each row's bytes, sorted: what a split holds, whatever its order."""
    return sorted(row.tobytes() for row in part.x[:].flatten(1).numpy())


# reading


LAYOUTS = {
    "gzip": {"compression": "gzip"},
    "automatic chunks": {"chunks": True},
    "contiguous": {},
    "float64": {"dtype": np.float64, "compression": "gzip"},
    "float16": {"dtype": np.float16},
    "big-endian": {"dtype": ">f4"},
    "one event to a chunk": {"chunks": (1, 19, 4)},
    "chunks across the particles": {"chunks": (7, 5, 3), "compression": "gzip", "shuffle": True},
    "one chunk": {"chunks": (300, 19, 4)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns", [False, True])
def test_events_of_a_file_are_its_first_three_features(layout, columns, tmp_path) -> None:
    options = dict(LAYOUTS[layout])
    rows = events(300).astype(options.pop("dtype", np.float32))
    more = {"Group": np.arange(300) // 3, "Process": np.arange(300) % 4} if columns else {}
    found = particles(write(tmp_path / "x.h5", rows, columns=more, **options))
    assert set(found) == {"all"}
    read = found["all"]
    assert isinstance(read.x, Mapped) and read.x.dtype == torch.float32
    assert np.array_equal(read.x[:].numpy(), rows[..., :3].astype(np.float32)) and not read.y.any()
    assert set(read.meta) == ({"group", "process"} if columns else set())
    for name, values in more.items():
        assert np.array_equal(read.meta[COLUMNS[name]], values)


def of_numbers(n):
    """`(n, 19, 4)` of which no two numbers among the first features are equal, so that a row out of place shows."""
    return np.arange(n * 76, dtype=np.float32).reshape(n, 19, 4) % 2**24


@pytest.mark.parametrize(
    ("n", "chunk"), [(65536, 1000), (65537, 65536), (66000, 997), (70001, 40000), (70001, 70001), (131073, 4096)]
)
def test_blocks_of_a_large_file_meet_without_a_gap(n, chunk, tmp_path) -> None:
    rows = of_numbers(n)
    read = particles(write(tmp_path / "x.h5", rows, chunks=(chunk, 19, 4)))["all"].x
    assert len(read) == n
    assert np.array_equal(read[:].numpy(), rows[..., :3])


@pytest.mark.parametrize("chunk", [None, 3, 997, 65536, 70001])
def test_a_file_is_read_in_whole_chunks_and_each_of_them_once(chunk, tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "x.h5", of_numbers(70001), **({} if chunk is None else {"chunks": (chunk, 19, 4)}))
    asked = []
    read = h5py.Dataset.__getitem__

    def counted(self, key, *more):
        asked.append(key)
        return read(self, key, *more)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    particles(path)
    assert len(asked) <= 2 and all(isinstance(key, slice) for key in asked)
    assert all(key.start % (chunk or 1) == 0 for key in asked)
    reads = [range(*key.indices(70001)) for key in asked]
    assert [row for part in reads for row in (part[0], part[-1])][:: 2 * len(reads) - 1] == [0, 70000]
    assert sum(map(len, reads)) == 70001


def test_columns_and_kinds_are_named_in_the_order_of_the_file(folder) -> None:
    data = adc(folder, use=["b", "a"])
    assert data.columns[:6] == ["MET pT", "MET eta", "MET phi", "electron 1 pT", "electron 1 eta", "electron 1 phi"]
    assert data.columns[-1] == "jet 10 phi" and len(data.columns) == 57 == len(PARTICLES) * len(FEATURES)
    assert data.kinds == ("nominal", "b", "a")


# splits


def test_background_is_split_by_seed_and_every_signal_is_tested(folder) -> None:
    data = adc(folder, use=["b", "a"])
    train, val, test, reserve = data.splits
    assert [len(part) for part in data.splits] == [320, 80, 200, 0]
    assert [int((test.y == kind).sum()) for kind in range(3)] == [100, 40, 60]
    assert not train.y.any() and not val.y.any() and not len(reserve)
    for kind, seed in ((1, 2), (2, 1)):  # by hand: b is the first of use
        expected = events(40 if kind == 1 else 60, seed)[..., :3].reshape(-1, 57)
        assert np.array_equal(test.x[:][test.y == kind].numpy(), expected)
    together = sorted(row for part in (train, val) for row in rows_of(part))
    nominal = sorted(row.tobytes() for row in test.x[:][test.y == 0].numpy())
    assert sorted(together + nominal) == sorted(row.tobytes() for row in events(500)[..., :3].reshape(-1, 57))
    again, other = adc(folder), adc(folder, seed=1)
    assert rows_of(again.splits.train) == rows_of(train) != rows_of(other.splits.train)


@pytest.mark.parametrize("reserve", [0.0, 0.4])
def test_groups_stay_on_one_side(grouped, reserve) -> None:
    data = adc(grouped, reserve_fraction=reserve)
    parts = [part.meta["group"] for part in data.splits]
    # a group that is set aside has its nominal events in training, and here signals have groups of their own
    for i, first in enumerate(parts):
        for second in parts[i + 1 :]:
            assert not np.intersect1d(first, second).size
    sizes = [len(part) for part in data.splits]
    nominal_tested = int((data.splits.test.y == 0).sum())
    assert sizes[0] == pytest.approx(320, abs=5) and sizes[1] == pytest.approx(80, abs=5)
    assert nominal_tested == 500 - sizes[0] - sizes[1] and sizes[3] == pytest.approx(reserve * 100, abs=5)
    assert sum(sizes) == 600
    # the groups are those of the file: events of one group in the file have one number here, and others another
    row_of = {row.tobytes(): i for i, row in enumerate(events(500)[..., :3].reshape(-1, 57))}
    with h5py.File(grouped / BACKGROUND) as file:
        group, process = file["Group"][:], file["Process"][:]
    for part in data.splits:
        for i in np.flatnonzero(part.y.numpy() == 0):
            place = row_of[part.x[i : i + 1].numpy().tobytes()]
            assert part.meta["group"][i] == group[place] and part.meta["process"][i] == process[place]
            assert part.origin.rows([i]).tolist() == [place + 1]
            assert part.origin.file([i]).to_pylist() == [str(grouped / BACKGROUND)]
        assert (part.meta["process"][part.y.numpy() > 0] == -1).all()
    of_signals = np.concatenate([part.meta["group"][part.y.numpy() > 0] for part in data.splits])
    assert not np.intersect1d(of_signals, group).size


def test_the_two_halves_of_validation_share_no_group(grouped) -> None:
    data = adc(grouped)
    one, two = (half.meta["group"] for half in data._val_halves)
    assert len(one) and len(two) and not np.intersect1d(one, two).size


@pytest.mark.parametrize("fraction", [None, 0, 0.1])
def test_signals_in_reserve_contaminate_training(folder, fraction) -> None:
    data = adc(folder, reserve_fraction=0.5, contamination=fraction)
    train, _, test, reserve = data.splits
    assert len(reserve) == 50 and int((test.y > 0).sum()) == 50
    strange = int((train.y > 0).sum())
    assert strange == (round(0.1 / 0.9 * 320) if fraction else 0) and len(train) == 320 + strange
    drawn = {row.tobytes() for row in train.x[:][train.y > 0].numpy()}
    assert drawn <= set(rows_of(reserve)) and not drawn & set(rows_of(test))


def test_max_events_are_drawn_by_seed_of_each_file(folder) -> None:
    data = adc(folder, max_events=50)
    test = data.splits.test
    assert [len(part) for part in data.splits[:2]] == [32, 8]
    assert [int((test.y == kind).sum()) for kind in range(3)] == [10, 50, 40]
    background = [row for part in data.splits[:2] for row in rows_of(part)]
    assert set(background) <= {row.tobytes() for row in events(500)[..., :3].reshape(-1, 57)}
    assert rows_of(adc(folder, max_events=50).splits.train) == rows_of(data.splits.train)
    assert rows_of(adc(folder, max_events=50, seed=1).splits.train) != rows_of(data.splits.train)
    assert len(adc(folder, max_events=10**6).splits.train) == 320


def test_layouts_are_the_same_numbers(folder) -> None:
    flat, *others = (adc(folder, layout=layout) for layout in ("flat", "particles", "image"))
    assert flat.shape == (57,) and [data.shape for data in others] == [(19, 3), (1, 19, 3)]
    for data in others:
        for part, same in zip(data.splits, flat.splits, strict=True):
            assert torch.equal(part.x[:].flatten(1), same.x[:]) and torch.equal(part.y, same.y)


def test_events_on_disk_are_those_in_memory(grouped) -> None:
    disk, memory = adc(grouped, memory_mb=0, reserve_fraction=0.2), adc(grouped, reserve_fraction=0.2)
    for part, same in zip(disk.splits, memory.splits, strict=True):
        assert isinstance(part.x, Mapped) and isinstance(same.x, torch.Tensor)
        assert torch.equal(part.x[:], same.x) and torch.equal(part.y, same.y)
        assert all(np.array_equal(part.meta[name], same.meta[name]) for name in same.meta)
    # shuffled in another way, but by the same rows
    rows = [torch.cat([group.rows().x for group in data.train_dataloader()]).numpy() for data in (disk, memory)]
    assert np.array_equal(*(r[np.lexsort(r.T)] for r in rows))


def test_a_file_without_signals_is_split_alike(folder) -> None:
    train, val, test, _ = adc(folder, use=[]).load()
    assert [len(train), len(val), len(test)] == [320, 80, 100]


def test_a_filtered_name_is_found_and_the_plain_one_comes_first(folder) -> None:
    expected = adc(folder).splits
    for path in list(folder.glob("*.h5")):
        path.rename(path.with_name(f"{path.stem}_filtered.h5"))
    data = adc(folder)
    assert not data.missing() and all(path.stem.endswith("_filtered") for path in data.files())
    assert all(torch.equal(a.x, b.x) for a, b in zip(data.splits, expected, strict=True))
    write(folder / FILES["a"], events(30, 9))
    assert int((adc(folder).splits.test.y == 1).sum()) == 30


@pytest.mark.parametrize("shape", [(57,), (19, 3), (19, 3, 1)])
@pytest.mark.parametrize("reserve", [0.0, 0.5])
def test_files_split_before_keep_their_splits(folder, shape, reserve) -> None:
    rows = events(500)[..., :3]
    parts = {"X_train": rows[:300], "X_val": rows[300:370], "X_test": rows[370:]}
    write(folder / BACKGROUND, columns={name: x.reshape(-1, *shape) for name, x in parts.items()})
    write(folder / FILES["a"], columns={"Data": events(60, 1)[..., :3].reshape(-1, *shape)})
    data = adc(folder, reserve_fraction=reserve, contamination=0.05 if reserve else None)
    train, val, test, aside = data.splits
    assert np.array_equal(train.x[:][train.y == 0].numpy(), rows[:300].reshape(-1, 57))
    assert np.array_equal(val.x[:].numpy(), rows[300:370].reshape(-1, 57))
    assert np.array_equal(test.x[:][test.y == 0].numpy(), rows[370:].reshape(-1, 57))
    assert int((test.y > 0).sum()) == 100 * (1 - reserve) and len(aside) == 100 * reserve
    assert int((train.y > 0).sum()) == (round(0.05 / 0.95 * 300) if reserve else 0)
    if not reserve:
        assert np.array_equal(test.x[:][test.y == 1].numpy(), events(60, 1)[..., :3].reshape(-1, 57))
    assert adc(folder, use=[]).load().test.x[:].shape == (130, 57)
    for name, part in {"X_train": train, "X_val": val, "X_test": test}.items():  # rows are counted in their array
        of, numbers = np.array(part.origin.file().to_pylist()), part.origin.rows()
        own = part.y.numpy() == 0
        assert set(of[own]) == {f"{folder / BACKGROUND}/{name}"}
        assert np.array_equal(part.x[:][own].numpy(), parts[name].reshape(-1, 57)[numbers[own] - 1])
        signal = events(60, 1)[..., :3].reshape(-1, 57)
        first = ~own & (of == str(folder / FILES["a"]))
        assert np.array_equal(part.x[:][first].numpy(), signal[numbers[first] - 1])


def test_a_background_of_data_alone_is_split_by_seed(folder) -> None:
    write(folder / BACKGROUND, columns={"Data": events(500)[..., :3].reshape(-1, 57)})
    assert [len(part) for part in adc(folder).splits] == [320, 80, 200, 0]


# once, and again


def test_a_file_is_converted_once_and_again_when_it_has_changed(folder, monkeypatch, caplog) -> None:
    converted = []
    convert = page._convert

    def counted(path, target):
        converted.append(path.name)
        convert(path, target)

    monkeypatch.setattr(page, "_convert", counted)
    with caplog.at_level(logging.INFO):
        adc(folder).setup()
        assert len(adc(folder).splits.train) == 320
    assert sorted(converted) == sorted([BACKGROUND, *FILES.values()])
    assert sum("once" in line for line in caplog.messages) == 3
    write(folder / FILES["a"], events(55, 8), compression="gzip")
    test = adc(folder).splits.test
    assert converted[3:] == [FILES["a"]]
    assert np.array_equal(test.x[:][test.y == 1].numpy(), events(55, 8)[..., :3].reshape(-1, 57))


def test_nothing_is_left_of_a_conversion_that_failed(folder, tmp_path) -> None:
    write(folder / FILES["b"], events(10)[:, :5])
    with pytest.raises(DataError):
        _ = adc(folder).splits
    left = [path.name for path in (tmp_path / "cache").glob("*/*") if path.suffix != ".lock"]
    assert len(left) == 2 and not any(FILES["b"] in name for name in left)


def test_max_events_are_those_of_a_file_and_not_of_its_parts(folder) -> None:
    write(folder / FILES["a"], columns={name: events(60)[..., :3] for name in ("X_train", "X_val", "X_test")})
    assert int((adc(folder, max_events=50).splits.test.y == 1).sum()) == 50


def test_events_that_a_file_holds_twice_are_tested_once(folder) -> None:
    write(folder / FILES["a"], events(60, 1), columns={"X_train": events(60, 1)[:40, :, :3]})
    assert int((adc(folder).splits.test.y == 1).sum()) == 60


def test_two_arrays_of_all_events_are_not_mixed_up(folder) -> None:
    write(folder / BACKGROUND, events(500), columns={"Data": events(300, 5)[..., :3]})
    with pytest.raises(DataError, match="Data"):
        _ = adc(folder).splits


# what is wrong


def broken(path, what):
    match what:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-500])
        case "cut after its head":
            path.write_bytes(path.read_bytes()[:600])
        case "garbled":
            whole = bytearray(path.read_bytes())
            whole[3000:-3000] = b"\xff" * len(whole[3000:-3000])
            path.write_bytes(whole)
        case "text":
            path.write_text("pT,eta,phi\n1,2,3\n")
        case "nothing at all":
            path.write_bytes(b"")
        case "no data set":
            write(path, columns={"Jets": np.zeros((3, 2)), "Leptons": np.zeros(3)})
        case "no items":
            write(path)
        case "18 particles":
            write(path, events(50)[:, :18])
        case "five numbers":
            write(path, np.zeros((50, 19, 5)))
        case "56 columns":
            write(path, columns={"Data": np.zeros((50, 56))})
        case "one number":
            write(path, columns={"Particles": 3.0})
        case "groups too few":
            write(path, events(50), columns={"Group": np.zeros(49, int)})
        case "groups too many":
            write(path, events(50), columns={"Group": np.zeros(51, int)})
        case "processes of pairs":
            write(path, events(50), columns={"Process": np.zeros((50, 2), int)})


BROKEN = {
    "truncated": ("damaged",),
    "cut after its head": ("damaged",),
    "garbled": ("damaged",),
    "text": ("HDF5",),
    "nothing at all": ("HDF5",),
    "no data set": ("Particles", "(N, 19, 4)", "Jets, Leptons"),
    "no items": ("holds nothing",),
    "18 particles": ("(N, 19, 4)", "(50, 18, 4)"),
    "five numbers": ("(N, 19, 4)", "(50, 19, 5)"),
    "56 columns": ("(N, 57", "(50, 56)"),
    "one number": ("(N, 19, 4)",),
    "groups too few": ("50 events", "49 of Group"),
    "groups too many": ("50 events", "51 of Group"),
    "processes of pairs": ("50", "Process"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("name", [BACKGROUND, FILES["b"]])
def test_a_broken_file_is_named_in_one_sentence(what, name, folder) -> None:
    broken(folder / name, what)
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    said = sentence(error)
    assert str(folder / name) in said and all(word in said for word in BROKEN[what]), said


@pytest.mark.parametrize("what", ["text", "pairs", "empty", "one group", "group of groups", "names of groups"])
def test_columns_of_another_type_are_named_in_one_sentence(what, folder) -> None:
    path = folder / BACKGROUND
    match what:
        case "text":
            write(path, np.full((50, 19, 4), b"abc"))
        case "pairs":
            write(path, np.zeros((50, 19, 4), [("a", "f4"), ("b", "f4")]))
        case "empty":
            write(path, h5py.Empty("f4"))
        case "one group":
            write(path, events(50), columns={"Group": 3})
        case "group of groups":
            write(path, events(50))
            with h5py.File(path, "a") as file:
                file.create_group("Group")
        case "names of groups":
            write(path, events(50), columns={"Group": ["a"] * 50})
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    assert BACKGROUND in sentence(error)


def test_a_file_of_no_events_is_answered_in_a_sentence(folder) -> None:
    write(folder / BACKGROUND, events(0))
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    assert "adc2021" in sentence(error) and "no nominal rows to train on" in str(error.value)


def test_a_signal_of_no_events_leaves_the_others(folder) -> None:
    write(folder / FILES["a"], events(0))
    assert [int((adc(folder).splits.test.y == kind).sum()) for kind in range(3)] == [100, 0, 40]


@pytest.mark.parametrize("gone", ["X_train", "X_val", "X_test"])
def test_a_part_missing_of_a_split_file_is_named(folder, gone) -> None:
    parts = {name: np.zeros((9, 57)) for name in ("X_train", "X_val", "X_test") if name != gone}
    write(folder / BACKGROUND, columns=parts)
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    assert BACKGROUND in sentence(error) and gone in str(error.value)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (np.inf, np.float32), (1e300, np.float64)])
def test_a_nan_is_named_with_its_particle(folder, value, dtype) -> None:
    rows = events(500).astype(dtype)
    rows[7, 9, 0] = value
    write(folder / BACKGROUND, rows)
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    assert "adc2021" in sentence(error) and "'jet 1 pT' (1 row)" in str(error.value)


def test_a_missing_value_is_filled_in_if_that_is_asked_for(folder) -> None:
    rows = events(500)
    rows[:, 9, 0] = np.where(np.arange(500) % 5 == 0, np.nan, rows[:, 9, 0])
    write(folder / BACKGROUND, rows)
    data = adc(folder, missing="median", memory_mb=0)
    assert list(data.splits.train.x[:].shape) == [320, 57] and data.splits.train.x[:].isfinite().all()
    assert list(data.filled) == ["jet 1 pT"]


def test_a_missing_file_is_named_with_where_it_is_published(folder) -> None:
    (folder / BACKGROUND).unlink()
    with pytest.raises(DataError) as error:
        _ = adc(folder).splits
    assert "zenodo.org/records/5046389" in sentence(error) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use": ["a", "c"]}, ("data.use", "'c'", "a, b")),
        ({"max_events": 0}, ("data.max_events", "0")),
        ({"protocol": "nominal_only", "train_fraction": 2.0}, ("data.train_fraction", "2.0")),
    ],
)
def test_values_out_of_range_are_refused(folder, options, words) -> None:
    with pytest.raises(DataError) as error:
        _ = adc(folder, **options).splits
    assert all(word in sentence(error) for word in words)


def test_the_other_protocol_is_not_for_files_split_before(folder) -> None:
    write(folder / BACKGROUND, columns={name: np.zeros((9, 57)) for name in ("X_train", "X_val", "X_test")})
    with pytest.raises(DataError, match="splits of its own"):
        _ = adc(folder, protocol="unsupervised", use=[]).splits


# what results are called


def test_a_background_with_groups_is_called_a_stand_in(folder, grouped, tmp_path) -> None:
    data = adc(grouped)
    assert data.splits and data.name == "adc2021_standin" and "simulation" in data.notices[0]
    plain = tmp_path / "plain"
    plain.mkdir()
    for name, n in ((BACKGROUND, 100), (FILES["a"], 30), (FILES["b"], 30)):
        write(plain / name, events(n, n))
    data = adc(plain)
    assert data.splits and data.name == "adc2021" and not any("simulation" in line for line in data.notices)
    with h5py.File(plain / FILES["a"], "a") as file:  # that of a signal says nothing of the background
        file["Group"] = np.arange(30)
    data = adc(plain)
    assert data.splits and data.name == "adc2021"


def test_a_filtered_background_with_groups_is_called_a_stand_in(grouped) -> None:
    path = grouped / BACKGROUND
    path.rename(path.with_name(f"{path.stem}_filtered.h5"))
    data = adc(grouped)
    assert data.splits and data.name == "adc2021_standin"


@pytest.mark.parametrize("groups", [False, True])
def test_a_run_says_what_the_data_are(groups, folder, request, straylight_train) -> None:
    if groups:
        request.getfixturevalue("grouped")
    ended = straylight_train("data=adc2021", f"data.root={folder}", *_files(folder), "detector=sum_pt")
    assert ended.status == 0, ended.err
    assert ended.result["data"] == ("adc2021_standin" if groups else "adc2021")
    assert any("simulation in the layout" in line for line in ended.result["notices"]) == groups


def _files(folder):
    """Overrides that use two signals of the challenge, which lie under its names."""
    for kind, name in (("leptoquark", FILES["a"]), ("a_to_4l", FILES["b"])):
        yield f"data.signals.{kind}={name}"
    yield "data.use=[leptoquark,a_to_4l]"


# padding, and the units that networks like


@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
def test_padding_is_where_all_three_features_are_zero(shape) -> None:
    rows = torch.from_numpy(events(20)[..., :3].copy())
    rows[0, 3] = torch.tensor([0.0, 0.0, 1e-30])
    rows[1, 4] = torch.tensor([-0.0, 0.0, 0.0])
    rows[2, 5] = torch.tensor([5.0, 0.0, 0.0])
    expected = [[all(float(v) == 0 for v in particle) for particle in event] for event in rows]
    assert padding(rows.view(20, *shape)).tolist() == expected


@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
@pytest.mark.parametrize("what", ["padding", "forward", "inverse", "sum_pt", "multiplicity"])
def test_no_rows_are_no_error(what, shape) -> None:
    none = torch.zeros(0, *shape)
    match what:
        case "padding":
            assert padding(none).shape == (0, 19)
        case "forward" | "inverse":
            assert getattr(ParticleScaling(shape), what)(none).shape == (0, *shape)
        case _:
            assert ParticleBaseline(shape, quantity=what)(none).shape == (0,)


@pytest.mark.parametrize("method", ["particles", "particles_log"])
def test_a_chunk_of_no_rows_changes_no_scaling(method) -> None:
    rows = torch.from_numpy(events(50)[..., :3].copy())
    parts = ParticleScaling((19, 3), method).fit([rows[:0], rows[:20], rows[:0], rows[20:]])
    assert torch.allclose(parts.shift, ParticleScaling((19, 3), method).fit([rows]).shift)


RANGES = [1.0] + [3.0] * 4 + [2.1] * 4 + [4.0] * 10


def loops(train, rows, log):
    """The scaling one particle at a time, in float64; `(N, 19, 3)` and `(n, 19, 3)` to the latter."""
    out = np.zeros(rows.shape)
    for slot in range(19):
        there = [math.log(max(e[slot, 0], 1e-3)) if log else e[slot, 0] for e in train.astype(float) if e[slot].any()]
        mean = sum(there) / len(there) if there else 0.0
        varies = len(set(there)) > 1
        std = math.sqrt(sum((v - mean) ** 2 for v in there) / len(there)) if varies else 1.0
        for n, event in enumerate(rows.astype(float)):
            if event[slot].any():
                pt = math.log(max(event[slot, 0], 1e-3)) if log else event[slot, 0]
                out[n, slot] = (pt - mean) / std, event[slot, 1] / RANGES[slot], event[slot, 2] / math.pi
    return out


@pytest.mark.parametrize("method", ["particles", "particles_log"])
@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
def test_the_scaling_of_particles_against_loops(method, shape) -> None:
    train, rows = events(200)[..., :3], events(50, 5)[..., :3]
    train[:, 7] = 0  # never there, but in what is scaled
    train[:, 2, 0] = np.where(train[:, 2].any(1), 42, 0)  # constant
    scaling = ParticleScaling(shape, method).fit([torch.tensor(train).view(-1, *shape)])
    scaled = scaling(torch.tensor(rows).view(-1, *shape))
    assert scaled.shape == (50, *shape) and scaled.dtype == torch.float32 and bool(scaling.fitted)
    expected = loops(train, rows, method == "particles_log")
    np.testing.assert_allclose(scaled.view(50, 19, 3).numpy(), expected, rtol=2e-5, atol=2e-5)
    empty = ~rows.any(2)
    assert empty.any() and (scaled.view(50, 19, 3).numpy()[empty] == 0).all()


@pytest.mark.parametrize("method", ["particles", "particles_log"])
def test_chunks_give_the_scaling_of_one_pass(method) -> None:
    rows = torch.from_numpy(events(500)[..., :3].copy())
    rows[:400, 6] = 0  # a slot that comes late
    rows[100:, 8] = 0  # and one that goes early
    whole = ParticleScaling((19, 3), method).fit([rows])
    for sizes in ([1] * 500, [7, 493], [250, 250]):
        parts = ParticleScaling((19, 3), method).fit(iter(rows.split(sizes)))
        assert torch.allclose(parts.shift, whole.shift, rtol=1e-6, atol=1e-6)
        assert torch.allclose(parts.factor, whole.factor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["particles", "particles_log"])
@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
def test_the_scaling_of_particles_is_undone(method, shape) -> None:
    rows = torch.from_numpy(events(300)[..., :3].copy()).view(-1, *shape)
    scaling = ParticleScaling(shape, method).fit([rows])
    back = scaling.inverse(scaling(rows))
    assert torch.allclose(back, rows, rtol=1e-5, atol=1e-5)
    assert torch.equal(padding(back), padding(rows))
    assert scaling.inverse(torch.zeros(1, *shape)).eq(0).all()


@pytest.mark.parametrize("method", ["particles", "particles_log"])
def test_pt_at_a_large_offset_is_scaled_exactly(method) -> None:
    rows = torch.zeros(1000, 19, 3)
    rows[:, :, 0] = 50_000 + torch.arange(1000)[:, None] % 7
    scaled = ParticleScaling((19, 3), method).fit(rows.split(77))(rows)[..., 0]
    assert scaled.mean().abs() < 0.05 and scaled.std() == pytest.approx(1, abs=0.05)


def test_a_scaling_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no training row"):
        ParticleScaling((57,)).fit([])


@pytest.mark.parametrize("shape", [(56,), (3, 19), (19, 4), (57, 1), (3, 19, 1)])
def test_the_scaling_of_particles_is_for_particles_alone(shape) -> None:
    with pytest.raises(ValueError, match="19 particles"):
        ParticleScaling(shape)


@pytest.mark.parametrize("scaling", ["particles", "particles_log"])
@pytest.mark.parametrize("detector", ["pca", "autoencoder"])
def test_other_events_are_refused_the_scaling_of_particles(scaling, detector, straylight_train) -> None:
    ended = straylight_train("data=blobs", f"detector={detector}", f"detector.scaling={scaling}")
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and "Traceback" not in ended.err
    assert f"detector.scaling={scaling}" in lines[0] and "(2,)" in lines[0]


@torch.no_grad()
@pytest.mark.parametrize("method", ["particles", "particles_log"])
def test_the_scaling_travels_with_the_weights(method) -> None:
    rows = torch.from_numpy(events(100)[..., :3].copy())
    detector = AutoEncoder((19, 3), scaling=method, mask=True)
    detector.scaling.fit([rows])
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    again = AutoEncoder((19, 3), scaling=method, mask=True)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert bool(again.scaling.fitted) and torch.equal(again.scaling(rows), detector.scaling(rows))
    assert np.array_equal(scored(again, rows), scored(detector, rows))


@torch.no_grad()
def test_padding_counts_for_nothing_under_the_mask() -> None:
    rows = torch.from_numpy(events(40)[..., :3].copy())
    detector = AutoEncoder((19, 3), scaling="particles_log", mask=True)
    detector.scaling.fit([rows])
    scaled = detector.scaling(rows)
    error = (detector.reconstruct(scaled) - scaled).square().numpy()
    there = ~padding(rows).numpy()
    expected = [error[n][there[n]].mean() for n in range(40)]
    np.testing.assert_allclose(scored(detector, rows), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["detector=autoencoder", "detector.mask=true", "data.layout=particles"],
        ["detector=vae", "data.layout=flat"],
        ["detector=deep_svdd", "data.layout=image"],
        ["detector=pca", "data.layout=flat", "data.memory_mb=0"],
        ["detector=autoencoder", "data.layout=flat", "data.memory_mb=0"],
    ],
    ids=" ".join,
)
def test_detectors_train_on_scaled_particles(overrides, grouped, straylight_train) -> None:
    ended = straylight_train(
        "data=adc2021", f"data.root={grouped}", *_files(grouped), "detector.scaling=particles_log", *overrides
    )
    assert ended.status == 0, ended.err
    metrics = ended.result["metrics"]
    assert 0 <= metrics["test/auroc"] <= 1
    assert {"test/auroc/leptoquark", "test/auroc/a_to_4l"} <= set(metrics)
    state = torch.load(next(iter((ended.run / "checkpoints").glob("*.ckpt"))), weights_only=True)["state_dict"]
    with h5py.File(grouped / BACKGROUND) as file:
        met = np.log(file["Particles"][:, 0, 0])
    shift = state["scaling.shift"].flatten()[0].item()
    assert shift == pytest.approx(met.mean(), abs=0.2) and shift != 0


# what every detector has to beat


@pytest.mark.parametrize("shape", [(57,), (19, 3), (1, 19, 3)])
def test_baselines_against_loops(shape) -> None:
    rows = events(60)[..., :3]
    pt, number = [], []
    for event in rows.astype(float):
        pt.append(sum(particle[0] for particle in event))
        number.append(sum(1 for particle in event if any(v != 0 for v in particle)))
    x = torch.tensor(rows).view(-1, *shape)
    np.testing.assert_allclose(scored(ParticleBaseline(shape), x), pt, rtol=1e-6)
    assert scored(ParticleBaseline(shape, quantity="multiplicity"), x).tolist() == number


@pytest.mark.parametrize("detector", ["sum_pt", "multiplicity"])
def test_baselines_are_for_particles_alone(detector, straylight_train) -> None:
    ended = straylight_train("data=blobs", f"detector={detector}")
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and detector in lines[0] and "particles" in lines[0]


PUBLISHED = {
    "sum_pt": {"leptoquark": 0.87, "a_to_4l": 0.67, "h0_to_tautau": 0.64, "hplus_to_taunu": 0.96},
    "multiplicity": {"leptoquark": 0.90, "a_to_4l": 0.86, "h0_to_tautau": 0.71, "hplus_to_taunu": 0.90},
}


@pytest.fixture
def standin(shared):
    root = shared / "adc2021"
    if not (root / BACKGROUND).is_file():
        pytest.skip("no adc2021 in ../shared/data")
    return root


@pytest.mark.parametrize("quantity", PUBLISHED)
def test_baselines_reach_on_the_stand_in_what_its_makers_saw(quantity, standin) -> None:
    data = ADC2021(root=str(standin), layout="particles")
    test = data.splits.test
    assert data.name == "adc2021_standin"
    score = scored(ParticleBaseline((19, 3), quantity=quantity), test.x[:])
    y = test.y.numpy()
    for kind, name in enumerate(data.kinds[1:], 1):
        chosen = (y == 0) | (y == kind)
        assert roc_auc_score(y[chosen] > 0, score[chosen]) == pytest.approx(PUBLISHED[quantity][name], abs=0.01), name


def test_the_stand_in_is_read_as_h5py_reads_it(standin) -> None:
    data = ADC2021(root=str(standin), use=["a_to_4l"], layout="particles")
    test = data.splits.test
    with h5py.File(standin / "Ato4l_lepFilter_13TeV.h5") as file:
        signal = file["Particles"][:]
    assert np.array_equal(test.x[:][test.y == 1].numpy(), signal[..., :3])
    with h5py.File(standin / BACKGROUND) as file:
        background, group = file["Particles"][:, :, :3], file["Group"][:]
    nominal = [part.x[:][part.y == 0] for part in data.splits[:3]]
    n = len(background)
    assert [len(part) for part in nominal] == [pytest.approx(f * n, abs=20) for f in (0.64, 0.16, 0.2)]
    total = sum(part.double().sum((0, 1)) for part in nominal).numpy()
    np.testing.assert_allclose(total, background.astype(float).sum((0, 1)), rtol=1e-9)
    groups = [set(part.meta["group"][part.y.numpy() == 0].tolist()) for part in data.splits[:3]]
    assert set.union(*groups) == set(group.tolist()) and sum(map(len, groups)) == len(set(group.tolist()))


# where the training split lives


class Elsewhere:
    """A Trainer, as far as a data module asks: on a device."""

    global_rank, world_size, callbacks = 0, 1, ()
    limit_train_batches = limit_val_batches = limit_test_batches = val_check_interval = 1.0
    overfit_batches, fast_dev_run, check_val_every_n_epoch = 0, False, 1

    def __init__(self, device):
        self.strategy = self
        self.root_device = torch.device(device)


def sent(data, monkeypatch, device, free):
    """Which columns of the training split are sent to a device, and what is left of them."""
    went = []

    def to(self, target, *more):
        if isinstance(target, torch.device) and target.type == "cuda":
            went.append((tuple(self.shape), str(target)))
            return self[:] if isinstance(self, Mapped) else self
        return original(self, target, *more)

    original = torch.Tensor.to
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", to)
        patch.setattr(Mapped, "to", to)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 80 * 2**30))
        data.trainer = Elsewhere(device)
        loader = data.train_dataloader()
        data.trainer = None
    return went, loader.events


SIZE = 4 * 320 * 57


@pytest.mark.parametrize("memory_mb", [0, 4096])
@pytest.mark.parametrize(
    ("device", "free", "choice", "resident"),
    [
        ("cuda:1", 2 * SIZE, "auto", True),
        ("cuda:1", 2 * SIZE - 1, "auto", False),
        ("cuda:1", 10**12, "cpu", False),
        ("cpu", 10**12, "auto", False),
        ("mps", 10**12, "auto", False),
    ],
)
def test_the_training_split_lives_where_it_fits(device, free, choice, resident, memory_mb, folder, monkeypatch) -> None:
    data = adc(folder, device=choice, memory_mb=memory_mb)
    data.setup()
    went, served = sent(data, monkeypatch, device, free)
    if resident:
        assert sorted(went) == [((1,), device), ((320, 0), device), ((320, 57), device)]  # of even weights, one number
        assert torch.equal(served.x, data.splits.train.x[:]) and len(served.weight) == 320
    else:
        assert not went and served is data.splits.train


def test_weights_that_differ_go_with_their_rows(serving, monkeypatch) -> None:
    data = serving(torch.rand(10, 3))
    train = data.splits.train
    data.__dict__["splits"] = data.splits._replace(train=Events.of(train.x, weight=torch.rand(10)))
    went, served = sent(data, monkeypatch, "cuda:0", 10**9)
    assert ((10,), "cuda:0") in went and torch.equal(served.weight, data.splits.train.weight)


def test_of_a_group_whose_rows_are_there_only_its_order_is_sent(monkeypatch) -> None:
    meta = torch.device("meta")
    x, context, weight = (
        torch.empty(100, 5, device=meta),
        torch.empty(100, 2, device=meta),
        torch.empty(100, device=meta),
    )
    places = torch.arange(20)
    group = Group(x, context, weight, places, places + 3, (10, 10), (10, 10))
    moved = group.to(meta)
    assert moved.x is x and moved.context is context and moved.weight is weight
    assert moved.places.device.type == moved.index.device.type == "meta" and (moved.sizes, moved.totals) == (
        group.sizes,
        group.totals,
    )
    assert moved.to(meta) is moved
    assert [len(batch.x) for batch, _ in moved.minibatches()] == [10, 10]


def test_of_a_group_elsewhere_its_own_rows_are_sent() -> None:
    x, places = torch.rand(100, 5), torch.tensor([7, 3, 50])
    group = Group(x, torch.rand(100, 1), torch.ones(1).expand(100), places, places, (2, 1), (2, 1))
    moved = group.to(torch.device("meta"))
    assert moved.x.shape == (3, 5) and moved.x.device.type == "meta" and moved.context.shape == (3, 1)
    assert moved.weight.stride(0) == 0 and group.to(torch.device("cpu")) is group


def test_a_loader_of_rows_elsewhere_hands_over_places_there() -> None:
    whole = Events.of(torch.rand(50, 3))
    there = replace(whole, x=whole.x.to("meta"), context=whole.context.to("meta"), weight=whole.weight.to("meta"))
    groups = list(GroupLoader(there, batch_size=8, group=2))
    assert all(group.places.device.type == "meta" and group.x is there.x for group in groups)
    assert sum(len(group.places) for group in groups) == 50
