"""The order of an epoch, as a pure function of rows, seed and epoch."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.model.schedule import epoch_schedule, steps_per_epoch

shapes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=4)


def batches_of(schedule, num_replicas, replica):
    return [
        (int(bucket), schedule.rows(step, num_replicas=num_replicas, replica=replica).tolist())
        for step, bucket in enumerate(schedule.buckets)
    ]


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(1, 5), st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_every_row_comes_exactly_once_over_all_replicas(shapes, replicas, shuffle, seed, epoch):
    records, sizes = zip(*shapes, strict=True)
    schedule = epoch_schedule(
        records, sizes, seed=seed, epoch=epoch, shuffle=shuffle, num_replicas=replicas
    )
    read = [
        (bucket, row)
        for replica in range(replicas)
        for bucket, rows in batches_of(schedule, replicas, replica)
        for row in rows
    ]
    assert sorted(read) == [(b, row) for b, rows in enumerate(records) for row in range(rows)]


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(1, 5), st.booleans())
def test_replicas_read_as_many_rows_at_each_step_within_one(shapes, replicas, drop_remainder):
    records, sizes = zip(*shapes, strict=True)
    schedule = epoch_schedule(records, sizes, num_replicas=replicas, drop_remainder=drop_remainder)
    for step, bucket in enumerate(schedule.buckets):
        counts = [
            len(schedule.rows(step, num_replicas=replicas, replica=replica))
            for replica in range(replicas)
        ]
        assert max(counts) - min(counts) <= 1
        assert max(counts) <= sizes[bucket]
        if drop_remainder:
            assert set(counts) == {sizes[bucket]}
        elif sizes[bucket] > 1 and records[bucket] >= replicas:
            assert min(counts) >= 1


@settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 5), st.booleans(), st.booleans())
def test_number_of_steps_is_known_beforehand(shapes, replicas, shuffle, drop_remainder):
    records, sizes = zip(*shapes, strict=True)
    options = {"num_replicas": replicas, "drop_remainder": drop_remainder}
    steps = steps_per_epoch(records, sizes, **options)
    for epoch in range(3):
        assert steps == len(epoch_schedule(records, sizes, epoch=epoch, shuffle=shuffle, **options))


def test_one_replica_reads_full_batches_but_for_one_per_bucket():
    schedule = epoch_schedule([10, 7], [4, 3])
    sizes = {0: [], 1: []}
    for step, bucket in enumerate(schedule.buckets):
        sizes[int(bucket)].append(len(schedule.rows(step)))
    assert sorted(sizes[0]) == [2, 4, 4]
    assert sorted(sizes[1]) == [1, 3, 3]


def test_short_batches_do_not_always_come_last():
    places = set()
    for epoch in range(40):
        schedule = epoch_schedule([41], [10], epoch=epoch)
        places.add([len(schedule.rows(step)) for step in range(len(schedule))].index(1))
    assert places == {0, 1, 2, 3, 4}


def test_a_few_rows_are_shared_so_that_no_replica_goes_empty():
    schedule = epoch_schedule([9], [2], num_replicas=4, shuffle=False)
    counts = [[len(schedule.rows(s, num_replicas=4, replica=r)) for r in range(4)] for s in (0, 1)]
    assert counts == [[2, 1, 1, 1], [1, 1, 1, 1]]


def test_the_union_of_replicas_is_the_batch_of_one_big_replica():
    apart = epoch_schedule([52, 30], [4, 4], seed=3, num_replicas=3)
    together = epoch_schedule([52, 30], [12, 12], seed=3)
    for step in range(len(together)):
        rows = [row for r in range(3) for row in apart.rows(step, num_replicas=3, replica=r)]
        assert sorted(rows) == sorted(together.rows(step))


def test_same_seed_and_epoch_give_the_same_order():
    one, two = (batches_of(epoch_schedule([50, 20], [8, 4], seed=5, epoch=2), 1, 0) for _ in "12")
    assert one == two


@pytest.mark.parametrize("change", [{"seed": 6}, {"epoch": 3}])
def test_another_seed_or_epoch_gives_another_order(change):
    base: dict[str, Any] = {"seed": 5, "epoch": 2}
    one = batches_of(epoch_schedule([50, 20], [8, 4], **base), 1, 0)
    two = batches_of(epoch_schedule([50, 20], [8, 4], **{**base, **change}), 1, 0)
    assert one != two
    assert [bucket for bucket, _ in one] != [bucket for bucket, _ in two]


def test_every_bucket_is_spread_over_the_whole_epoch():
    schedule = epoch_schedule([4000, 1000, 50], [10, 10, 10], seed=1)
    place = np.arange(len(schedule)) / len(schedule)
    for bucket in range(3):
        places = place[schedule.buckets == bucket]
        count = len(places)
        # Batch j of n is drawn within [j, j + 1) / n; the other buckets' jitter moves it a little.
        assert np.abs(places - (np.arange(count) + 0.5) / count).max() < 0.5 / count + 0.01


def test_without_shuffling_everything_stays_in_order():
    schedule = epoch_schedule([3, 0, 2], [2, 2, 2], shuffle=False)
    assert batches_of(schedule, 1, 0) == [(0, [0, 1]), (0, [2]), (2, [0, 1])]


def test_nothing_to_read_is_an_epoch_of_no_steps():
    assert (
        len(epoch_schedule([0, 0], [2, 2]))
        == len(epoch_schedule([3], [4], drop_remainder=True))
        == 0
    )


def test_batches_of_a_bucket_can_be_asked_for_together():
    schedule = epoch_schedule([30, 11], [4, 4], num_replicas=2, pad_remainder=True)
    steps = np.flatnonzero(schedule.buckets == 1)
    together = schedule.rows(steps, num_replicas=2, replica=1)
    apart = [schedule.rows(int(step), num_replicas=2, replica=1) for step in steps]
    assert together.tolist() == np.concatenate(apart).tolist()


def test_the_order_is_the_same_on_every_machine():
    schedule = epoch_schedule([7, 3], [2, 2], seed=1, epoch=2)
    assert batches_of(schedule, 1, 0) == [
        (0, [3, 4]),
        (1, [0]),
        (0, [0, 5]),
        (0, [2]),
        (0, [1, 6]),
        (1, [2, 1]),
    ]


def test_memory_grows_with_the_steps_and_not_with_the_rows():
    def peak(rows, size):
        tracemalloc.start()
        try:
            epoch_schedule([rows], [size])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(100_000, 1_000), peak(10_000_000, 100_000)
    # A hundred steps both: beyond them there is the root of the rows, 128 bytes of it.
    assert large - small < 3 * 128 * np.sqrt(10_000_000)
    assert peak(1_000_000, 100) < 3 * 128 * np.sqrt(1_000_000) + 120 * 10_000
