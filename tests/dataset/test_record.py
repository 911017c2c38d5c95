"""The strided record: any parser of `tf.train.Example` reads it, and so does plain slicing."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import Feature, PlanError, RecordLayout, Schema
from lengthwise.dataset.record import decode_varints, encode_varints, varint_width
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.dataset.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame_record, seal_frames

INT64 = (-(2**63), 2**63 - 1)


def capacity(width):
    """The integers that a varint of this many bytes holds."""
    return INT64 if width == 10 else (0, 2 ** (7 * width) - 1)


def frame(layout, values):
    """Framed records (n, stride), from arrays (n, *shape)."""
    n = len(values[LENGTH])
    framed = np.tile(np.frombuffer(layout.template, np.uint8), (n, 1))
    for field in layout.fields:
        flat = np.ascontiguousarray(values[field.name]).reshape(n, field.count)
        if field.dtype == "float32":
            framed[:, field.payload] = flat.view(np.uint8)
        else:
            encode_varints(flat, field.width, framed[:, field.payload])
    seal_frames(framed)
    return framed


def example_of(layout, values, row):
    """The same record by way of protocol buffers."""
    features = {}
    for field in layout.fields:
        flat = np.ravel(values[field.name][row])
        if field.dtype == "float32":
            features[field.name] = tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        else:
            ints = tf.train.Int64List(value=flat.astype(np.int64))
            features[field.name] = tf.train.Feature(int64_list=ints)
    return tf.train.Example(features=tf.train.Features(feature=features))


def padded_values(schema, max_length, *, rows=5, ranges=None, seed=0):
    """Values as they stand in records: padded, masked, zeros in padding."""
    rng = np.random.default_rng(seed)
    length = rng.integers(0, max_length + 1, rows)
    mask = (np.arange(max_length) < length[:, None]) & (rng.random((rows, max_length)) < 0.9)
    values = {LENGTH: length, MASK: mask}
    for feature in schema.features:
        shape = (rows, *((max_length,) if feature.sequence else ()), *feature.shape)
        if feature.dtype == "float32":
            drawn = rng.normal(size=shape).astype(np.float32)
        else:
            low, high = (ranges or {}).get(feature.name, (0, 127))
            drawn = rng.integers(low, high, shape, endpoint=True)
        if feature.sequence:
            drawn[~mask] = 0
        values[feature.name] = drawn
    return values


EVERYTHING = Schema(
    (
        Feature("bias", "float32", (3,), sequence=False),
        Feature("day", "int64", sequence=False),
        Feature("frames", "float32", (4,)),
        Feature("label", "int64", sequence=False, label=True),
        Feature("matrix", "float32", (2, 3)),
        Feature("pairs", "int64", (2,)),
        Feature("scalar", "float32"),
        Feature("tag", "int64", label=True),
    )
)
RANGES = {"day": (-5, 5), "label": (0, 8), "pairs": (0, 2**40), "tag": INT64}
WIDTHS = {name: varint_width(*bounds) for name, bounds in RANGES.items()}


@given(st.integers(*INT64))
def test_width_is_that_of_the_shortest_varint(value):
    payload = tf.train.Int64List(value=[value]).SerializeToString()[2:]

    assert varint_width(value, value) == len(payload)
    assert varint_width(min(0, value), max(0, value)) == len(payload)


@pytest.mark.parametrize("width", range(1, 11))
def test_width_holds_both_ends_of_the_range(width):
    low, high = capacity(width)

    assert varint_width(low, high) == width
    if width < 9:
        assert varint_width(0, high + 1) == width + 1


def varint_cases():
    return st.integers(1, 10).flatmap(
        lambda width: st.tuples(
            st.just(width),
            st.lists(st.integers(*capacity(width)), min_size=2, max_size=12).map(
                lambda values: values[: len(values) // 2 * 2]
            ),
        )
    )


@given(varint_cases())
def test_varints_of_one_width_are_read_by_protobuf_and_decoded_back(case):
    width, values = case
    array = np.array(values, np.int64).reshape(2, -1)
    encoded = np.empty((2, array.shape[1] * width), np.uint8)

    encode_varints(array, width, encoded)

    np.testing.assert_array_equal(decode_varints(encoded, width), array)
    payload = encoded.tobytes()
    packed = bytes([1 << 3 | 2, len(payload)]) + payload
    assert list(tf.train.Int64List.FromString(packed).value) == values


@pytest.mark.parametrize("width", range(1, 11))
@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64]
)
def test_varints_are_written_from_integers_of_any_type(dtype, width):
    bounds = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low, high = max(capacity(width)[0], bounds[0]), min(capacity(width)[1], bounds[1])
    values = np.array([[low, high, low // 2, high // 3]], dtype)
    encoded = np.empty((1, 4 * width), np.uint8)

    encode_varints(values, width, encoded)

    np.testing.assert_array_equal(decode_varints(encoded, width), values.astype(np.int64))


def test_varints_are_written_into_and_read_from_strided_views():
    values = np.array([[300, 1], [2, 16_000]])
    matrix = np.zeros((2, 9), np.uint8)

    encode_varints(values, 2, matrix[:, 3:7])

    assert not matrix[:, :3].any() and not matrix[:, 7:].any()
    np.testing.assert_array_equal(decode_varints(matrix[:, 3:7], 2), values)


@pytest.mark.parametrize("max_length", [1, 16, 127])
def test_float_records_are_byte_equal_to_protobufs_own(max_length):
    schema = Schema(tuple(f for f in EVERYTHING.features if f.dtype == "float32"))
    layout = RecordLayout.of(schema, max_length, {})
    values = padded_values(schema, max_length)

    records = frame(layout, values)

    for row, record in enumerate(records):
        serialized = example_of(layout, values, row).SerializeToString(deterministic=True)
        assert record.tobytes() == frame_record(serialized)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
).filter(
    lambda name: (
        name.isprintable() and name not in ("length", "mask") and not name.endswith("__observed")
    )
)


@given(
    st.lists(
        st.tuples(NAMES, st.lists(st.integers(1, 4), max_size=2), st.booleans()),
        min_size=1,
        max_size=5,
        unique_by=lambda item: item[0],
    ),
    st.integers(1, 40),
)
def test_records_of_any_float_schema_are_byte_equal_to_protobufs_own(items, max_length):
    items[0] = (*items[0][:2], True)
    schema = Schema(
        tuple(
            Feature(name, "float32", tuple(shape), sequence=sequence)
            for name, shape, sequence in sorted(items, key=lambda item: item[0].encode())
        )
    )
    layout = RecordLayout.of(schema, max_length, {})
    values = padded_values(schema, max_length, rows=1)

    serialized = example_of(layout, values, 0).SerializeToString(deterministic=True)

    assert frame(layout, values).tobytes() == frame_record(serialized)


@pytest.mark.parametrize("max_length", [1, 7, 200])
def test_every_record_parses_equal_in_tensorflow(max_length):
    layout = RecordLayout.of(EVERYTHING, max_length, WIDTHS)
    values = padded_values(EVERYTHING, max_length, rows=20, ranges=RANGES)
    serialized = [record[HEADER_BYTES:-FOOTER_BYTES].tobytes() for record in frame(layout, values)]

    parsed = tf.io.parse_example(
        serialized,
        {
            field.name: tf.io.FixedLenFeature(field.shape, tf.as_dtype(field.dtype))
            for field in layout.fields
        },
    )

    assert set(parsed) == {LENGTH, MASK, *EVERYTHING.names}
    for name, tensor in parsed.items():
        np.testing.assert_array_equal(tensor.numpy(), values[name])


def test_every_record_parses_equal_in_protobuf():
    layout = RecordLayout.of(EVERYTHING, 9, WIDTHS)
    values = padded_values(EVERYTHING, 9, ranges=RANGES)

    for row, record in enumerate(frame(layout, values)):
        serialized = record[HEADER_BYTES:-FOOTER_BYTES].tobytes()
        assert tf.train.Example.FromString(serialized) == example_of(layout, values, row)


@pytest.mark.parametrize("max_length", [1, 7, 200])
def test_decoding_without_a_parser_gives_what_was_encoded(max_length):
    layout = RecordLayout.of(EVERYTHING, max_length, WIDTHS)
    values = padded_values(EVERYTHING, max_length, rows=20, ranges=RANGES)

    decoded = layout.decode(frame(layout, values))

    assert set(decoded) == set(values)
    assert decoded[MASK].dtype == np.bool_
    for name, array in decoded.items():
        np.testing.assert_array_equal(array, values[name])
        assert array.shape == (20, *layout[name].shape)


def test_decoding_no_records_gives_arrays_of_no_rows():
    layout = RecordLayout.of(EVERYTHING, 3, WIDTHS)

    decoded = layout.decode(np.empty((0, layout.stride), np.uint8))

    assert {name: array.shape for name, array in decoded.items()} == {
        field.name: (0, *field.shape) for field in layout.fields
    }


def test_fields_stand_where_the_layout_says_and_nothing_else_changes():
    layout = RecordLayout.of(EVERYTHING, 5, WIDTHS)
    values = padded_values(EVERYTHING, 5, ranges=RANGES)
    records = frame(layout, values)

    assert layout.stride == len(layout.template) == records.shape[1]
    assert layout.record_bytes == layout.stride - 16
    payload = np.zeros(layout.stride, bool)
    for field in layout.fields:
        assert not payload[field.payload].any()
        payload[field.payload] = True
        assert field.payload.stop - field.payload.start == field.count * field.width
    fixed = np.flatnonzero(~payload)[:-FOOTER_BYTES]
    template = np.frombuffer(layout.template, np.uint8)
    assert (records[:, fixed] == template[fixed]).all()
    assert not template[payload].any()
    assert records[:, layout["frames"].payload].tobytes() == values["frames"].tobytes()
    np.testing.assert_array_equal(records[:, layout[MASK].payload], values[MASK])


def test_fields_are_sorted_by_the_bytes_of_their_names_as_protobuf_does():
    names = ("Zebra", "a", "ab", "abc", "ac", "ü")
    schema = Schema(tuple(Feature(name, "float32") for name in names))
    layout = RecordLayout.of(schema, 2, {})
    example = example_of(layout, padded_values(schema, 2), 0)

    serialized = example.SerializeToString(deterministic=True)

    expected = ["Zebra", "abc", "ab", "ac", "a", LENGTH, MASK, "ü"]
    assert [field.name for field in layout.fields] == expected
    places = [
        serialized.index(bytes([10, len(name.encode())]) + name.encode() + b"\x12")
        for name in expected
    ]
    assert places == sorted(places)
    with pytest.raises(KeyError):
        layout["pear"]


def test_all_records_of_a_bucket_have_one_size():
    layout = RecordLayout.of(EVERYTHING, 300, WIDTHS)
    records = frame(layout, padded_values(EVERYTHING, 300, rows=50, ranges=RANGES))

    assert records.shape == (50, layout.stride)
    assert layout[LENGTH].width == 2
    assert layout["tag"].width == 10


def test_records_too_large_to_be_read_back_are_refused():
    schema = Schema((Feature("frames", "float32", (1 << 20,)),))

    assert RecordLayout.of(schema, 255, {}).stride < 1 << 30
    with pytest.raises(PlanError, match=r"256 steps takes .* give a smaller --max-length"):
        RecordLayout.of(schema, 256, {})


def test_a_layout_is_known_without_the_memory_of_a_record():
    schema = Schema((Feature("frames", "float32", (15,)),))
    tracemalloc.start()
    try:
        layout = RecordLayout.of(schema, 1 << 24, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert layout.stride > 1_000_000_000
    assert peak < 1_000_000
