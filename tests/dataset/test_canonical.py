"""The canonical record: byte for byte what protobuf writes, and read back without a parser."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import CorruptDataError, Feature, RecordLayout, Schema
from lengthwise.dataset.canonical import (
    FramedRecords,
    canonical_records,
    decode_records,
    record_ends,
)
from lengthwise.dataset.record import varint_width
from lengthwise.dataset.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame_record
from tests.dataset.test_record import (
    EVERYTHING,
    INT64,
    NAMES,
    RANGES,
    WIDTHS,
    example_of,
    frame,
    padded_values,
)


def serialized(layout, values, row):
    return example_of(layout, values, row).SerializeToString(deterministic=True)


def assert_byte_equal(layout, values):
    records = canonical_records(frame(layout, values), layout)
    expected = [frame_record(serialized(layout, values, row)) for row in range(len(records))]
    assert records.flat.tobytes() == b"".join(expected)
    assert records.ends.tolist() == np.cumsum([len(record) for record in expected]).tolist()
    return records


@pytest.mark.parametrize("max_length", [1, 7, 127, 128, 300])
def test_every_record_is_byte_equal_to_protobufs_own(max_length):
    layout = RecordLayout.of(EVERYTHING, max_length, WIDTHS, canonical=True)

    assert_byte_equal(layout, padded_values(EVERYTHING, max_length, rows=12, ranges=RANGES))


RANGE = st.tuples(
    st.sampled_from([0, -1, INT64[0]]), st.sampled_from([0, 1, 127, 128, 2**14, 2**35, INT64[1]])
)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.one_of(st.none(), RANGE),
            st.lists(st.integers(1, 3), max_size=2),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda item: item[0],
    ),
    st.integers(1, 40),
    st.integers(0, 4),
    st.integers(0, 99),
)
def test_any_schema_and_values_are_byte_equal_and_read_back(items, max_length, rows, seed):
    items[0] = (*items[0][:3], True)
    features, ranges = [], {}
    for name, bounds, shape, sequence in sorted(items, key=lambda item: item[0].encode()):
        dtype = "float32" if bounds is None else "int64"
        features.append(
            Feature(
                name, dtype, tuple(shape), sequence=sequence, element_mask=sequence and shape != []
            )
        )
        if bounds is not None:
            ranges[name] = bounds
    schema = Schema(tuple(features))
    widths = {name: varint_width(*bounds) for name, bounds in ranges.items()}
    layout = RecordLayout.of(schema, max_length, widths, canonical=True)
    values = padded_values(schema, max_length, rows=rows, ranges=ranges, seed=seed)
    rng = np.random.default_rng(seed)
    for feature in schema.element_masked:
        values[feature.observed_name] = rng.random(values[feature.name].shape) < 0.5
    records = assert_byte_equal(layout, values)

    np.testing.assert_array_equal(record_ends(records.flat, layout), records.ends)
    assert (np.diff(records.ends, prepend=0) <= layout.stride).all()
    decoded = decode_records(records, layout, layout.fields)
    for field, array in zip(layout.fields, decoded, strict=True):
        np.testing.assert_array_equal(array, values[field.name])
        assert array.shape == (rows, *field.shape)


def records_of(rows=6, max_length=9):
    layout = RecordLayout.of(EVERYTHING, max_length, WIDTHS, canonical=True)
    values = padded_values(EVERYTHING, max_length, rows=rows, ranges=RANGES)
    return layout, values, canonical_records(frame(layout, values), layout)


def test_the_values_are_those_that_tensorflow_parses():
    layout, _, records = records_of(rows=20, max_length=200)
    flat = records.flat.tobytes()
    bounds = zip(records.starts.tolist(), records.ends.tolist(), strict=True)
    parsed = tf.io.parse_example(
        [flat[start + HEADER_BYTES : end - FOOTER_BYTES] for start, end in bounds],
        {
            field.name: tf.io.FixedLenFeature(field.shape, tf.as_dtype(field.dtype))
            for field in layout.fields
        },
    )

    decoded = decode_records(records, layout, layout.fields)

    for field, array in zip(layout.fields, decoded, strict=True):
        np.testing.assert_array_equal(array, parsed[field.name].numpy())


def test_any_fields_of_any_records_are_read():
    layout, values, records = records_of()
    names = ["tag", "length", "frames", "mask"]

    decoded = decode_records(records.head(3), layout, [layout[name] for name in names])

    for name, array in zip(names, decoded, strict=True):
        np.testing.assert_array_equal(array, values[name][:3])


def test_the_end_of_a_file_may_begin_another_record():
    layout, _, records = records_of()
    for cut in (0, 1, 15, 16, int(records.ends[2]), int(records.ends[2]) + 20, len(records.flat)):
        whole = records.ends[records.ends <= cut]
        np.testing.assert_array_equal(record_ends(records.flat[:cut], layout), whole)


@pytest.mark.parametrize("length", [1 << 30, (1 << 64) - 1])
def test_records_end_at_one_that_claims_to_be_larger_than_its_layout(length):
    layout, _, records = records_of()
    flat = records.flat.copy()
    start = int(records.ends[1])
    flat[start : start + 8] = np.frombuffer(length.to_bytes(8, "little"), np.uint8)

    np.testing.assert_array_equal(record_ends(flat, layout), records.ends[:2])


@settings(max_examples=200)
@given(st.data())
def test_hostile_records_are_refused_or_read_within_bounds(data):
    layout, _, records = records_of(rows=3, max_length=4)
    flat, ends = records.flat.copy(), records.ends.copy()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(flat) - 1))
        flat[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if data.draw(st.booleans()):
        ends = np.sort(np.array(data.draw(st.lists(st.integers(16, len(flat)), min_size=1)), int))
    try:
        decoded = decode_records(FramedRecords(flat, ends), layout, layout.fields)
    except CorruptDataError as refused:
        assert "layout of its bucket" in str(refused)
        return
    for field, array in zip(layout.fields, decoded, strict=True):
        assert array.shape == (len(ends), *field.shape)
