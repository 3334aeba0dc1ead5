"""Rows on disk are shuffled and served as rows in memory are: each once, by seed, whoever reads ahead."""

from __future__ import annotations

import threading
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from straylight.data import AnomalyDataModule
from straylight.detectors import AutoEncoder
from straylight.rows.batch import HIDDEN, Events, Splits
from straylight.rows.loaders import BatchLoader, GroupLoader, ahead
from straylight.rows.mapped import Mapped
from straylight.rows.order import BlockShuffled, Shuffled

few = settings(deadline=None, max_examples=60)
shapes = st.tuples(st.integers(0, 200), st.integers(1, 30), st.integers(1, 6))  # n, block, window


# the order of an epoch


def all_of(order, n):
    return order.part(0, n).tolist()


@few
@given(shapes, st.integers(0, 2**31))
def test_an_order_of_blocks_is_a_permutation(shape, seed):
    n, block, window = shape
    order = BlockShuffled(n, seed, block=block, window=window)
    assert order.part(0, n).dtype == torch.int64
    assert sorted(all_of(order, n)) == list(range(n)) == sorted(all_of(Shuffled(n, seed), n))


@few
@given(shapes, st.integers(0, 2**31), st.data())
def test_any_part_of_an_order_is_that_of_the_whole_in_whatever_turn(shape, seed, data):
    n, block, window = shape
    for make in (lambda: BlockShuffled(n, seed, block=block, window=window), lambda: Shuffled(n, seed)):
        whole, order = all_of(make(), n), make()
        for _ in range(6):
            low = data.draw(st.integers(0, n))
            high = data.draw(st.integers(low, n))
            assert order.part(low, high).tolist() == whole[low:high]


