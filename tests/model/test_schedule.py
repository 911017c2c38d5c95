"""The order of an epoch, as a pure function of rows, seed and epoch."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.model.schedule import NO_ROW, epoch_schedule, steps_per_epoch

shapes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=4)


def batches_of(schedule, replica=0):
    return [
        (bucket, schedule.rows(bucket, number, replica=replica).tolist())
        for bucket, number in schedule.order
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
        for bucket, rows in batches_of(schedule, replica)
        for row in rows
    ]
    assert sorted(read) == [(b, row) for b, rows in enumerate(records) for row in range(rows)]


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(1, 5), st.booleans())
def test_replicas_read_as_many_rows_at_each_step_within_one(shapes, replicas, drop_remainder):
    records, sizes = zip(*shapes, strict=True)
    schedule = epoch_schedule(records, sizes, num_replicas=replicas, drop_remainder=drop_remainder)
    for bucket, number in schedule.order:
        counts = [
            len(schedule.rows(bucket, number, replica=replica)) for replica in range(replicas)
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
    for bucket, rows in batches_of(schedule):
        sizes[bucket].append(len(rows))
    assert sorted(sizes[0]) == [2, 4, 4]
    assert sorted(sizes[1]) == [1, 3, 3]


def test_short_batches_do_not_always_come_last():
    places = set()
    for epoch in range(40):
        schedule = epoch_schedule([41], [10], epoch=epoch)
        places.add([len(rows) for _, rows in batches_of(schedule)].index(1))
    assert places == {0, 1, 2, 3, 4}


def test_a_few_rows_are_shared_so_that_no_replica_goes_empty():
    schedule = epoch_schedule([9], [2], num_replicas=4, shuffle=False)
    counts = [[len(schedule.rows(0, n, replica=r)) for r in range(4)] for n in (0, 1)]
    assert counts == [[2, 1, 1, 1], [1, 1, 1, 1]]


def test_the_union_of_replicas_is_the_batch_of_one_big_replica():
    apart = epoch_schedule([52, 30], [4, 4], seed=3, num_replicas=3)
    together = epoch_schedule([52, 30], [12, 12], seed=3)
    assert list(apart.order) == list(together.order)
    for step in together.order:
        rows = [row for replica in range(3) for row in apart.rows(*step, replica=replica)]
        assert sorted(rows) == sorted(together.rows(*step))


def test_same_seed_and_epoch_give_the_same_order():
    one, two = (batches_of(epoch_schedule([50, 20], [8, 4], seed=5, epoch=2)) for _ in "12")
    assert one == two


@pytest.mark.parametrize("change", [{"seed": 6}, {"epoch": 3}])
def test_another_seed_or_epoch_gives_another_order(change):
    base: dict[str, Any] = {"seed": 5, "epoch": 2}
    one = batches_of(epoch_schedule([50, 20], [8, 4], **base))
    two = batches_of(epoch_schedule([50, 20], [8, 4], **{**base, **change}))
    assert one != two
    assert [bucket for bucket, _ in one] != [bucket for bucket, _ in two]
    # Other rows come together, not the same batches at other steps.
    shared = {frozenset(rows) for _, rows in one} & {frozenset(rows) for _, rows in two}
    assert len(shared) <= 1


def test_every_bucket_is_spread_over_the_whole_epoch():
    schedule = epoch_schedule([4000, 1000, 50], [10, 10, 10], seed=1)
    place = np.arange(len(schedule)) / len(schedule)
    buckets = np.array([bucket for bucket, _ in schedule.order])
    for bucket in range(3):
        places = place[buckets == bucket]
        count = len(places)
        # Batch j of n is drawn within [j, j + 1) / n; the other buckets' jitter moves it a little.
        assert np.abs(places - (np.arange(count) + 0.5) / count).max() < 0.5 / count + 0.01


@settings(max_examples=100, deadline=None)
@given(
    shapes, st.integers(1, 5), st.integers(0, 3), st.booleans(), st.booleans(),
)  # fmt: skip
def test_an_epoch_begins_with_the_longest_when_asked_for(shapes, replicas, seed, shuffle, pad):
    records, sizes = zip(*shapes, strict=True)
    options: dict[str, Any] = {
        "seed": seed, "shuffle": shuffle, "num_replicas": replicas, "pad_remainder": pad,
    }  # fmt: skip
    begun = epoch_schedule(records, sizes, longest_first=True, **options)
    if len(begun):
        longest = max(bucket for bucket, rows in enumerate(records) if rows)
        bucket, number = begun[0]
        assert bucket == longest
        batches = [begun.rows(*step) for step in begun.order if step[0] == longest]
        # As many rows as there are in any of its batches.
        assert sum(begun.rows(bucket, number) >= 0) == max(sum(rows >= 0) for rows in batches)
    read = [
        (bucket, row)
        for replica in range(replicas)
        for bucket, rows in batches_of(begun, replica)
        for row in rows
        if row >= 0
    ]
    assert sorted(read) == [(b, row) for b, rows in enumerate(records) for row in range(rows)]


def test_uneven_steps_come_in_the_order_of_the_epoch():
    for epoch in range(20):
        schedule = epoch_schedule([9, 70, 0, 33], [2, 4, 4, 4], epoch=epoch, num_replicas=4)
        uneven = set(schedule.uneven)
        assert [step for step in schedule.order if step in uneven] == schedule.uneven
        for bucket, number in schedule.order:
            rows = [len(schedule.rows(bucket, number, replica=r)) for r in range(4)]
            full = [schedule.buckets[bucket].batch_size] * 4
            assert ((bucket, number) in uneven) == (rows != full)
        for bucket, steps in enumerate(schedule.buckets):
            even = steps.even(0, steps.count - len(steps.uneven)).tolist()
            numbers = [number for b, number in schedule.order if b == bucket]
            assert even == [n for n in numbers if (bucket, n) not in uneven]


def test_without_shuffling_everything_stays_in_order():
    schedule = epoch_schedule([3, 0, 2], [2, 2, 2], shuffle=False)
    assert batches_of(schedule) == [(0, [0, 1]), (0, [2]), (2, [0, 1])]


def test_nothing_to_read_is_an_epoch_of_no_steps():
    assert (
        len(epoch_schedule([0, 0], [2, 2]))
        == len(epoch_schedule([3], [4], drop_remainder=True))
        == 0
    )


def test_batches_of_a_bucket_can_be_asked_for_together():
    schedule = epoch_schedule([30, 11], [4, 4], num_replicas=2, pad_remainder=True)
    together = schedule.rows(1, np.arange(2), replica=1)
    apart = [schedule.rows(1, number, replica=1) for number in range(2)]
    assert together.tolist() == np.concatenate(apart).tolist()
    # Filled up to the batch size, all of them.
    assert [len(rows) for rows in apart] == [4, 4]
    assert sum(together == NO_ROW) == 8 - len(range(1, 11, 2))


def test_the_order_is_the_same_on_every_machine():
    schedule = epoch_schedule([7, 3], [2, 2], seed=1, epoch=2)
    assert batches_of(schedule) == [
        (0, [3, 4]),
        (0, [0, 5]),
        (1, [0, 2]),
        (1, [1]),
        (0, [2]),
        (0, [1, 6]),
    ]


def test_memory_grows_with_the_root_of_the_rows():
    def peak(rows):
        tracemalloc.start()
        try:
            schedule = epoch_schedule([rows, rows // 2], [64, 64])
            bucket, number = schedule[len(schedule) // 2]
            assert len(schedule.rows(bucket, number)) == 64
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The tables of the orders of rows, 128 bytes a row's root; all else is a block of steps.
    for rows in (10_000_000, 100_000_000):
        assert peak(rows) < 5 * 128 * np.sqrt(rows) + 500_000
