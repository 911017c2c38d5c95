"""Padding against the loop that anybody would write."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import InputError, Schema
from lengthwise.transforms import (
    PadToBucket,
    RaggedRows,
    observed_mask,
    pad_batch,
    pad_rows,
    slot_mask,
)

DTYPES = [np.bool_, np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64]


def padded_by_loop(values, lengths, max_length, value):
    padded = np.full((len(lengths), max_length, *values.shape[1:]), value, values.dtype)
    first = 0
    for row, length in enumerate(lengths):
        for step in range(length):
            padded[row, step] = values[first + step]
        first += length
    return padded


@st.composite
def cases(draw):
    """Values, lengths and T; more rows than slots and fewer, and rows without a step."""
    max_length = draw(st.integers(1, 12))
    lengths = np.array(draw(st.lists(st.integers(0, max_length), max_size=20)), np.int64)
    shape = draw(st.lists(st.integers(1, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    count = int(lengths.sum()) * int(np.prod(shape, dtype=int))
    values = (np.arange(count) % 120 + 1).astype(dtype)
    return values.reshape(-1, *shape), lengths, max_length


@given(cases(), st.sampled_from([0, 1]))
def test_rows_are_padded_on_the_right(case, value):
    values, lengths, max_length = case

    padded = pad_rows(values, lengths, max_length, value=value)

    assert padded.dtype == values.dtype
    np.testing.assert_array_equal(padded, padded_by_loop(values, lengths, max_length, value))


@given(cases())
def test_the_slots_of_a_row_are_its_first_ones(case):
    _, lengths, max_length = case

    slots = slot_mask(lengths, max_length)

    expected = [[step < length for step in range(max_length)] for length in lengths]
    np.testing.assert_array_equal(slots, np.array(expected, bool).reshape(-1, max_length))
    assert slots.dtype == np.bool_


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
@pytest.mark.parametrize("rows", [1, 600])
def test_lengths_may_be_of_any_integer_type(dtype, rows):
    lengths = np.full(rows, 200, dtype)

    assert slot_mask(lengths, 255).sum() == rows * 200
    assert pad_rows(np.ones(rows * 200), lengths, 255).sum() == rows * 200


def test_values_may_be_a_view_that_is_not_contiguous():
    values = np.arange(24).reshape(3, 8)[:, ::2].T  # (4, 3)

    padded = pad_rows(values, np.array([3, 1]), 3)

    np.testing.assert_array_equal(padded, padded_by_loop(values, [3, 1], 3, 0))


def test_a_long_row_takes_no_more_memory_than_its_slots():
    assert slot_mask(np.array([3, 10**6]), 2 * 10**6).sum() == 10**6 + 3


@pytest.mark.parametrize("lengths", [[3, 5], [-1, 9], [2, 2**40]])
def test_lengths_outside_of_the_slots_are_refused(lengths):
    for mask_or_pad in (slot_mask, lambda n, t: pad_rows(np.zeros(8), n, t)):
        with pytest.raises(InputError, match=r"lengths must lie within \[0, 4\], found"):
            mask_or_pad(np.array(lengths), 4)


@pytest.mark.parametrize("steps", [0, 1, 4, 6])
def test_lengths_that_do_not_add_up_are_refused(steps):
    with pytest.raises(InputError, match=f"add up to 5, but there are {steps} steps"):
        pad_rows(np.ones(steps), np.array([2, 3]), 4)


@given(st.data())
def test_a_batch_is_padded_and_masked(ragged_batches, schema, data):
    rows = data.draw(ragged_batches)

    batch = pad_batch(rows, 11)

    assert len(batch) == len(rows)
    assert set(batch.features) == set(schema.names)
    np.testing.assert_array_equal(batch.length, rows.lengths)
    observed = np.ones(rows.lengths.sum(), bool) if rows.observed is None else rows.observed
    np.testing.assert_array_equal(batch.mask, padded_by_loop(observed, rows.lengths, 11, False))
    np.testing.assert_array_equal(observed_mask(rows, 11), batch.mask)
    for feature in schema.features:
        if feature.sequence:
            expected = padded_by_loop(rows.values[feature.name], rows.lengths, 11, 0)
        else:
            expected = rows.contexts[feature.name]
        np.testing.assert_array_equal(batch.features[feature.name], expected)
        assert batch.features[feature.name].dtype == expected.dtype


def test_missing_steps_are_masked_but_count_for_the_length():
    rows = RaggedRows(
        np.array([2, 1]), {"x": np.array([5, 0, 7])}, {}, np.array([True, False, True])
    )

    batch = pad_batch(rows, 3)

    assert batch.mask.tolist() == [[True, False, False], [True, False, False]]
    assert batch.length.tolist() == [2, 1]


def test_a_batch_with_a_row_longer_than_its_bucket_is_refused():
    with pytest.raises(InputError, match="found 3 to 3"):
        pad_batch(RaggedRows(np.array([3]), {"x": np.arange(3)}, {}), 2)


def test_batches_are_padded_to_their_bucket_in_a_pipeline():
    batch = pa.record_batch({"tokens": [[1, None], [3]], "y": [7, 8]})
    schema = Schema.from_arrow(batch.schema, labels=["y"])

    def listed(max_length, padded):
        features = {name: values.tolist() for name, values in padded.features.items()}
        return max_length, features, padded.length.tolist(), padded.mask.tolist()

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        padded = (
            pipeline
            | beam.Create([(2, batch), (4, batch.slice(1))])
            | PadToBucket(schema)
            | beam.MapTuple(listed)
        )
        first = {"tokens": [[1, 0], [3, 0]], "y": [7, 8]}
        second = {"tokens": [[3, 0, 0, 0]], "y": [8]}
        expected = [
            (2, first, [2, 1], [[True, False], [True, False]]),
            (4, second, [1], [[True, False, False, False]]),
        ]
        assert_that(padded, equal_to(expected))


@pytest.mark.parametrize("rows", [3, 50])
def test_left_padding_mirrors_right_padding(rows):
    lengths = np.arange(rows) % 6
    right, left = slot_mask(lengths, 5), slot_mask(lengths, 5, side="left")
    np.testing.assert_array_equal(left, right[:, ::-1])
