"""Masks made from lengths, read in any dtype, and compacted to the left."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lengthwise.model.masking import (
    as_bool_mask,
    left_compaction,
    mask_from_length,
    zero_masked_steps,
)

masks = hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 9)))


def test_mask_marks_the_first_length_steps():
    mask = mask_from_length(np.array([0, 2, 3], np.int32), 3)
    assert mask.dtype == tf.bool
    np.testing.assert_array_equal(
        mask, [[False, False, False], [True, True, False], [True, True, True]]
    )


def test_mask_reaches_to_the_longest_row_by_default():
    assert mask_from_length([1, 4]).shape == (2, 4)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint8", "float16", "float32"])
def test_every_dtype_of_mask_is_read_as_nonzero(dtype):
    mask = as_bool_mask(np.array([[1, 0, 1]], dtype))
    assert mask.dtype == tf.bool
    np.testing.assert_array_equal(mask, [[True, False, True]])


def test_masked_steps_become_zero_whatever_they_hold():
    values = np.array([[[1.0], [np.nan], [np.inf], [1e30]]], np.float32)
    mask = tf.constant([[True, False, False, False]])
    np.testing.assert_array_equal(zero_masked_steps(values, mask), [[[1.0], [0], [0], [0]]])


@settings(max_examples=60, deadline=None)
@given(masks)
def test_compaction_keeps_order_and_can_be_undone(mask):
    order, rank, lengths = (np.asarray(part) for part in left_compaction(tf.constant(mask)))
    for row in range(len(mask)):
        real = np.flatnonzero(mask[row])
        assert lengths[row] == len(real)
        assert order[row, : len(real)].tolist() == real.tolist()
        assert sorted(order[row]) == list(range(mask.shape[1]))
        assert order[row][rank[row][real]].tolist() == real.tolist()
        assert rank[row].min() >= 0