@few
@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 2**31))
def test_a_window_of_the_order_holds_whole_blocks(block, window, seed):
    n = 10 * block * window + block // 2
    whole = all_of(BlockShuffled(n, seed, block=block, window=window), n)
    start = 0
    while start < n:
        blocks = {row // block for row in whole[start : start + block * window]}
        if n % block and n // block in blocks:  # the last block is shorter
            length = (window - 1) * block + n % block if start + block * window <= n else n - start
        else:
            length = min(block * window, n - start)
        part = whole[start : start + length]
        touched = {row // block for row in part}
        assert len(touched) <= window
        assert sorted(part) == [row for b in sorted(touched) for row in range(b * block, min(n, (b + 1) * block))]
        start += length


def test_orders_differ_by_seed_and_have_nothing_of_the_file_s():
    orders = [all_of(BlockShuffled(5000, seed, block=50, window=10), 5000) for seed in range(4)]
    for i, a in enumerate(orders):
        assert abs(np.corrcoef(a, np.arange(5000))[0, 1]) < 0.3
        for b in orders[:i]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < 50  # five are expected by chance


def test_rows_of_a_window_are_mixed_evenly_and_come_from_all_over_the_file():
    n, block, window = 64 * 100, 64, 20
    whole = np.array(all_of(BlockShuffled(n, 3, block=block, window=window), n))
    for part in whole.reshape(-1, block * window):
        blocks, counts = np.unique(part // block, return_counts=True)
        assert len(blocks) == window and (counts == block).all()
        assert np.ptp(blocks) > 60 and (np.diff(blocks) > 1).sum() > 5  # not neighbours
        halves = [np.unique(half // block) for half in np.split(part, 2)]
        assert all(len(half) == window for half in halves)
        places = np.array([np.flatnonzero(part // block == b).mean() for b in blocks])
        assert abs(places - block * window / 2).max() < 5 * block * window / np.sqrt(12 * block)


def test_every_row_is_as_likely_to_come_first():
    first = [int(BlockShuffled(12, seed, block=3, window=2).part(0, 1)) for seed in range(3000)]
    counts = np.bincount(first, minlength=12)
    assert ((counts - 250) ** 2 / 250).sum() < 31.3  # chi square of 11 degrees of freedom, p = 0.001


# what is served

LOADS = st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 6))  # n, batch_size, group


def numbered(n):
    number = torch.arange(n)
    return torch.stack([number, -number], 1).reshape(n, 1, 2)


def events(n, weighted=True, context=2, x=None):
    """Rows on disk, or what passes for it, in two pieces; each carries its number in every column."""
    rows = numbered(n)
    x = Mapped([rows[: n // 3].double(), rows[n // 3 :].int()]) if x is None else x
    number = torch.arange(n)
    return Events.of(
        x,
        y=torch.ones(n),
        context=number[:, None] + torch.arange(context) / 4,
        weight=number + 1.0 if weighted else None,
    )


def checked(batch, weighted=True, context=2):
    """The rows' numbers in a batch, once it is certain that no column was moved away from the others."""
    rows = batch.index
    assert batch.x.dtype == batch.context.dtype == batch.weight.dtype == torch.float32
    assert batch.y.dtype == batch.index.dtype == torch.int64
    assert torch.equal(batch.x[:, 0, 0], rows.float()) and torch.equal(batch.x[:, 0, 1], -rows.float())
    assert torch.equal(batch.context, rows[:, None] + torch.arange(context) / 4)
    assert torch.equal(batch.weight, rows + 1.0 if weighted else torch.ones(len(rows)))
    return rows.tolist()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that few rows make several windows."""
    monkeypatch.setattr(
        "straylight.rows.loaders.BlockShuffled", lambda n, seed: BlockShuffled(n, seed, block=4, window=3)
    )


def minibatches(loader, epoch=0, **kind):
    loader.set_epoch(epoch)
    found = []
    for group in loader:
        assert (group.rows().y == HIDDEN).all()
        found += [checked(batch, **kind) for batch, _ in group.minibatches()]
    return found


def ranks(rows, batch_size, group, world, **more):
    return [
        GroupLoader(rows, batch_size=batch_size, group=group, rank=rank, world=world, **more) for rank in range(world)
    ]


@few
@given(LOADS, st.integers(1, 3), st.integers(0, 3), st.booleans(), st.integers(0, 2))
def test_each_row_on_disk_is_served_once_an_epoch_by_all_ranks_together(shape, world, epoch, weighted, context):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    kind = {"weighted": weighted, "context": context}
    dealt = [
        minibatches(loader, epoch, **kind) for loader in ranks(events(n, weighted, context), batch_size, group, world)
    ]
    assert sorted(chain(*chain(*dealt))) == list(range(n))
    assert len({len(rank) for rank in dealt}) == 1 and all(batch for rank in dealt for batch in rank)


@few
@given(LOADS, st.integers(1, 3))
def test_a_mini_batch_of_all_ranks_is_that_of_one(shape, world):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world and (n % batch_size == 0 or n % batch_size >= world))
    (alone,) = ranks(events(n), batch_size, group, 1)
    dealt = [minibatches(loader, 1) for loader in ranks(events(n), batch_size, group, world)]
    together = [sorted(chain(*parts)) for parts in zip(*dealt, strict=True)]
    assert together == [sorted(batch) for batch in minibatches(alone, 1)]


@settings(deadline=None, max_examples=25)
@given(LOADS, st.integers(0, 2**28), st.integers(1, 2), st.booleans())
def test_readers_ahead_change_no_batch(shape, seed, world, weighted):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    rows = events(n, weighted)
    for rank in range(world):
        served = []
        for workers in (0, 1, 3):
            loader = GroupLoader(
                rows, batch_size=batch_size, group=group, seed=seed, rank=rank, world=world, workers=workers
            )
            loader.set_epoch(1)
            served.append([(part, share) for g in loader for part, share in g.minibatches(world)])
        for other in served[1:]:
            for (a, share), (b, other_share) in zip(served[0], other, strict=True):
                assert share == other_share
                assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@few
@given(LOADS, st.integers(0, 3), st.integers(1, 2), st.data())
def test_a_loader_restored_in_mid_epoch_reads_exactly_what_was_left(shape, workers, world, data):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    for loader, fresh in zip(*(ranks(events(n), batch_size, group, world, workers=workers) for _ in "ab"), strict=True):
        assume(len(loader) > 1)
        done = data.draw(st.integers(1, len(loader) - 1))
        loader.set_epoch(2)
        served = iter(loader)
        for _ in range(done):
            next(served)
        fresh.load_state_dict(loader.state_dict())  # what was read ahead is not yet done
        fresh.set_epoch(2)
        assert [checked(g.rows()) for g in fresh] == [checked(g.rows()) for g in served]
        fresh.set_epoch(3)
        loader.set_epoch(3)
        assert [checked(g.rows()) for g in fresh] == [checked(g.rows()) for g in loader]


def test_orders_differ_by_epoch_and_by_seed():
    loader = GroupLoader(events(60), batch_size=7, group=2)
    orders = [minibatches(loader, epoch) for epoch in (0, 1, 2, 0)]
    assert orders[0] == orders[3] and orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] != minibatches(GroupLoader(events(60), batch_size=7, group=2, seed=1))


@pytest.mark.parametrize("seed", [2**28, 300_000_000, 2**32 - 1])
def test_any_seed_that_a_config_takes_makes_an_order(seed):
    assert sorted(chain(*minibatches(GroupLoader(events(20), batch_size=4, seed=seed)))) == list(range(20))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_evaluation_rows_on_disk_are_served_in_order(workers):
    served = list(BatchLoader(events(23), batch_size=4, workers=workers))
    assert list(chain(*map(checked, served))) == list(range(23))
    assert all((batch.y == 1).all() for batch in served)


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("straylight-reader")]


@pytest.mark.parametrize("make", [GroupLoader, BatchLoader])
@pytest.mark.parametrize("end", ["close", "delete", "break", "finish"])
def test_no_reader_outlives_an_iteration(make, end):
    loader = make(events(60), batch_size=2, workers=2)
    loader.group = 1
    served = iter(loader)
    next(served)
    assert readers()
    if end == "close":
        served.close()
    elif end == "delete":
        del served
    elif end == "finish":
        assert len(list(served)) > 3
    else:
        del served
        for _ in loader:
            break
    assert not readers()


class Broken:
    """A source that fails at one row."""

    def __init__(self, n, bad):
        self.x, self.bad = numbered(n).float(), bad

    def __len__(self):
        return len(self.x)

    def __getitem__(self, part):
        return self.x[part]

    def index_select(self, axis, index):
        if self.bad in index.tolist():
            raise OSError("the disk is gone")
        return self.x.index_select(axis, index)


@pytest.mark.parametrize("make", [GroupLoader, BatchLoader])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_reading_reaches_who_asked_for_the_row_and_ends_the_readers(make, workers):
    loader = make(events(40, x=Mapped([Broken(40, bad=33)])), batch_size=5, workers=workers)
    loader.group = 1
    served = []
    with pytest.raises(OSError, match="the disk is gone"):
        for part in loader:
            served += part.index.tolist()
    assert 33 not in served and not readers()
    if make is BatchLoader:
        assert served == list(range(30))  # what was read before is served first


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-9, 9), max_size=20), st.integers(0, 4))
def test_reading_ahead_is_map(places, workers):
    assert list(ahead(abs, places, workers)) == list(map(abs, places))


def test_no_more_is_read_ahead_than_there_are_readers_for():
    read = []
    served = ahead(lambda place: read.append(place) or place, range(100), workers=2)
    next(served)
    served.close()
    assert len(read) <= 4


# training


class Lazy(AnomalyDataModule):
    """Blobs that stay where they are, or are read into memory first."""

    def __init__(self, mapped, **common):
        super().__init__(**{"memory_mb": 0, "batch_size": 32, "group": 3, **common})
        self.mapped = mapped

    def load(self) -> Splits:
        x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
        return self.split(
            Events.of(Mapped([x[:200], x[200:].double()]) if self.mapped else x, torch.arange(600) >= 560)
        )


def weights(trainer, data, epochs=2, **options):
    torch.manual_seed(1)
    detector = AutoEncoder((4,), hidden=[6], latent=2)
    trainer(max_epochs=epochs, **options).fit(detector, datamodule=data)
    return detector.state_dict()


def test_training_gives_the_same_weights_whoever_reads_ahead(trainer):
    one, *others = (weights(trainer, Lazy(True, workers=workers)) for workers in (0, 2))
    for other in others:
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not readers()


def test_rows_in_one_window_of_one_block_train_as_rows_in_memory_do_when_the_order_is_the_same(trainer, monkeypatch):
    monkeypatch.setattr("straylight.rows.loaders.BlockShuffled", Shuffled)
    on_disk, in_memory = (weights(trainer, Lazy(mapped)) for mapped in (True, False))
    assert isinstance(Lazy(True).splits.train.x, Mapped)
    assert all(torch.equal(on_disk[key], in_memory[key]) for key in on_disk)


def test_rows_that_memory_may_hold_are_read_into_it_and_are_the_same(trainer):
    read, never = Lazy(True, memory_mb=1), Lazy(False)
    assert all(isinstance(part.x, torch.Tensor) for part in read.splits)
    for a, b in zip(read.splits, never.splits, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
    a, b = weights(trainer, read), weights(trainer, never)
    assert all(torch.equal(a[key], b[key]) for key in a)
