"""An element mask: what is missing of a step is masked by itself, and nothing else is."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import Feature, RecordLayout, Schema, SchemaError
from lengthwise.dataset.reasons import INFINITE, NOT_A_NUMBER, OUT_OF_RANGE
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.transforms import (
    RaggedRows,
    encode_examples,
    encode_rows,
    pad_batch,
    ragged_rows,
    summarize,
)
from lengthwise.transforms.missing import fill_missing
from lengthwise.transforms.packing import pack_rows, unpack_rows

NAN = float("nan")
COLUMNS = pa.schema(
    [
        ("frames", pa.list_(pa.list_(pa.float32(), 2))),
        ("pixels", pa.list_(pa.list_(pa.list_(pa.int16(), 2), 1))),
        ("value", pa.list_(pa.float32())),
    ]
)
PLAIN = Schema.from_arrow(COLUMNS)
MASKED = PLAIN.with_element_masks
STORAGE = {"frames": "float32", "pixels": "int16", "value": "float32"}

NUMBERS = st.sampled_from([1.0, -2.5, NAN, None])
VECTORS = st.none() | st.lists(NUMBERS, min_size=2, max_size=2)
PAIRS = st.none() | st.lists(st.sampled_from([3, -4, None]), min_size=2, max_size=2)
MATRICES = st.none() | PAIRS.map(lambda pair: [pair])
STEPS = st.tuples(VECTORS, MATRICES, NUMBERS)


def is_there(value):
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def elements_of(step, size):
    """The values of a step, None where they are missing."""
    if step is None:
        return [None] * size
    if isinstance(step, list):
        width = size // len(step)
        return [value for part in step for value in elements_of(part, width)]
    return [step if is_there(step) else None]


def batch_of(rows):
    columns = zip(*[zip(*row, strict=True) if row else ((), (), ()) for row in rows], strict=True)
    arrays = [
        pa.array([list(values) for values in column], field.type)
        for column, field in zip(columns, COLUMNS, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)


@settings(max_examples=150)
@given(st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=4))
def test_each_element_is_observed_by_itself(rows):
    found, faults = ragged_rows(batch_of(rows), MASKED)

    assert not faults.any()
    for at, (*_, step) in enumerate((row, step) for row in rows for step in row):
        elements = {
            name: elements_of(value, MASKED[name].size)
            for name, value in zip(COLUMNS.names, step, strict=True)
        }
        # A step is missing where nothing of it was observed, in any of the features.
        present = all(any(map(is_there, values)) for values in elements.values())
        assert (found.observed is None or bool(found.observed[at])) == present
        for name in ("frames", "pixels"):
            expected = [present and value is not None for value in elements[name]]
            assert found.elements_of(name)[at].ravel().tolist() == expected
            kept = [
                value if there else 0 for value, there in zip(elements[name], expected, strict=True)
            ]
            assert found.values[name][at].ravel().tolist() == kept
        assert found.values["value"][at] == (elements["value"][0] if present else 0)
    assert set(found.elements) <= {"frames", "pixels"}


@given(st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=4))
def test_without_the_option_a_missing_element_takes_its_step_along(rows):
    found, _ = ragged_rows(batch_of(rows), PLAIN)

    expected = [
        all(
            is_there(value)
            for part in step
            for value in elements_of(part, 1 if not isinstance(part, list) else 2)
        )
        and None not in step
        for row in rows
        for step in row
    ]
    assert found.elements == {}
    assert (found.observed is None and all(expected)) or found.observed.tolist() == expected


@pytest.mark.parametrize(
    ("step", "fault"), [([1.0, math.inf], INFINITE), ([None, math.inf], INFINITE)]
)
def test_an_infinite_element_is_a_fault_whatever_is_missing_beside_it(step, fault):
    batch = pa.record_batch([pa.array([[step]], COLUMNS.field("frames").type)], names=["frames"])
    schema = Schema((MASKED["frames"],))

    assert ragged_rows(batch, schema)[1].tolist() == [fault]


def test_an_integer_past_int64_is_a_fault_and_a_null_is_not():
    type_ = pa.list_(pa.list_(pa.uint64(), 2))
    batch = pa.record_batch([pa.array([[[1, None]], [[2**64 - 1, None]]], type_)], names=["x"])

    rows, faults = ragged_rows(batch, Schema.from_arrow(batch.schema).with_element_masks)

    assert faults.tolist() == [0, OUT_OF_RANGE]
    assert rows.elements["x"].tolist() == [[True, False]]


@pytest.mark.parametrize(("nan", "observed"), [("keep", [True, True]), ("missing", [True, False])])
def test_a_nan_element_is_what_was_asked(nan, observed):
    batch = batch_of([[([1.0, NAN], [[3, 3]], 1.0)]])

    rows, faults = ragged_rows(batch, MASKED, nan=nan)

    assert not faults.any()
    assert rows.elements_of("frames").tolist() == [observed]
    assert ragged_rows(batch, MASKED, nan="error")[1].tolist() == [NOT_A_NUMBER]


@st.composite
def masked_rows(draw):
    lengths = np.array(draw(st.lists(st.integers(0, 5), max_size=6)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    steps = int(lengths.sum())
    observed = rng.random(steps) < 0.8 if draw(st.booleans()) else None
    values = {
        "frames": rng.normal(size=(steps, 2)).astype(np.float32),
        "pixels": rng.integers(-9, 9, (steps, 1, 2)).astype(np.int16),
        "value": rng.normal(size=steps).astype(np.float32),
    }
    elements = {}
    for name in (
        draw(st.sets(st.sampled_from(["frames", "pixels"])))
        if observed is None
        else ("frames", "pixels")
    ):
        elements[name] = rng.random(values[name].shape) < 0.7
        if observed is not None:
            elements[name][~observed] = False
        values[name][~elements[name]] = 0
    return RaggedRows(lengths, values, {}, observed, None, elements)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)
        np.testing.assert_array_equal(found.elements_of(name), expected.elements_of(name))


@given(masked_rows(), st.data())
def test_masks_travel_with_their_rows(rows, data):
    packed = pack_rows(rows, MASKED)
    chosen = data.draw(st.lists(st.integers(0, max(0, len(rows) - 1)), max_size=5 * len(rows)))
    chosen = np.array(chosen[: 5 if len(rows) else 0], np.int64)

    assert_same(unpack_rows(packed, MASKED, STORAGE), rows)
    assert_same(unpack_rows(packed.take(pa.array(chosen)), MASKED, STORAGE), rows.select(chosen))


@given(masked_rows())
def test_masks_are_cut_with_their_rows(rows):
    pieces, of = rows.pieces(2)
    for name in ("frames", "pixels"):
        for piece in range(len(pieces)):
            first = int(np.flatnonzero(of == of[piece])[0])
            start = int(rows.offsets[of[piece]]) + 2 * (piece - first)
            begin, end = pieces.offsets[piece : piece + 2]
            np.testing.assert_array_equal(
                pieces.elements_of(name)[begin:end],
                rows.elements_of(name)[start : start + end - begin],
            )


@given(masked_rows(), st.sampled_from(["right", "left"]))
def test_records_say_which_elements_were_observed(rows, side):
    layout = RecordLayout.of(MASKED, 5, {"pixels": 10})

    framed = encode_rows(rows, MASKED, layout, side=side)

    decoded = layout.decode(framed)
    for name in ("frames", "pixels"):
        observed = decoded[f"{name}__observed"]
        assert observed.dtype == np.bool_
        assert observed.shape == decoded[name].shape
        # Nothing is observed in padding and at missing steps; no missing element has a value.
        assert not observed[~decoded[MASK]].any()
        assert not decoded[name][~observed].any()
        for row, (begin, end) in enumerate(zip(rows.offsets[:-1], rows.offsets[1:], strict=True)):
            length = int(decoded[LENGTH][row])
            steps = slice(length) if side == "right" else slice(5 - length, 5)
            expected = rows.elements_of(name)[begin:end]
            np.testing.assert_array_equal(observed[row, steps], expected)
    if side == "right":
        np.testing.assert_array_equal(encode_examples(pad_batch(rows, 5), layout), framed)


@pytest.mark.parametrize(
    ("fill", "filled"),
    [
        ("zero", [[1, 0], [0, 5], [0, 0], [0, 8]]),
        ("forward", [[1, 0], [1, 5], [1, 5], [0, 8]]),
        (-2.0, [[1, -2], [-2, 5], [-2, -2], [-2, 8]]),
    ],
)
def test_each_element_is_filled_from_its_own_past(fill, filled):
    values = np.array([[1, 0], [0, 5], [0, 0], [0, 8]], np.float32)

    found = fill_missing(values, values != 0, np.array([3, 1]), fill)

    assert found.tolist() == filled
    assert found.dtype == np.float32


def test_statistics_are_those_of_the_observed_elements():
    feature = MASKED["frames"]
    values = np.array([[1, 0], [3, 0], [0, 0]], np.float32)
    observed = np.array([[True, False], [True, True], [False, False]])

    found = summarize(values, np.array([2, 1]), feature, observed).statistics(feature)

    assert (found.count, found.missing) == (3, 3)
    assert found.mean == pytest.approx(4 / 3)
    assert (found.low, found.high) == (0, 3)


def test_only_vectors_per_step_have_an_element_mask():
    assert [feature.name for feature in MASKED.element_masked] == ["frames", "pixels"]
    assert Schema.from_arrow(COLUMNS) == PLAIN != MASKED
    for shape, sequence in [((), True), ((2,), False)]:
        with pytest.raises(SchemaError, match="only a sequence of vectors has a mask of elements"):
            Feature("x", "float32", shape, sequence=sequence, element_mask=True)
