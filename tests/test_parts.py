"""Several files are the data set that the same rows in one file are, and each of several ranks reads its own."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain, pairwise
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fresh import Program
from straylight import config
from straylight.data import File
from straylight.detectors import AutoEncoder
from straylight.errors import ConfigError, DataError
from straylight.files import several
from straylight.files.several import called, check_same, files_of, rank_hint
from straylight.folder import RunFolder
from straylight.overrides import from_here
from straylight.rows.batch import Events
from straylight.rows.loaders import BatchLoader, GroupLoader
from straylight.rows.mapped import Lying, Mapped
from straylight.rows.stretches import Stretches
from straylight.run import Run

N = 240
CUTS = (0, 90, 97, 200, N)  # where one part ends and the next begins


def refused(action, said):
    """One sentence says what is wrong."""
    with pytest.raises(DataError, match=said) as found:
        action()
    assert str(found.value).count(". ") == 0 and str(found.value).endswith(".")


few = settings(deadline=None, max_examples=60)


def table(n=N, seed=0):
    """Rows of every role, whose numbers and texts are not sorted by the part that they are in."""
    rng = np.random.default_rng(seed)
    strange = rng.random(n) < 0.15
    return pa.table(
        {
            "a": rng.normal(size=n) + 3 * strange,
            "b": rng.integers(-50, 50, n),
            "time": 1_700_000_000_000 + rng.permutation(n) * 1000,
            "mass": rng.integers(1, 99, n) / 2,
            "w": 1 + rng.integers(0, 4, n) / 4,
            "run": rng.integers(0, n // 4, n),
            "id": np.array([f"{i:04}" for i in rng.permutation(n)]),
            "y": strange.astype(np.int64) * rng.integers(1, 3, n),
        }
    )


def write(path, rows):
    name = path.name
    if name.endswith(".csv"):
        pa.csv.write_csv(rows, path)
    elif name.endswith(".parquet"):
        pq.write_table(rows, path, row_group_size=40)
    else:
        arrays = {n: rows[n].combine_chunks().to_numpy(zero_copy_only=False) for n in rows.column_names}
        arrays = {n: v.astype("U" if name.endswith(".npz") else object) if n == "id" else v for n, v in arrays.items()}
        if name.endswith(".npz"):
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for n, values in arrays.items():
                    file.create_dataset(n, data=values, chunks=(min(16, len(values)),))
    return path


def parted(folder, rows, ending=".parquet", cuts=CUTS):
    """One file of all rows, and the pattern of the files that hold them one after the other."""
    folder.mkdir(exist_ok=True)
    for i, (low, high) in enumerate(pairwise(cuts)):
        write(folder / f"part-{i}{ending}", rows.slice(low, high - low))
    return str(write(folder / f"whole{ending}", rows)), str(folder / f"part-*{ending}")


def same(one, other):
    for a, b in zip(one.splits, other.splits, strict=True):
        assert torch.equal(a.x[: len(a)], b.x[: len(b)])
        for name in ("y", "context", "weight"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)
        assert a.meta.keys() == b.meta.keys()
        for name in a.meta:
            np.testing.assert_array_equal(a.meta[name], b.meta[name])
    recipe = other.recipe()
    recipe.pop("parts")
    assert one.recipe() == recipe


ROLES = {"label": "y", "context": ["mass"], "weight": "w", "meta": ["id"]}
HOW = {
    "nominal_only": {},
    "grouped": {"group": "run", "features": ["a", "b", "time"]},
    "contaminated": {"reserve_fraction": 0.5, "contamination": 0.05},
    "unsupervised": {"protocol": "unsupervised"},
    "resonance": {"resonance": "mass", "signal_region": [10, 20], "context": []},
    "categories": {"categorical": ["b"]},
    "no label": {"label": None, "features": ["a", "b"], "train_fraction": 0.7},
}


# the oracle: the same rows in one file


@pytest.mark.parametrize("memory_mb", [4096, 0])
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_several_files_are_split_and_encoded_as_the_same_rows_in_one(tmp_path, how, memory_mb):
    whole, parts = parted(tmp_path, table())
    options = {**ROLES, "seed": 3, "memory_mb": memory_mb, **how}
    if "group" not in options and "features" not in options:
        options["features"] = ["a", "b", "time"]
    one, many = (File(path=path, **options) for path in (whole, parts))
    same(one, many)
    assert isinstance(many.splits.train.x, Mapped) == (memory_mb == 0 and "categorical" not in how)
    if "features" in options and "time" in options["features"]:
        assert many.recipe()["centres"]["time"]


@pytest.mark.parametrize("ending", [".csv", ".npz", ".h5", ".parquet"])
def test_in_every_format(tmp_path, ending):
    whole, parts = parted(tmp_path, table(), ending)
    for memory_mb in (4096, 0):
        options = {**ROLES, "group": "run", "memory_mb": memory_mb}
        same(File(path=whole, **options), File(path=parts, **options))


def arrays(folder, dtypes=("float32",) * 4):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, 2, 3)) + 1e6
    for i, (low, high) in enumerate(pairwise(CUTS)):
        np.save(folder / f"part-{i}.npy", x[low:high].astype(dtypes[i]))
    np.save(folder / "whole.npy", np.concatenate([np.load(folder / f"part-{i}.npy") for i in range(4)]))
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("memory_mb", [4096, 0])
def test_events_of_several_axes_lie_where_they_are(tmp_path, dtype, memory_mb):
    arrays(tmp_path, (dtype,) * 4)
    one, many = (
        File(path=str(tmp_path / name), train_fraction=0.6, memory_mb=memory_mb) for name in ("whole.npy", "part-*.npy")
    )
    same(one, many)
    if memory_mb == 0:
        assert all(isinstance(source, Lying) for source in many.splits.train.x.sources)
        assert many.splits.train.x.finite and not list(tmp_path.glob(".straylight/*/x.npy"))  # nothing was copied


def test_tested_files_may_be_several_too(tmp_path):
    whole, parts = parted(tmp_path / "train", table())
    tested, tests = parted(tmp_path / "test", table(seed=5))
    for memory_mb in (4096, 0):
        for unseen in ("other", "skip"):
            options = {**ROLES, "memory_mb": memory_mb, "categorical": ["b"], "unseen": unseen}
            one = File(path=whole, test_path=tested, **options)
            same(one, File(path=parts, test_path=tests, **options))
            same(one, File(path=parts, test_path=tested, **options))


def test_what_is_missing_is_found_and_filled_in_as_in_one_file(tmp_path):
    rows = table()
    lacking = np.where(np.arange(N) % 50 == 3, np.nan, rows["a"].to_numpy())
    rows = rows.set_column(0, "a", pa.array(lacking))
    whole, parts = parted(tmp_path, rows)
    for missing in ("median", "indicator", "skip"):
        for memory_mb in (4096, 0):
            options = {**ROLES, "features": ["a", "b"], "missing": missing, "memory_mb": memory_mb}
            same(File(path=whole, **options), File(path=parts, **options))
    refused(lambda: File(path=parts, features=["a", "b"], label="y", memory_mb=0).setup(), "hold a NaN")


def test_numbers_of_different_types_are_those_of_the_wider(tmp_path):
    rows = table().select(["a", "b", "y"])
    whole, parts = parted(tmp_path, rows)
    write(tmp_path / "part-1.parquet", rows.slice(90, 7).set_column(1, "b", rows["b"].slice(90, 7).cast("double")))
    write(tmp_path / "part-2.parquet", rows.slice(97, 103).set_column(2, "y", rows["y"].slice(97, 103).cast("int8")))
    for memory_mb in (4096, 0):
        one, many = (File(path=path, label="y", memory_mb=memory_mb) for path in (whole, parts))
        for a, b in zip(one.splits, many.splits, strict=True):
            assert torch.equal(a.x[: len(a)], b.x[: len(b)]) and torch.equal(a.y, b.y)
    arrays(tmp_path, ("float32", "float64", "float32", "float64"))
    one, many = (File(path=str(tmp_path / f"{n}.npy"), train_fraction=0.6) for n in ("whole", "part-*"))
    same(one, many)


def test_numbers_in_one_table_in_text_and_words_in_another_are_text_where_the_column_has_a_role(tmp_path):
    (tmp_path / "a.csv").write_text("x,code,y\n" + "".join(f"{i},{i % 3:03},0\n" for i in range(40)))
    (tmp_path / "b.csv").write_text(
        "x,code,y\n" + "".join(f"{i},x{i % 2},{'0' if i % 3 else 'bad'}\n" for i in range(20))
    )
    lines = [(tmp_path / name).read_text().splitlines() for name in ("a.csv", "b.csv")]
    (tmp_path / "whole.csv").write_text("\n".join([*lines[0], *lines[1][1:]]) + "\n")
    options = {"label": "y", "categorical": ["code"]}
    one, many = (File(path=str(tmp_path / name), **options) for name in ("whole.csv", "[ab].csv"))
    for a, b in zip(one.splits, many.splits, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
    assert one.columns == many.columns == ["x", "code=000", "code=001", "code=002", "code=x0", "code=x1"]
    refused(lambda: File(path=str(tmp_path / "[ab].csv"), label="y").setup(), "b.csv has text in column 'code'")


# where rows come from


@pytest.mark.parametrize("memory_mb", [4096, 0])
def test_a_row_is_called_by_its_part_and_its_number_there(tmp_path, memory_mb):
    rows = table()
    _, parts = parted(tmp_path, rows)
    data = File(
        path=parts,
        label="y",
        meta="id",
        features=["a", "b"],
        memory_mb=memory_mb,
        contamination=0.1,
        reserve_fraction=0.5,
    )
    seen = 0
    for events in data.splits:
        named = {name: column.to_pylist() for name, column in events.named().items()}
        for x, file, row, known in zip(events.x[: len(events)], named["file"], named["row"], named["id"], strict=True):
            part = pq.read_table(file)
            assert part["id"][row - 1].as_py() == known
            assert np.float32(part["a"][row - 1].as_py()) == x[0]
            seen += 1
    assert seen >= N - 40
    assert data.splits.test.origin.called([0])[0].startswith("id ")
    bare = File(path=parts, label="y", features=["a", "b"], memory_mb=memory_mb)
    assert bare.splits.test.origin.called([len(bare.splits.test) - 1])[0].endswith("of part-3.parquet")


def test_an_id_that_two_parts_share_names_no_row(tmp_path):
    rows = table().select(["a", "b", "y"]).append_column("id", pa.array(np.arange(N) % 60))
    _, parts = parted(tmp_path, rows, cuts=(0, 60, 120, 180, N))
    test = File(path=parts, label="y", meta="id").splits.test
    assert test.origin.called([0])[0].startswith("row ")


def test_a_run_keeps_the_name_of_every_part(tmp_path):
    _, parts = parted(tmp_path, table())
    kept = File(path=parts, **ROLES, features=["a", "b"]).recipe()["parts"]
    assert [Path(part["file"]).name for part in kept] == [f"part-{i}.parquet" for i in range(4)]
    assert all(Path(part["file"]).stat().st_size == part["bytes"] for part in kept)


# which files are meant


def test_patterns_folders_and_lists_are_sorted_and_each_file_is_taken_once(tmp_path):
    place = tmp_path / "of [2024]"
    for name in ("b.csv", "a.csv", "sub/c.csv", ".hidden/d.csv", "notes.txt", "_SUCCESS"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x\n1\n")
    a, b, c = place / "a.csv", place / "b.csv", place / "sub" / "c.csv"
    assert files_of(place) == [a, b, c]
    assert files_of(str(place / "*.csv")) == [a, b]  # the folder's own name is no pattern
    assert files_of(str(place / "**" / "*.csv")) == [a, b, c]
    assert files_of([str(b), str(place / "*.csv"), str(a)]) == [a, b]
    assert called(str(place)) == "of [2024]" and called(str(place / "part-*.csv")) == "part"
    odd = place / "x[1].csv"
    odd.write_text("x\n1\n")
    assert files_of(str(odd)) == [odd] and called(str(odd)) == "x[1]"


def empty(folder):
    (folder / "part-1.parquet").write_bytes(b"")


def cut_off(folder):
    whole = (folder / "part-1.parquet").read_bytes()
    (folder / "part-1.parquet").write_bytes(whole[: len(whole) // 2])


def other_format(folder):
    (folder / "part-9.csv").write_text("a,y\n1,0\n")


def no_format(folder):
    (folder / "part-9.txt").write_text("a")


def lacks(folder):
    write(folder / "part-1.parquet", table().slice(90, 7).drop_columns(["b"]))


def has_more(folder):
    rows = table().slice(90, 7)
    write(folder / "part-1.parquet", rows.append_column("more", rows["a"]))


def has_text(folder):
    rows = table().slice(90, 7)
    write(folder / "part-1.parquet", rows.set_column(1, "b", rows["id"]))


def has_times(folder):
    rows = table().slice(90, 7)
    write(folder / "part-1.parquet", rows.set_column(1, "b", rows["b"].cast(pa.timestamp("s"))))


DAMAGE = {
    "empty": (empty, "part-1.parquet is empty"),
    "cut off": (cut_off, "part-1.parquet cannot be read as Parquet"),
    "of another format": (other_format, "part-0.parquet and part-9.csv, which are of two formats"),
    "of no format": (no_format, "part-9.txt, which is of no format that is known"),
    "without a column": (lacks, "part-1.parquet lacks 'b', which part-0.parquet has"),
    "with one more": (has_more, "part-0.parquet lacks 'more', which part-1.parquet has"),
    "with text": (has_text, "part-1.parquet has text in column 'b', and part-0.parquet numbers"),
    "with times": (has_times, r"part-1.parquet has timestamp\[ms\] in column 'b', and part-0.parquet numbers"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("memory_mb", [4096, 0])
def test_a_part_that_is_unlike_the_others_is_named_with_what_is_wrong(tmp_path, damage, said, memory_mb):
    parted(tmp_path, table())
    (tmp_path / "whole.parquet").unlink()
    damage(tmp_path)
    refused(lambda: File(path=str(tmp_path / "part-*"), **ROLES, memory_mb=memory_mb).setup(), said)


def test_a_part_that_is_damaged_further_on_is_named(tmp_path):
    _, parts = parted(tmp_path, table())
    path = tmp_path / "part-2.parquet"
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 3] = bytes(len(whole) // 3 - 4)
    path.write_bytes(whole)
    for memory_mb in (4096, 0):
        refused(
            lambda m=memory_mb: File(path=parts, label="y", features=["a", "b", "time"], memory_mb=m).setup(),
            "part-2.parquet cannot be read as Parquet",
        )


def test_what_names_no_file_is_said(tmp_path, monkeypatch):
    (tmp_path / "bare").mkdir()
    (tmp_path / "a.csv").write_text("x\n1\n")
    for path, said in {
        str(tmp_path / "part-*.csv"): "no file is called like",
        str(tmp_path / "bare"): "holds no file of a known format",
        str(tmp_path / "gone.csv"): "there is no file",
        (str(tmp_path / "a.csv"), str(tmp_path / "gone.csv")): "there is no file .*gone.csv",
        (): "an empty list",
    }.items():
        refused(lambda p=path: File(path=p).setup(), said)
    for i in range(6):
        (tmp_path / f"b-{i}.csv").write_text("x\n1\n")
    monkeypatch.setattr(several, "MOST", 5)
    refused(lambda: File(path=str(tmp_path / "b-*")).setup(), "names 6 files, and at most 5 can be one")


def test_parts_without_rows_are_left_out_and_counted(tmp_path):
    rows = table().select(["a", "b", "y"])
    whole, parts = parted(tmp_path, rows)
    write(tmp_path / "part-0b.parquet", rows.slice(0, 0))
    many = File(path=parts, label="y")
    same(File(path=whole, label="y"), many)
    assert "1 of the files of" in many.notices[0] and "hold no rows" in many.notices[0]
    for path in tmp_path.glob("part-*"):
        write(path, rows.slice(0, 0))
    refused(lambda: File(path=parts, label="y").setup(), "none of the 5 files")


# paths, wherever they are read


def test_patterns_and_lists_are_meant_from_where_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here("data.path=[a.csv,sub/p-*.csv]") == f"data.path=[{tmp_path}/a.csv,{tmp_path}/sub/p-*.csv]"
    assert from_here("data.test_path='p [1]*.csv'") == f"data.test_path='{tmp_path}/p [1]*.csv'"
    assert from_here("data.path=[]") == "data.path=[]"
    cfg = OmegaConf.create({"paths": {}, "data": {"path": ["a.csv", "/there/b.csv"], "test_path": "p-*.csv"}})
    config.settle_paths(cfg, "/from")
    assert cfg.data.path == ["/from/a.csv", "/there/b.csv"] and cfg.data.test_path == "/from/p-*.csv"


def test_a_run_is_not_gone_on_with_on_other_parts():
    before = [{"file": "a", "bytes": 1}, {"file": "b", "bytes": 2}]
    check_same(before, list(before))
    check_same([], before)  # of an earlier version
    for now, said in {
        "b is gone": before[:1],
        "c is new": [*before, {"file": "c", "bytes": 1}],
        "a has another size": [{"file": "a", "bytes": 9}, before[1]],
    }.items():
        refused(lambda known=said: check_same(before, known), now)


# which rows are whose


@st.composite
def lying(draw):
    """Some rows of several sources, and how many ranks there are."""
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda s: sum(s) > 3))
    n = sum(sizes)
    number = torch.arange(n)
    x = Mapped([part[:, None].float() for part in number.split(sizes)])
    rows = draw(st.lists(st.integers(0, n - 1), min_size=4, max_size=80))
    if draw(st.booleans()):
        rows = sorted(set(rows)) if len(set(rows)) > 3 else sorted(rows)
    return (x if draw(st.booleans()) else x.take(rows)), draw(st.integers(1, 4))


@few
@given(lying())
def test_every_row_is_one_rank_s_and_a_rank_s_rows_lie_together(case):
    x, ranks = case
    own = Stretches(x, ranks)
    rows = [own.rows(rank, np.arange(own.sizes[rank])) for rank in range(ranks)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(x)))
    places = [x.places()[part] for part in rows]
    for part in places:
        assert (np.diff(part) >= 0).all()
    for low, high in pairwise(places):
        if len(low) and len(high):
            assert low.max() <= high.min()
    assert all(abs(size - len(x) / ranks) <= 2 * len(x) / ranks / 16 + 1 for size in own.sizes)


@few
@given(lying(), st.integers(1, 30), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3))
def test_each_row_is_served_once_an_epoch_in_equally_many_steps(case, batch_size, group, epoch, workers):
    x, ranks = case
    if batch_size < ranks:
        return
    events, dealt = Events.of(x), []
    for rank in range(ranks):
        loader = GroupLoader(
            events, batch_size=batch_size, group=group, rank=rank, world=ranks, by_parts=True, workers=workers
        )
        loader.set_epoch(epoch)
        dealt.append([pair for part in loader for pair in part.minibatches(ranks)])
    assert len({len(batches) for batches in dealt}) == 1
    assert sorted(chain(*(b.index.tolist() for batches in dealt for b, _ in batches))) == list(range(len(x)))
    for together in zip(*dealt, strict=True):
        total = sum(len(b.index) for b, _ in together)
        assert all(len(b.index) for b, _ in together)
        assert total <= batch_size + 2 * ranks
        for batch, share in together:
            assert share == pytest.approx(len(batch.index) * ranks / total)
            assert torch.equal(batch.x, x.index_select(0, batch.index))


def test_a_rank_reads_its_own_parts_and_orders_differ_by_epoch_and_rank():
    x = Mapped([torch.arange(i * 50, i * 50 + 50)[:, None].float() for i in range(8)])
    for rank in (0, 1):
        loader = GroupLoader(Events.of(x), batch_size=10, group=3, rank=rank, world=2, by_parts=True)
        orders = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            orders.append(torch.cat([part.index for part in loader]))
            assert sorted(orders[-1].tolist()) == list(range(200 * rank, 200 * rank + 200))
        assert not torch.equal(*orders)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_epoch_is_ended_exactly_and_by_as_many_ranks_as_began_it(ranks):
    x = Mapped([torch.arange(i * 30, i * 30 + 30)[:, None].float() for i in range(4)])
    make = lambda world, rank=0: GroupLoader(  # noqa: E731
        Events.of(x), batch_size=8, group=2, rank=rank, world=world, by_parts=True
    )
    for rank in range(ranks):
        loader, fresh = make(ranks, rank), make(ranks, rank)
        loader.set_epoch(2)
        served = iter(loader)
        next(served), next(served)
        fresh.load_state_dict(loader.state_dict())
        fresh.set_epoch(2)
        assert [part.index.tolist() for part in fresh] == [part.index.tolist() for part in served]
    other = make(3 - ranks)
    with pytest.raises(ConfigError, match="read files of their own"):
        other.load_state_dict({**loader.state_dict(), "done": 1})
    older = {"done": 1, "group": 2}
    make(1).load_state_dict(older)


def test_evaluation_by_parts_is_of_neighbours_and_serves_every_row():
    x = Mapped([torch.arange(i * 30, i * 30 + 30)[:, None].float() for i in range(4)])
    served = [
        [b.index.tolist() for b in BatchLoader(Events.of(x), batch_size=10, rank=r, world=3, by_parts=True)]
        for r in range(3)
    ]
    assert list(chain(*chain(*served))) == list(range(120)) and [len(part) for part in served] == [4, 4, 4]


def test_in_memory_ranks_share_all_rows_as_ever():
    events = Events.of(torch.arange(40)[:, None].float())
    plain, parts = (GroupLoader(events, batch_size=8, rank=1, world=2, by_parts=by_parts) for by_parts in (False, True))
    assert [g.index.tolist() for g in plain] == [g.index.tolist() for g in parts]
    assert plain.state_dict() == parts.state_dict()


# what is opened and read


@pytest.fixture
def read(monkeypatch):
    """Counts the rows that are read of each file."""
    counted: dict[str, int] = {}
    plain = Lying.index_select

    def index_select(self, axis, index):
        name = self.path.parent.name.partition(".")[0] if self.path.name == "x.npy" else self.path.name
        counted[name] = counted.get(name, 0) + len(index)
        return plain(self, axis, index)

    monkeypatch.setattr(Lying, "index_select", index_select)
    return counted


class Placed(File):
    """As on one of several ranks."""

    place = (0, 1)

    @property
    def _place(self):
        return self.place


def test_one_of_two_ranks_reads_half_of_the_rows_and_only_its_own_files(tmp_path, read, monkeypatch):
    monkeypatch.setattr("straylight.data.base.LOOKED_AT", 0)  # as of data that memory does not hold
    monkeypatch.setattr("straylight.data.steps.telling.VALUES", 0)
    rows = table(4000).select(["a", "b", "y"])
    _, parts = parted(tmp_path, rows, cuts=range(0, 4001, 500))
    for rank in (0, 1):
        monkeypatch.setattr("straylight.data.file.rank_zero_only.rank", rank)
        data = Placed(path=parts, label="y", memory_mb=0, batch_size=50)
        data.place = (rank, 2)
        data.setup()
        assert sum(read.values()) <= 200  # a few rows to look at
        read.clear()
        scaled = torch.cat(list(data.own_training_rows()))
        assert len(scaled) == pytest.approx(len(data.splits.train) / 2, rel=0.07)
        trained = sum(len(group.index) for group in data.train_dataloader())
        assert trained == len(scaled) and sum(read.values()) == 2 * trained
        assert sorted(read) == [f"part-{i}" for i in range(4 * rank, 4 * rank + 4)]
        read.clear()
        tested = sum(len(batch.index) for batch in data.test_dataloader())
        assert sum(read.values()) == tested <= len(data.splits.test)
        read.clear()


def test_each_part_is_converted_once_by_whoever_comes_first_and_ranks_begin_with_their_own(tmp_path, monkeypatch):
    _, parts = parted(tmp_path, table().select(["a", "b", "y"]))
    made = []
    plain = several.Source._write

    def write_one(self, *more):
        made.append(self.path.name)
        plain(self, *more)

    monkeypatch.setattr(several.Source, "_write", write_one)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rank_hint() == (1, 2)
    File(path=parts, label="y", memory_mb=0).setup()
    assert made == [f"part-{i}.parquet" for i in (2, 3, 0, 1)]
    File(path=parts, label="y", memory_mb=0).setup()
    assert len(made) == 4
    pq.write_table(table().slice(90, 7).select(["a", "b", "y"]), tmp_path / "part-1.parquet", compression="gzip")
    File(path=parts, label="y", memory_mb=0).setup()
    assert made[4:] == ["part-1.parquet"]


def test_a_copy_that_is_gone_or_another_is_said_where_it_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 2), np.float32))
    rows = Lying(tmp_path / "x.npy", (4, 2))
    assert rows[:0].shape == (0, 2) and rows.index_select(0, torch.tensor([1])).shape == (1, 2)
    np.save(tmp_path / "x.npy", np.zeros((5, 2), np.float32))
    with pytest.raises(DataError, match="changed while it was in use"):
        rows.index_select(0, torch.tensor([1]))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        rows.index_select(0, torch.tensor([1]))


def test_many_files_are_not_all_open(tmp_path):
    for i in range(600):
        np.save(tmp_path / f"part-{i:03}.npy", np.full((3, 2), i, np.float32))
    x = Mapped([Lying(tmp_path / f"part-{i:03}.npy", (3, 2)) for i in range(600)])
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir())) if fds.is_dir() else 0
    assert x[:][:, 0].tolist() == [i for i in range(600) for _ in range(3)]
    if before:
        assert len(list(fds.iterdir())) - before <= 260


# training


def trained(trainer, path, tmp, **options):
    data = File(path=path, label="y", features=["a", "b"], batch_size=16, seed=1, **options)
    torch.manual_seed(2)
    data.setup()
    detector = AutoEncoder(data.shape, hidden=[4], latent=1)
    trainer(max_epochs=2).fit(detector, datamodule=data)
    return detector.state_dict()


@pytest.mark.parametrize("memory_mb", [4096, 0])
def test_one_process_ends_with_the_weights_of_one_file(tmp_path, trainer, memory_mb):
    whole, parts = parted(tmp_path, table())
    one, many = (trained(trainer, path, tmp_path, memory_mb=memory_mb) for path in (whole, parts))
    assert all(torch.equal(one[key], many[key]) for key in one)


CHECK = """
import json
import pytorch_lightning as pl
import torch
from straylight.data import base, file
from straylight.data.steps import telling
from straylight.rows.mapped import Lying

