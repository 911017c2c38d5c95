"""Several datasets as one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import UsageError
from lengthwise.model.mixing import mix_datasets, mixing_order

counts = st.lists(st.integers(0, 60), min_size=1, max_size=4)


@given(counts, st.integers(0, 5))
def test_without_weights_every_batch_comes_once(counts, seed):
    order = mixing_order(counts, seed=seed)
    assert np.bincount(order, minlength=len(counts)).tolist() == counts


@given(counts, st.data())
def test_weights_are_kept_to_within_a_batch(counts, data):
    weights = [data.draw(st.floats(0.1, 10)) for _ in counts]
    order = mixing_order(counts, weights)
    taken = np.bincount(order, minlength=len(counts))
    assert (taken <= counts).all()
    scale = min(count / weight for count, weight in zip(counts, weights, strict=True))
    assert np.abs(taken - np.array(weights) * scale).max() <= 1
    # As many as can be: one dataset is used up.
    assert (taken == counts).any()


def test_shares_are_even_over_the_whole_mixture():
    order = mixing_order([300, 900], [1, 2])
    for start in range(0, 900, 90):
        assert abs(np.mean(order[start : start + 90]) - 2 / 3) < 0.03


def test_another_seed_gives_another_order():
    assert mixing_order([50, 50], seed=1).tolist() == mixing_order([50, 50], seed=1).tolist()
    assert mixing_order([50, 50], seed=1).tolist() != mixing_order([50, 50], seed=2).tolist()


def test_datasets_keep_their_order_and_can_be_left_and_taken_up_again():
    parts = [tf.data.Dataset.range(10), tf.data.Dataset.range(100, 140)]
    whole = list(mix_datasets(parts, [1, 3], seed=2).as_numpy_iterator())
    assert [n for n in whole if n < 100] == list(range(10))
    assert [n for n in whole if n >= 100] == list(range(100, 130))
    for start in (0, 1, 17, 40):
        rest = mix_datasets(parts, [1, 3], seed=2, start_step=start)
        assert int(rest.cardinality()) == 40 - start
        assert list(rest.as_numpy_iterator()) == whole[start:]


def test_what_cannot_be_mixed_is_refused():
    endless = tf.data.Dataset.range(3).repeat()
    with pytest.raises(UsageError, match="known cardinality"):
        mix_datasets([endless])
    for weights in ([1], [1, -1], [1, float("nan")]):
        with pytest.raises(UsageError, match="2 positive numbers"):
            mixing_order([3, 3], weights)
    with pytest.raises(UsageError, match="start_step is 4; there are 3"):
        mix_datasets([tf.data.Dataset.range(3)], start_step=4)
