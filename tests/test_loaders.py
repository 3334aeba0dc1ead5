"""Loaders serve every row once, whatever the batch size, the grouping and the number of ranks."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from straylight.errors import DataError
from straylight.rows.batch import HIDDEN, Batch, Events
from straylight.rows.loaders import BatchLoader, GroupLoader

few = settings(deadline=None, max_examples=60)
sizes = st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 6))  # n, batch_size, group
worlds = st.integers(1, 5)


def events(n, weighted=True, context=2):
    """Rows that carry their own number in every column; all labels anomalous, to see that none is served."""
    number = torch.arange(n)
    return Events.of(
        torch.stack([number, -number], 1).reshape(n, 1, 2),
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
    assert len(batch.y) == len(rows)
    return rows.tolist()


def minibatches(loader, epoch=0):
    loader.set_epoch(epoch)
    return [checked(batch) for group in loader for batch, _ in group.minibatches()]


def ranks(n, batch_size, group, world, **more):
    return [
        GroupLoader(events(n), batch_size=batch_size, group=group, rank=rank, world=world, **more)
        for rank in range(world)
    ]


# GroupLoader


@few
@given(sizes, worlds, st.integers(0, 3))
def test_every_row_is_served_once_in_an_epoch_by_all_ranks_together(shape, world, epoch):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    dealt = [minibatches(loader, epoch) for loader in ranks(n, batch_size, group, world)]
    assert sorted(row for rank in dealt for batch in rank for row in batch) == list(range(n))
    assert len({len(rank) for rank in dealt}) == 1  # the same number of steps, or a collective would hang
    assert all(batch for rank in dealt for batch in rank)  # no rank steps on nothing


@few
@given(sizes, worlds)
def test_mini_batches_of_all_ranks_together_are_those_of_one_rank(shape, world):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world and (n % batch_size == 0 or n % batch_size >= world))
    alone = minibatches(GroupLoader(events(n), batch_size=batch_size, group=group))
    dealt = [minibatches(loader) for loader in ranks(n, batch_size, group, world)]
    together = [sorted(chain(*parts)) for parts in zip(*dealt, strict=True)]
    assert together == [sorted(batch) for batch in alone]
    for parts in zip(*dealt, strict=True):  # shares differ by one row at most
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@few
@given(sizes, worlds, st.integers(1, 100))
def test_mini_batches_do_not_depend_on_how_many_are_grouped(shape, world, other):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    for a, b in zip(ranks(n, batch_size, group, world), ranks(n, batch_size, other, world), strict=True):
        assert minibatches(a) == minibatches(b)


@few
@given(sizes, worlds)
def test_lengths_are_told_before_anything_is_served(shape, world):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    for loader in ranks(n, batch_size, group, world):
        groups = list(loader)
        assert len(loader) == len(groups)
        assert loader.steps == sum(len(g.sizes) for g in groups)
        assert all(len(g.sizes) == group for g in groups[:-1]) and 1 <= len(groups[-1].sizes) <= group


@few
@given(sizes, worlds)
def test_totals_add_up_and_the_shares_make_a_mean_over_ranks_the_mean_over_rows(shape, world):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    dealt = [list(loader) for loader in ranks(n, batch_size, group, world)]
    for parts in zip(*dealt, strict=True):
        assert len({part.totals for part in parts}) == 1
        assert tuple(map(sum, zip(*(part.sizes for part in parts), strict=True))) == parts[0].totals
        for step in zip(*(part.minibatches(world) for part in parts), strict=True):
            rows = torch.cat([batch.x[:, 0, 0] for batch, _ in step])
            mean = sum(batch.x[:, 0, 0].mean() * share for batch, share in step) / world
            torch.testing.assert_close(mean, rows.mean())


@pytest.mark.parametrize(
    "n, batch_size, world, totals",
    [
        (9, 4, 2, (4, 5)),  # one row is too few for two ranks
        (10, 4, 2, (4, 4, 2)),
        (10, 4, 3, (4, 6)),
        (9, 4, 1, (4, 4, 1)),
        (3, 8, 2, (3,)),
        (3, 3, 3, (3,)),
    ],
    ids=str,
)
def test_a_last_mini_batch_too_small_for_the_ranks_joins_the_one_before(n, batch_size, world, totals):
    for loader in ranks(n, batch_size, 2, world):
        assert sum((group.totals for group in loader), ()) == totals


@few
@given(st.integers(2, 30), st.integers(2, 5))
def test_a_batch_size_below_the_number_of_ranks_leaves_no_rank_without_a_row(n, world):
    assume(n >= world)
    try:
        dealt = [minibatches(loader) for loader in ranks(n, world - 1, 4, world)]
    except DataError as error:  # to refuse it is as good
        assert "batch_size" in str(error)
    else:
        assert all(batch for rank in dealt for batch in rank)


def test_epochs_are_served_in_orders_of_their_own():
    loader = GroupLoader(events(50), batch_size=8, group=3)
    orders = [minibatches(loader, epoch) for epoch in (0, 1, 2, 0)]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert list(chain(*orders[0])) != list(range(50))


def test_seeds_are_served_in_orders_of_their_own():
    a, b, c = (minibatches(GroupLoader(events(50), batch_size=8, seed=seed)) for seed in (1, 1, 2))
    assert a == b != c


def test_epoch_one_of_a_seed_is_not_epoch_zero_of_the_next():
    a, b = GroupLoader(events(50), batch_size=8, seed=1), GroupLoader(events(50), batch_size=8, seed=2)
    assert minibatches(a, epoch=1) != minibatches(b, epoch=0)


def test_serving_does_not_touch_the_global_random_state():
    state = torch.random.get_rng_state()
    minibatches(GroupLoader(events(50), batch_size=8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_epoch_is_read_when_the_first_group_is_asked_for():
    loader = GroupLoader(events(50), batch_size=8)
    expected = minibatches(loader, epoch=3)
    loader.set_epoch(0)
    early = iter(loader)  # Lightning does this before it sets the epoch
    loader.sampler.set_epoch(3)
    assert [checked(batch) for group in early for batch, _ in group.minibatches()] == expected


def test_training_labels_are_hidden():
    for group in GroupLoader(events(20), batch_size=8, group=2):
        assert (group.rows().y == HIDDEN).all()
        assert all((batch.y == HIDDEN).all() for batch, _ in group.minibatches())


@few
@given(sizes, worlds, st.data())
def test_a_loader_restored_in_mid_epoch_serves_exactly_what_was_left(shape, world, data):
    n, batch_size, group = shape
    assume(min(n, batch_size) >= world)
    for loader, fresh in zip(ranks(n, batch_size, group, world), ranks(n, batch_size, group, world), strict=True):
        done = data.draw(st.integers(1, len(loader)))
        loader.set_epoch(2)
        served = iter(loader)
        for _ in range(done):
            next(served)
        fresh.load_state_dict(loader.state_dict())
        fresh.set_epoch(2 if done < len(loader) else 3)
        left = [checked(g.rows()) for g in fresh]
        if done < len(loader):
            assert left == [checked(g.rows()) for g in served]
        else:  # the epoch was over, so that the next one is whole
            loader.set_epoch(3)
            assert left == [checked(g.rows()) for g in loader]
        fresh.set_epoch(5)
        assert len(list(fresh)) == len(fresh)  # what follows is whole again


def test_state_of_a_loader_is_made_of_plain_numbers():
    loader = GroupLoader(events(20), batch_size=4, group=2)
    next(iter(loader))
    assert {type(value) for value in loader.state_dict().values()} == {int}


def test_fewer_rows_than_ranks_are_refused_with_both_numbers():
    with pytest.raises(DataError, match="2 training rows cannot be shared by 3 processes"):
        GroupLoader(events(2), batch_size=4, rank=0, world=3)


# Group


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("context", [0, 2])
def test_weights_and_context_are_carried_with_their_rows(weighted, context):
    loader = GroupLoader(events(23, weighted, context), batch_size=5, group=2)
    for group in loader:
        rows = [checked(batch, weighted, context) for batch, _ in group.minibatches()]
        assert checked(group.rows(), weighted, context) == list(chain(*rows))
        assert all(batch.context.shape == (len(batch.x), context) for batch, _ in group.minibatches())
        assert all(batch.even is not weighted for batch, _ in group.minibatches() if len(batch.x) > 1)


@pytest.mark.parametrize("weighted", [True, False])
def test_mean_of_a_batch_is_weighted_by_its_events(weighted):
    batch = next(iter(GroupLoader(events(12, weighted), batch_size=12))).rows()
    values = batch.x[:, 0, 0] ** 2
    torch.testing.assert_close(batch.mean(values), (values * batch.weight).mean())


def test_a_group_that_is_on_the_device_already_is_not_copied():
    group = next(iter(GroupLoader(events(12), batch_size=4)))
    assert group.to(torch.device("cpu")) is group


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("context", [0, 2])
def test_a_group_sent_elsewhere_takes_only_its_own_rows(weighted, context):
    group = list(GroupLoader(events(23, weighted, context), batch_size=4, group=2))[1]
    sent = group.to(torch.device("meta"))
    assert {c.device.type for c in (sent.x, sent.context, sent.weight, sent.places, sent.index)} == {"meta"}
    assert sent.x.shape == (8, 1, 2) and sent.context.shape == (8, context)
    assert (sent.sizes, sent.totals) == (group.sizes, group.totals)
    assert sum(len(batch.x) for batch, _ in sent.minibatches()) == 8


def test_equal_weights_are_known_to_be_equal_on_another_device_too():
    sent = next(iter(GroupLoader(events(23, weighted=False), batch_size=4))).to(torch.device("meta"))
    assert all(batch.even for batch, _ in sent.minibatches())


# BatchLoader


def batches(n, batch_size, world=1):
    return [list(BatchLoader(events(n), batch_size=batch_size, rank=rank, world=world)) for rank in range(world)]


@few
@given(st.integers(0, 70), st.integers(1, 40))
def test_evaluation_rows_are_served_whole_and_in_order_with_their_labels(n, batch_size):
    (served,) = batches(n, batch_size)
    assert list(chain(*map(checked, served))) == list(range(n))
    assert all(len(batch.x) == batch_size for batch in served[:-1])
    assert all((batch.y == 1).all() and isinstance(batch, Batch) for batch in served)


@few
@given(st.integers(1, 70), st.integers(1, 40), worlds)
def test_ranks_evaluate_every_row_and_repeat_none_but_where_there_are_more_ranks_than_rows(n, batch_size, world):
    dealt = batches(n, batch_size, world)
    rows = [row for rank in dealt for batch in rank for row in checked(batch)]
    repeated = {row for row in rows if rows.count(row) > 1}
    assert set(rows) == set(range(n))
    assert repeated == (set() if n >= world else {0})
    assert all(dealt)  # a rank without a batch would never reach the gathering


@pytest.mark.parametrize("rank, world", [(0, 1), (1, 3), (4, 5)])
def test_length_of_an_evaluation_is_told_before_it_begins(rank, world):
    loader = BatchLoader(events(23), batch_size=4, rank=rank, world=world)
    assert len(loader) == len(list(loader)) == len(list(loader))


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ({"x": torch.zeros(3)}, "row for each event"),
        ({"y": [0, 1]}, "'y'"),
        ({"y": [0, 0.5, 1]}, "whole numbers"),
        ({"y": [0, -1, 1]}, "whole numbers"),
        ({"context": torch.full((3, 1), float("nan"))}, "context"),
        ({"weight": [1, -1, 1]}, "weights"),
        ({"weight": [0, 0, 0]}, "weights"),
        ({"meta": {"digit": np.zeros(2)}}, "'digit'"),
    ],
)
def test_events_that_do_not_fit_together_are_refused(what, word):
    with pytest.raises(DataError, match=word):
        Events.of(**{"x": torch.zeros(3, 2), **what})