base.LOOKED_AT, file.LOOKED_AT, telling.VALUES = 0, 8, 0  # as of data that memory does not hold
READ = {}
plain = Lying.index_select

def index_select(self, axis, index):
    READ[self.path.parent.name] = READ.get(self.path.parent.name, 0) + len(index)
    return plain(self, axis, index)

Lying.index_select = index_select

class Keep(pl.Callback):
    def __init__(self, folder): self.folder = folder
    def on_train_end(self, trainer, module):
        rank = trainer.global_rank
        torch.save(module.state_dict(), f"{self.folder}/rank{rank}.pt")
        open(f"{self.folder}/read{rank}.json", "w").write(json.dumps(READ))
"""
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
JOB = ["data=file", "data.label=y", "data.features=[a,b]", "trainer.max_epochs=2", "data.batch_size=37", "logger=none"]
JOB += ["callbacks.latency.budget_s=0.01", "callbacks.latency.runtimes=[eager]", "callbacks.figures.only=[]"]
JOB += ["callbacks.tensorboard.max_points=0", "data.val_fraction=0.2"]

KNN = ((1, 4096, ()), (2, 0, TWO))


def scores(run):
    found = pq.read_table(run / "scores.parquet")
    assert found["index"].to_pylist() == list(range(len(found)))
    return found


@pytest.mark.slow
def test_two_ranks_train_on_their_own_parts_and_end_alike(tmp_path):
    (tmp_path / "check.py").write_text(CHECK)
    _, parts = parted(tmp_path / "data", table(2400), cuts=range(0, 2401, 300))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def train(name, *more):
        run = tmp_path / name
        keep = "+callbacks.keep={_target_:check.Keep,folder:'${paths.run}'}"
        command = [sys.executable, "-W", "ignore", "-m", "straylight", "train", *JOB, keep, *more]
        command += [f"hydra.run.dir={run}", "data.path=data/part-*.parquet"]  # a relative pattern
        process = Program(command, cwd=tmp_path, env=env)
        _, err = process.communicate(timeout=900)
        process.close()
        assert process.returncode == 0, err
        assert RunFolder(run).read()["status"] == "ok"
        return run

    mapped = train("mapped", "detector=autoencoder", "data.memory_mb=0", *TWO)
    states = [torch.load(mapped / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    read = [json.loads((mapped / f"read{rank}.json").read_text()) for rank in (0, 1)]
    for rank, counted in enumerate(read):
        own = sum(n for name, n in counted.items() if int(name[5]) // 4 == rank)
        assert own > 800 and sum(counted.values()) - own < 100  # a few are looked at, from all over
    assert sum(read[0].values()) == pytest.approx(sum(read[1].values()), rel=0.1)
    found = scores(mapped)
    assert {Path(file).name for file in found["file"].to_pylist()} == {f"part-{i}.parquet" for i in range(8)}
    again = scores(mapped).filter(pa.compute.equal(found["file"], f"{tmp_path}/data/part-3.parquet"))
    new = Run.open(mapped, trust=["check.Keep"]).score(parts.replace("*", "3"))
    assert np.allclose(again["score"], np.asarray(new)[again["row"].to_numpy() - 1], rtol=1e-5)

    one, two = (scores(train(f"alone-{n}", "detector=autoencoder", *more)) for n, more in ((1, ()), (2, TWO)))
    assert np.allclose(one["score"], two["score"], rtol=1e-4, atol=1e-4)  # in memory, as test_ddp demands
    one, two = (scores(train(f"knn-{n}", "detector=knn", f"data.memory_mb={mb}", *more)) for n, mb, more in KNN)
    assert np.allclose(
        one["score"], two["score"], rtol=1e-6
    )  # all rows are gathered; the scaling's last bit may differ


def test_a_run_is_resumed_from_another_folder_on_the_same_parts_and_on_no_others(
    tmp_path, straylight_train, monkeypatch
):
    parted(tmp_path / "data", table().select(["a", "b", "y"]))
    (tmp_path / "elsewhere").mkdir()
    asked = ["data=file", "data.label=y", "detector=autoencoder", "logger=none"]
    pattern, three = "data/part-*.parquet", "[data/part-0.parquet,data/part-2.parquet,data/part-1.parquet]"
    runs = []
    for path, parts in ((pattern, 4), (three, 3)):
        done = straylight_train(*asked, f"data.path={path}", epochs=1, output=f"out-{parts}")
        assert done.status == 0, done.err
        runs.append(done.run)
        named = json.loads((done.run / "shape.json").read_text())["recipe"]["parts"]
        assert [Path(part["file"]).name for part in named] == [f"part-{i}.parquet" for i in range(parts)]
        with monkeypatch.context() as moved:
            moved.chdir(tmp_path / "elsewhere")
            again = straylight_train(f"resume={done.run}", "trainer.max_epochs=2")
        assert again.status == 0 and RunFolder(done.run).read()["epochs"] == 2, again.err
    (tmp_path / "data" / "part-2.parquet").rename(tmp_path / "gone.parquet")
    for run, said in zip(runs, ("part-2.parquet is gone since the run began", "there is no file"), strict=True):
        gone = straylight_train(f"resume={run}", "trainer.max_epochs=3")
        assert gone.status == 1 and said in gone.err
