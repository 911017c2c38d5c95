"""Steps that are computed where they are asked for, and are the same from wherever one comes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.model import interleaving
from lengthwise.model.interleaving import Interleaving

counts = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)


def orders(counts, shuffled, begins, block_steps):
    """The same order in one block, and in blocks of a few steps."""
    first = max(i for i, count in enumerate(counts) if count) if begins else None
    seed = (7, 1) if shuffled else None
    whole = Interleaving(counts, seed, first=first)
    assert whole.num_blocks == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaving, "_BLOCK_STEPS", block_steps)
        yield whole, Interleaving(counts, seed, first=first)


@settings(max_examples=60)
@given(counts, st.booleans(), st.booleans(), st.integers(1, 9), st.randoms())
def test_blocks_make_up_one_order(counts, shuffled, begins, block_steps, random):
    for whole, blocks in orders(counts, shuffled, begins, block_steps):
        steps = list(whole)
        found = [blocks.block(number) for number in range(blocks.num_blocks)]
        assert [
            step
            for block in found
            for step in zip(block.sources.tolist(), block.numbers.tolist(), strict=True)
        ] == steps

        def before(step, steps=steps):
            return np.bincount([s for s, _ in steps[:step]], minlength=len(counts)).tolist()

        assert [block.before.tolist() for block in found] == [before(b.start) for b in found]
        # Any step by itself, in any sequence.
        some = random.sample(range(len(steps)), min(len(steps), 12))
        assert [blocks[step] for step in some] == [steps[step] for step in some]
        for step in (*some[:4], len(steps)):
            assert blocks.before(step).tolist() == before(step)
        sources, numbers = np.array([steps[step] for step in some]).T
        assert [some[i] for i in blocks.argsort(sources, numbers)] == sorted(some)


@settings(max_examples=60)
@given(counts, st.booleans(), st.booleans())
def test_each_item_comes_once_and_those_of_a_source_in_their_order(counts, shuffled, begins):
    for whole, _ in orders(counts, shuffled, begins, 5):
        steps = list(whole)
        for source, count in enumerate(counts):
            assert [number for s, number in steps if s == source] == list(range(count))
        if begins:
            assert steps[0] == (max(i for i, count in enumerate(counts) if count), 0)
        rest = steps[begins:]
        if not shuffled:
            assert rest == sorted(rest)


def test_items_stand_anywhere_in_their_part_of_the_line(monkeypatch):
    monkeypatch.setattr(interleaving, "_BLOCK_STEPS", 100)
    counts = [40_000, 400, 3]
    steps = list(Interleaving(counts, (3,)))
    parts = {}
    for source, count in enumerate(counts):
        places = np.array([i for i, (s, _) in enumerate(steps) if s == source]) / len(steps)
        # Item j lies within [j, j + 1) / n; the other sources' jitter moves it a little.
        parts[source] = places * count - np.arange(count)
        assert parts[source].min() > -0.01 * max(count, 100)
        assert parts[source].max() < 1 + 0.01 * max(count, 100)
    # The steps are nearly all of the first source, so the second one's places can be seen in them.
    assert abs(parts[1].mean() - 0.5) < 0.05
    assert abs(parts[1].std() - 12**-0.5) < 0.03


def test_billions_of_steps_take_no_more_memory_than_thousands():
    def peak(count):
        tracemalloc.start()
        try:
            order = Interleaving([3 * count, count, 0, 7], (0,))
            steps = [order[int(len(order) * part)] for part in (0, 0.3, 0.99999)]
            assert [order.before(len(order) // 3)[i] for i in (0, 1)] == pytest.approx(
                [count, count / 3], abs=2
            )
            assert max(number for _, number in steps) > 0.9 * count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10**9) < 1.2 * peak(10**5) < 2e6


def test_steps_that_there_are_not_are_refused():
    order = Interleaving([2, 1], (0,))
    for step in (3, -1):
        with pytest.raises(IndexError, match="of 3"):
            order[step]
    assert list(Interleaving([0, 0], (0,))) == list(Interleaving([], None)) == []


def test_the_order_is_the_same_on_every_machine():
    assert [source for source, _ in Interleaving([5, 3, 1], (1, 2))] == [0, 2, 1, 0, 1, 0, 1, 0, 0]
