"""Encoding: whole buckets at once, byte for byte the records of one row after another."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import Feature, InputError, RecordLayout, Schema, SchemaError
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.dataset.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame_record
from lengthwise.transforms import (
    EncodeExamples,
    PaddedBatch,
    PadToBucket,
    RaggedRows,
    encode_examples,
    encode_rows,
    layout_of,
    pad_batch,
)
from lengthwise.transforms.encoding import RowEncoder
from lengthwise.transforms.packing import pack_rows, unpack_rows, value_column
from lengthwise.transforms.row_places import gather_rows, places_of, spans_in, take_places

# Of the integer features of the rows in conftest.
WIDTHS = {"id": 10, "key": 2, "pair": 10}
TOKENS = Schema((Feature("tokens", "int64"),))
VECTORS = Schema((Feature("id", "int64", sequence=False), Feature("x", "float32", (2,))))


def token_rows(*rows, dtype=np.int64):
    values = np.array([token for row in rows for token in row], dtype)
    return RaggedRows(np.array([len(row) for row in rows]), {"tokens": values}, {})


@given(st.data(), st.integers(9, 40))
def test_padding_and_encoding_in_one_copy_gives_the_same_bytes(
    ragged_batches, schema, data, max_length
):
    rows = data.draw(ragged_batches)
    layout = RecordLayout.of(schema, max_length, WIDTHS)

    at_once = encode_rows(rows, schema, layout)

    one_by_one = encode_examples(pad_batch(rows, max_length), layout)
    np.testing.assert_array_equal(at_once, one_by_one)
    assert at_once.shape == (len(rows), layout.stride)
    assert at_once.dtype == np.uint8


@given(st.data(), st.sampled_from(["right", "left"]), st.booleans())
def test_steps_that_lie_elsewhere_give_the_same_bytes(
    ragged_batches, schema, storage, data, side, canonical
):
    rows = data.draw(ragged_batches)
    layout = RecordLayout.of(schema, 9, WIDTHS, canonical=canonical)
    encoder = RowEncoder(schema, layout, side=side, pad_value=3.0)
    order = np.array(data.draw(st.permutations(range(len(rows)))), int)
    packed = pack_rows(rows, schema)
    places = take_places(places_of(packed), order)
    elsewhere = {name: places[value_column(schema[name])] for name in ("frames", "value")}
    others = [
        name for name in packed.schema.names if name not in ("feature/frames", "feature/value")
    ]

    found = encoder.encode(unpack_rows(gather_rows(places[others]), schema, storage), elsewhere)

    expected = encoder.encode(rows.select(order))
    assert bytes(found.data) == bytes(expected.data)
    if not canonical:
        sealed = encode_rows(rows.select(order), schema, layout, side=side, pad_value=3.0)
        assert bytes(found.data) == bytes(sealed.data)


def test_steps_of_another_size_are_refused():
    layout = RecordLayout.of(VECTORS, 4, {"id": 1})
    rows = RaggedRows(np.array([2, 1]), {}, {"id": np.ones(2, np.int64)})
    steps = np.ones((3, 2), np.float32)
    encoder = RowEncoder(VECTORS, layout)

    encoder.encode(rows, {"x": spans_in(steps, np.array([0, 16, 24]))})
    for offsets in ([0, 8, 24], [0, 16, 16], [0, 16, 20]):
        with pytest.raises(SchemaError, match="'x': the bytes of a row are not those of"):
            encoder.encode(rows, {"x": spans_in(steps, np.array(offsets))})


@given(st.data())
def test_records_hold_the_padded_values(ragged_batches, schema, data):
    batch = pad_batch(data.draw(ragged_batches), 9)
    layout = RecordLayout.of(schema, 9, WIDTHS)

    decoded = layout.decode(encode_examples(batch, layout))

    np.testing.assert_array_equal(decoded[LENGTH], batch.length)
    np.testing.assert_array_equal(decoded[MASK], batch.mask)
    for name in schema.names:
        np.testing.assert_array_equal(decoded[name], batch.features[name])


@given(st.data())
def test_records_are_framed_examples_for_any_parser(ragged_batches, schema, data):
    batch = pad_batch(data.draw(ragged_batches), 9)
    layout = RecordLayout.of(schema, 9, WIDTHS)

    for row, record in enumerate(encode_examples(batch, layout)):
        serialized = record[HEADER_BYTES:-FOOTER_BYTES].tobytes()
        assert record.tobytes() == frame_record(serialized)
        features = tf.train.Example.FromString(serialized).features.feature
        assert set(features) == {LENGTH, MASK, *schema.names}
        assert list(features[LENGTH].int64_list.value) == [batch.length[row]]
        assert list(features[MASK].int64_list.value) == batch.mask[row].tolist()
        for name in schema.names:
            kind = "float_list" if schema[name].dtype == "float32" else "int64_list"
            values = getattr(features[name], kind).value
            assert list(values) == batch.features[name][row].ravel().tolist()


def test_float_records_are_those_of_protobuf():
    schema = Schema((Feature("frames", "float32", (2,)),))
    rows = RaggedRows(np.array([2]), {"frames": np.array([[1, 2], [3, 4]], np.float32)}, {})

    record = encode_rows(rows, schema, RecordLayout.of(schema, 3, {}))

    def feature(**values):
        return tf.train.Feature(**values)

    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "frames": feature(float_list=tf.train.FloatList(value=[1, 2, 3, 4, 0, 0])),
                "length": feature(int64_list=tf.train.Int64List(value=[2])),
                "mask": feature(int64_list=tf.train.Int64List(value=[1, 1, 0])),
            }
        )
    )
    assert record.tobytes() == frame_record(example.SerializeToString(deterministic=True))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_values_of_the_planned_width_are_taken_and_larger_ones_refused(dtype):
    top = min(2**14 - 1, 1 if dtype == np.bool_ else np.iinfo(dtype).max)
    layout = RecordLayout.of(TOKENS, 2, {"tokens": 2})
    rows = token_rows([0, top], dtype=dtype)

    np.testing.assert_array_equal(
        layout.decode(encode_rows(rows, TOKENS, layout))["tokens"], [[0, top]]
    )
    if top == 2**14 - 1:
        for encode in (
            lambda rows: encode_rows(rows, TOKENS, layout),
            lambda rows: encode_examples(pad_batch(rows, 2), layout),
        ):
            with pytest.raises(SchemaError, match=r"'tokens': a value of \[5, 16384\] is outside"):
                encode(token_rows([2**14, 5], dtype=dtype))


def test_negative_values_take_the_full_width():
    for width in range(1, 10):
        layout = RecordLayout.of(TOKENS, 2, {"tokens": width})
        with pytest.raises(SchemaError, match=r"a value of \[-1, 5\] is outside the range"):
            encode_rows(token_rows([-1, 5]), TOKENS, layout)
    layout = RecordLayout.of(TOKENS, 2, {"tokens": 10})
    rows = token_rows([-1, -(2**63)])
    assert layout.decode(encode_rows(rows, TOKENS, layout))["tokens"].tolist() == [[-1, -(2**63)]]


def test_no_rows_give_no_records():
    layout = RecordLayout.of(TOKENS, 4, {"tokens": 2})
    empty = token_rows()

    for records in (
        encode_rows(empty, TOKENS, layout),
        encode_examples(pad_batch(empty, 4), layout),
    ):
        assert records.shape == (0, layout.stride)


def test_rows_without_steps_are_all_padding():
    layout = RecordLayout.of(TOKENS, 4, {"tokens": 2})

    decoded = layout.decode(encode_rows(token_rows([], []), TOKENS, layout))

    assert decoded[LENGTH].tolist() == [0, 0]
    assert not decoded[MASK].any()
    assert not decoded["tokens"].any()


def test_a_row_longer_than_its_bucket_is_refused():
    layout = RecordLayout.of(TOKENS, 2, {"tokens": 1})

    with pytest.raises(InputError, match=r"lengths must lie within \[0, 2\], found 3 to 3"):
        encode_rows(token_rows([1, 2, 3]), TOKENS, layout)


@pytest.mark.parametrize(
    ("steps", "context", "message"),
    [
        ((3, 3), (2,), r"'x': the layout asks for (3, 2), the rows have (3, 3)"),
        ((3,), (2,), r"'x': the layout asks for (3, 2), the rows have (3,)"),
        ((1, 2), (2,), r"'x': the layout asks for (3, 2), the rows have (1, 2)"),
        ((3, 2), (2, 1), r"'id': the layout asks for (2,), the rows have (2, 1)"),
        ((3, 2), (1,), r"'id': the layout asks for (2,), the rows have (1,)"),
    ],
)
def test_values_of_another_shape_are_refused_not_smeared_over_other_fields(steps, context, message):
    layout = RecordLayout.of(VECTORS, 4, {"id": 1})
    contexts = {"id": np.ones(context, np.int64)}
    rows = RaggedRows(np.array([2, 1]), {"x": np.ones(steps, np.float32)}, contexts)

    with pytest.raises(SchemaError) as error:
        encode_rows(rows, VECTORS, layout)
    assert message in str(error.value)


def test_batches_that_do_not_fit_the_layout_are_refused():
    layout = RecordLayout.of(TOKENS, 4, {"tokens": 1})
    nothing = PaddedBatch({}, np.ones(1, np.int64), np.ones((1, 4), bool))

    with pytest.raises(SchemaError, match=r"asks for \(1, 4\), the rows have \(1, 3\)"):
        encode_examples(pad_batch(token_rows([1]), 3), layout)
    with pytest.raises(SchemaError, match="'tokens' is in the layout, but not in the batch"):
        encode_examples(nothing, layout)


def test_fractions_are_not_cut_down_to_integers():
    layout = RecordLayout.of(TOKENS, 2, {"tokens": 1})

    with pytest.raises(SchemaError, match="asks for integers, the rows have float64"):
        encode_rows(token_rows([1.5, 2.0], dtype=np.float64), TOKENS, layout)


def test_integers_may_become_floats():
    schema = Schema((Feature("x", "float32"),))
    rows = RaggedRows(np.array([2]), {"x": np.array([1, 2], np.int16)}, {})
    layout = RecordLayout.of(schema, 3, {})

    assert layout.decode(encode_rows(rows, schema, layout))["x"].tolist() == [[1, 2, 0]]


def test_the_layout_of_a_batch_fits_its_values():
    batch = pad_batch(token_rows([1, 300], [2]), 3)

    layout = layout_of(batch, TOKENS)

    assert (layout.max_length, layout["tokens"].width) == (3, 2)
    assert layout_of(pad_batch(token_rows([-1]), 1), TOKENS)["tokens"].width == 10
    assert layout_of(pad_batch(token_rows(), 1), TOKENS)["tokens"].width == 1


@pytest.mark.parametrize(("widths", "stride"), [(None, 73), ({"tokens": 3}, 81)])
def test_batches_are_encoded_in_a_pipeline(widths, stride):
    batch = pa.record_batch({"tokens": [[1, 2], [3]]})
    layout = RecordLayout.of(TOKENS, 4, widths or {"tokens": 1})
    expected = encode_rows(token_rows([1, 2], [3]), TOKENS, layout)

    assert expected.shape == (2, stride)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        records = (
            pipeline
            | beam.Create([(4, batch)])
            | PadToBucket(TOKENS)
            | EncodeExamples(TOKENS, widths=widths)
            | beam.MapTuple(lambda max_length, records: (max_length, records.tolist()))
        )
        assert_that(records, equal_to([(4, expected.tolist())]))
