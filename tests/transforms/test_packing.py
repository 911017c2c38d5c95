"""Packed rows: whatever Arrow does with them, each row keeps its bytes."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import Feature, Schema
from lengthwise.transforms import RaggedRows
from lengthwise.transforms.packing import KEY, OBSERVED, pack_rows, unpack_rows


def assert_same(found, expected):
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    for name, values in {**expected.values, **expected.contexts}.items():
        array = {**found.values, **found.contexts}[name]
        np.testing.assert_array_equal(array, values)
        assert array.dtype == values.dtype
    assert set(found.values) == set(expected.values)
    assert set(found.contexts) == set(expected.contexts)
    np.testing.assert_array_equal(observed_of(found), observed_of(expected))
    keys = np.zeros(len(expected), np.uint64) if expected.keys is None else expected.keys
    np.testing.assert_array_equal(found.keys, keys)


def observed_of(rows):
    return np.ones(rows.lengths.sum(), bool) if rows.observed is None else rows.observed


@given(st.data())
def test_unpacking_gives_what_was_packed(ragged_batches, schema, storage, data):
    rows = data.draw(ragged_batches)

    assert_same(unpack_rows(pack_rows(rows, schema), schema, storage), rows)


@given(st.data())
def test_taken_sliced_and_concatenated_rows_are_the_selected_ones(
    ragged_batches, schema, storage, data
):
    rows = data.draw(ragged_batches)
    packed = pack_rows(rows, schema)
    positions = st.lists(st.integers(0, max(0, len(rows) - 1)), max_size=8 if len(rows) else 0)
    pieces, chosen = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        taken = data.draw(positions)
        first = data.draw(st.integers(0, len(taken)))
        last = data.draw(st.integers(first, len(taken)))
        piece = packed.take(pa.array(taken, pa.int64())).slice(first, last - first)
        assert_same(
            unpack_rows(piece, schema, storage), rows.select(np.array(taken[first:last], int))
        )
        pieces.append(piece)
        chosen += taken[first:last]
    together = pa.concat_batches(pieces)

    assert_same(unpack_rows(together, schema, storage), rows.select(np.array(chosen, int)))


@given(st.data())
def test_rows_travel_as_arrow_ipc(ragged_batches, schema, storage, data):
    rows = data.draw(ragged_batches)
    file = io.BytesIO()
    packed = pack_rows(rows, schema)
    with pa.ipc.new_file(file, packed.schema) as writer:
        writer.write_batch(packed)
        writer.write_batch(packed.slice(len(rows) // 2))

    reader = pa.ipc.open_file(pa.BufferReader(file.getvalue()))

    assert_same(unpack_rows(reader.get_batch(0), schema, storage), rows)
    second_half = rows.select(np.arange(len(rows) // 2, len(rows)))
    assert_same(unpack_rows(reader.get_batch(1), schema, storage), second_half)


TOKENS = Schema((Feature("tokens", "int64"),))


def tokens(lengths, observed):
    values = np.arange(sum(lengths), dtype=np.int16)
    return RaggedRows(np.array(lengths), {"tokens": values}, {}, np.array(observed, bool))


@pytest.mark.parametrize(
    ("lengths", "observed"),
    [
        ([0, 2], [1, 0]),
        ([2, 0], [1, 0]),
        ([0, 0], []),
        ([0, 1, 0, 0, 2, 0], [0, 1, 0]),
        ([3], [1, 1, 1]),
    ],
)
def test_rows_without_steps_may_stand_anywhere(lengths, observed):
    rows = tokens(lengths, observed)

    assert_same(unpack_rows(pack_rows(rows, TOKENS), TOKENS, {"tokens": "int16"}), rows)


def test_only_rows_with_missing_steps_carry_their_mask():
    packed = pack_rows(tokens([2, 1, 2], [1, 1, 0, 1, 0]), TOKENS)

    assert packed.column(OBSERVED).to_pylist() == [None, b"\0", b"\1\0"]


def test_each_feature_of_a_row_is_one_value_of_bytes():
    rows = RaggedRows(
        np.array([2, 1]),
        {"tokens": np.array([1, 2, 3], np.int16)},
        {},
        keys=np.array([7, 2**64 - 1], np.uint64),
    )

    packed = pack_rows(rows, TOKENS)

    assert packed.to_pydict() == {
        "key": [7, 2**64 - 1],
        "length": [2, 1],
        "observed": [None, None],
        "feature/tokens": [b"\1\0\2\0", b"\3\0"],
    }


def test_features_may_bear_the_names_of_packed_columns():
    schema = Schema(tuple(Feature(name, "int64") for name in (KEY, OBSERVED)))
    values = {KEY: np.array([1, 2], np.int8), OBSERVED: np.array([3, 4], np.int8)}
    rows = RaggedRows(np.array([2]), values, {})

    storage = {KEY: "int8", OBSERVED: "int8"}

    assert_same(unpack_rows(pack_rows(rows, schema), schema, storage), rows)


def test_unpacked_values_are_views_of_the_packed_ones():
    packed = pack_rows(tokens([200, 100], [1] * 300), TOKENS)

    values = unpack_rows(packed, TOKENS, {"tokens": "int16"}).values["tokens"]

    buffer = packed.column("feature/tokens").buffers()[2]
    assert buffer.address <= values.ctypes.data < buffer.address + buffer.size
