"""Ragged rows out of Arrow: what is missing, what is faulty, and where every row ends up."""

import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import Feature, InputError, Schema, SchemaError
from lengthwise.dataset.reasons import (
    INFINITE,
    NULL_CONTEXT,
    NULL_SEQUENCE,
    OUT_OF_RANGE,
    REASONS,
    UNEQUAL_LENGTHS,
)
from lengthwise.transforms import RaggedRows, ragged_rows
from lengthwise.transforms.ragged import (
    single_batch,
    span_index,
    storage_dtypes,
    usable_rows,
)

FLOATS = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}
SIGNED = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
UNSIGNED = [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
NAN, INF = float("nan"), float("inf")


def table_of(labels=(), contexts=(), **columns):
    """A table, its schema, and the rows in it."""
    table = pa.table(columns)
    sequences = [name for name in table.schema.names if name not in (*labels, *contexts)]
    return table, Schema.from_arrow(
        table.schema, sequences=sequences, labels=labels, contexts=contexts
    )


def rows_of(labels=(), contexts=(), **columns):
    return ragged_rows(*table_of(labels, contexts, **columns))


def listed(type_, *shape):
    for size in reversed(shape):
        type_ = pa.list_(type_, size)
    return pa.list_(type_)


# Every type of value


@pytest.mark.parametrize("type_", [*SIGNED, *UNSIGNED], ids=str)
def test_integers_keep_their_values_to_the_ends_of_their_type(type_):
    low, high = np.iinfo(str(type_)).min, min(np.iinfo(str(type_)).max, 2**63 - 1)

    rows, faults = rows_of(x=pa.array([[low, high], [1]], pa.list_(type_)))

    assert rows.values["x"].tolist() == [low, high, 1]
    assert rows.values["x"].dtype.kind in "iu"
    assert not faults.any()
    assert rows.observed is None


@pytest.mark.parametrize("type_", FLOATS, ids=str)
def test_floats_become_float32(type_):
    numbers = np.array([0.5, -2.25, 1e-3, 6e4], FLOATS[type_])

    rows, faults = rows_of(x=pa.array([numbers], pa.list_(type_)))

    assert rows.values["x"].dtype == np.float32
    np.testing.assert_array_equal(rows.values["x"], numbers.astype(np.float32))
    assert not faults.any()


def test_bools_become_zeros_and_ones():
    rows, _ = rows_of(["y"], x=[[True, False], [True]], y=[False, True])

    assert rows.values["x"].tolist() == [1, 0, 1]
    assert rows.contexts["y"].tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("large", [False, True])
def test_steps_of_every_shape_are_taken_out_flat(shape, large):
    steps = np.arange(5 * math.prod(shape), dtype=np.float32).reshape(5, *shape)
    type_ = listed(pa.float32(), *shape)
    type_ = pa.large_list(type_.value_type) if large else type_
    column = pa.array([steps[:3].tolist(), [], steps[3:].tolist()], type_)

    rows, _ = rows_of(x=column)

    assert rows.lengths.dtype == np.int64
    assert rows.lengths.tolist() == [3, 0, 2]
    assert rows.offsets.tolist() == [0, 3, 3, 5]
    np.testing.assert_array_equal(rows.values["x"], steps)


def test_contexts_may_be_vectors_and_matrices():
    matrices = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    column = pa.array(matrices.tolist(), pa.list_(pa.list_(pa.float32(), 3), 2))

    rows, _ = rows_of([], ["m"], x=[[1], [2]], m=column)

    np.testing.assert_array_equal(rows.contexts["m"], matrices)


# Missing steps


def test_null_and_nan_steps_are_missing_and_zero():
    rows, faults = rows_of(x=pa.array([[1.5, None, NAN], [2.5]], pa.list_(pa.float32())))

    assert rows.values["x"].tolist() == [1.5, 0, 0, 2.5]
    assert rows.observed.tolist() == [True, False, False, True]
    assert rows.lengths.tolist() == [3, 1]
    assert not faults.any()


@pytest.mark.parametrize("missing", [None, [None, 2], [NAN, 2], [1, NAN]])
def test_a_vector_with_a_missing_element_is_a_missing_step(missing):
    rows, _ = rows_of(x=pa.array([[[5, 6], missing, [7, 8]]], listed(pa.float32(), 2)))

    assert rows.observed.tolist() == [True, False, True]
    assert rows.values["x"].tolist() == [[5, 6], [0, 0], [7, 8]]


@pytest.mark.parametrize("hidden", [7.0, NAN, INF])
def test_what_stands_behind_a_null_does_not_matter(hidden):
    leaf = pa.array([1, 2, hidden, hidden, 5, 6], pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(leaf, 2, mask=pa.array([False, True, False]))
    column = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), vectors)

    rows, faults = rows_of(x=column)

    assert rows.observed.tolist() == [True, False, True]
    assert rows.values["x"].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert not faults.any()


def test_a_null_at_any_depth_of_a_matrix_makes_its_step_missing():
    # The second row of the first matrix is null, though its elements are not.
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(range(1, 9), pa.float32()), 2, mask=pa.array([False, True, False, False])
    )
    matrices = pa.FixedSizeListArray.from_arrays(vectors, 2)
    column = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), matrices)

    rows, _ = rows_of(x=column)

    assert rows.observed.tolist() == [False, True]
    assert rows.values["x"].tolist() == [[[0, 0], [0, 0]], [[5, 6], [7, 8]]]


def test_a_step_that_one_feature_misses_is_missing_for_all():
    rows, _ = rows_of(
        ids=pa.array([[1, None, 3], [4]], pa.list_(pa.int16())),
        x=pa.array([[1.0, 2.0, NAN], [4.0]], pa.list_(pa.float32())),
    )

    assert rows.observed.tolist() == [True, False, False, True]
    assert rows.values["ids"].tolist() == [1, 0, 0, 4]
    assert rows.values["x"].tolist() == [1, 0, 0, 4]


@pytest.mark.parametrize("type_", [*SIGNED, *UNSIGNED, pa.bool_(), *FLOATS], ids=str)
def test_steps_of_every_type_can_be_missing(type_):
    one = FLOATS[type_](1) if type_ in FLOATS else type_ == pa.bool_() or 1

    rows, faults = rows_of(x=pa.array([[one, None, one]], pa.list_(type_)))

    assert rows.values["x"].tolist() == [1, 0, 1]
    assert rows.observed.tolist() == [True, False, True]
    assert not faults.any()


def test_the_columns_of_the_caller_are_not_changed():
    table, schema = table_of(x=pa.array([[1.0, NAN], [2.0]], pa.list_(pa.float32())))

    rows, _ = ragged_rows(table, schema)

    assert not rows.observed.all()
    assert math.isnan(table.column("x").to_pylist()[0][1])


# Faulty rows


def test_faults_are_found_and_other_rows_stay_aligned():
    big = 2**63
    x = [[1.0], None, [2.0], [3.0], [4.0, INF], [5.0], None, [7.0], [8.0]]
    n = [[10], None, [12, 12], [13], [14, 14], [15], None, [big], [18]]
    y = [0, 1, 2, None, 4, 5, 6, 7, 8]
    z = [0.0, 1, 2, 3, 4, NAN, 6, 7, INF]
    table, schema = table_of(
        ["y"],
        ["z"],
        x=pa.array(x, pa.list_(pa.float64())),
        n=pa.array(n, pa.list_(pa.uint64())),
        y=y,
        z=z,
    )
    keys = np.arange(100, 109, dtype=np.uint64)

    rows, faults = ragged_rows(table, schema, keys=keys)

    assert faults.dtype == np.uint8
    assert faults.tolist() == [
        *(0, NULL_SEQUENCE, UNEQUAL_LENGTHS, NULL_CONTEXT, INFINITE),
        *(NULL_CONTEXT, NULL_SEQUENCE, OUT_OF_RANGE, INFINITE),
    ]
    assert rows.values["x"].tolist() == [1.0]
    assert rows.keys.tolist() == [100]


def test_rows_after_faulty_ones_keep_their_keys_contexts_and_steps():
    table, schema = table_of(
        ["y"],
        x=pa.array([[1], None, [INF], [2, 3], [], [4, NAN]], pa.list_(pa.float32())),
        y=[10, 11, 12, 13, 14, 15],
    )

    rows, faults = ragged_rows(table, schema, keys=np.arange(6, dtype=np.uint64))

    assert [REASONS[fault] for fault in faults] == [
        *("", "null sequence", "infinite, or beyond float32", "", "", ""),
    ]
    assert rows.keys.tolist() == [0, 3, 4, 5]
    assert rows.contexts["y"].tolist() == [10, 13, 14, 15]
    assert rows.lengths.tolist() == [1, 2, 0, 2]
    assert rows.values["x"].tolist() == [1, 2, 3, 4, 0]
    assert rows.observed.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("value", [INF, -INF, 1e39, -1e300])
def test_values_that_no_float32_holds_are_faults(value):
    _, faults = rows_of(x=pa.array([[1.0, value], [NAN]], pa.list_(pa.float64())))

    assert faults.tolist() == [INFINITE, 0]


def test_integers_past_the_range_are_faults_unless_their_step_is_missing():
    column = pa.array([[[2**63, 1]], [[2**63, None]], [[2**63 - 1, 1]]], listed(pa.uint64(), 2))

    rows, faults = rows_of(x=column)

    assert faults.tolist() == [OUT_OF_RANGE, 0, 0]
    assert rows.values["x"].tolist() == [[0, 0], [2**63 - 1, 1]]
    assert rows.observed.tolist() == [False, True]


@pytest.mark.parametrize("bad", [None, [None, 1.0], [NAN, 1.0]])
def test_a_context_is_whole_or_its_row_faulty(bad):
    column = pa.array([[1.0, 2.0], bad], pa.list_(pa.float32(), 2))

    rows, faults = rows_of([], ["c"], x=[[1], [2]], c=column)

    assert faults.tolist() == [0, NULL_CONTEXT]
    assert rows.contexts["c"].tolist() == [[1, 2]]


def test_a_null_matrix_row_makes_a_context_faulty():
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(range(8), pa.float32()), 2, mask=pa.array([False, False, False, True])
    )
    matrices = pa.FixedSizeListArray.from_arrays(vectors, 2)

    _, faults = rows_of([], ["m"], x=[[1], [2]], m=matrices)

    assert faults.tolist() == [0, NULL_CONTEXT]


def test_a_null_row_may_cover_steps():
    steps = pa.array([1.0, INF, 3.0], pa.float32())
    mask = pa.array([False, True, False])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), steps, mask=mask)

    rows, faults = rows_of(x=column)

    assert faults.tolist() == [0, NULL_SEQUENCE, 0]
    assert rows.values["x"].tolist() == [1, 3]


def test_a_null_sequence_beside_one_with_steps_is_of_another_length():
    type_ = pa.list_(pa.int64())
    _, faults = rows_of(
        x=pa.array([None, None, None, [], [1]], type_),
        y=pa.array([None, [], [1], None, [2]], type_),
        z=pa.array([None, None, None, [], [3]], type_),
    )
    assert faults.tolist() == [NULL_SEQUENCE, NULL_SEQUENCE, UNEQUAL_LENGTHS, NULL_SEQUENCE, 0]


def test_a_null_context_is_a_fault_of_rows_without_a_sequence_too():
    x = pa.array([None, [], [1], None], pa.list_(pa.int64()))
    _, faults = rows_of([], ["c"], x=x, c=pa.array([None, None, None, 1], pa.int64()))
    assert faults.tolist() == [NULL_CONTEXT] * 3 + [NULL_SEQUENCE]


def test_what_a_null_row_covers_is_no_other_length():
    steps = pa.array([1.0, 2.0, 3.0], pa.float32())
    mask = pa.array([False, True, False])
    covering = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), steps, mask=mask)
    _, faults = rows_of(x=covering, y=pa.array([[1], None, [3]], pa.list_(pa.int64())))
    assert faults.tolist() == [0, NULL_SEQUENCE, 0]


def test_all_rows_may_be_faulty():
    rows, faults = rows_of(x=pa.array([None, None], pa.list_(pa.float32())))

    assert len(rows) == 0
    assert faults.tolist() == [NULL_SEQUENCE] * 2


def test_usable_rows_names_the_first_row_that_is_not():
    table, schema = table_of(x=pa.array([[1.0], [INF], None], pa.list_(pa.float32())))

    message = "row 1 of a batch: infinite, or beyond float32; filter such rows out"
    with pytest.raises(InputError, match=message):
        usable_rows(table, schema)
    assert len(usable_rows(table.slice(0, 1), schema)) == 1


# Columns that do not fit


def test_columns_that_do_not_fit_the_schema_are_refused():
    schema = Schema((Feature("x", "float32", (2,)),))

    with pytest.raises(SchemaError, match="no column 'x' in the input"):
        ragged_rows(pa.table({"y": [[1.0]]}), schema)
    with pytest.raises(SchemaError, match="more than one column 'x' in the input"):
        twice = pa.table([pa.array([[1.0]])] * 2, names=["x", "x"])
        ragged_rows(twice, schema)
    for type_ in (listed(pa.float32()), listed(pa.float32(), 3), listed(pa.int8(), 2)):
        with pytest.raises(SchemaError, match=r"the plan says x: float32 \(steps, 2\)"):
            ragged_rows(pa.table({"x": pa.array([], type_)}), schema)
    with pytest.raises(SchemaError, match="the plan says x: float32"):
        ragged_rows(pa.table({"x": [["a"]]}), schema)


def test_a_table_too_large_for_one_batch_is_refused():
    # What `combine_chunks` does where a column passes the bound of 32-bit offsets.
    halves = pa.table({"x": [[1], [2]]}).to_batches(max_chunksize=1)
    combined = SimpleNamespace(to_batches=lambda: halves)
    table = SimpleNamespace(num_rows=2, combine_chunks=lambda: combined)

    with pytest.raises(InputError, match="2 rows does not fit into one batch"):
        single_batch(table)


def test_columns_that_nobody_asks_for_are_not_touched():
    table = pa.table({"x": [[1]], "text": pa.chunked_array([["a"]])})
    schema = Schema((Feature("x", "int64"),))

    rows, _ = ragged_rows(table, schema)

    assert set(rows.values) == {"x"}


# Storage


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        ([pa.bool_()], "int8"),
        ([pa.int8()], "int8"),
        ([pa.uint8()], "int16"),
        ([pa.int16(), pa.uint16()], "int32"),
        ([pa.int32(), pa.int8()], "int32"),
        ([pa.uint32()], "int64"),
        ([pa.uint64()], "int64"),
        ([pa.int64(), pa.bool_()], "int64"),
        ([pa.float64()], "float32"),
        ([pa.float16(), pa.float32()], "float32"),
    ],
    ids=str,
)
def test_storage_holds_the_values_of_all_inputs(types, dtype):
    inputs = [pa.schema([("x", listed(type_, 2))]) for type_ in types]
    schema = Schema.from_arrow(inputs[0])

    assert storage_dtypes(schema, inputs) == {"x": dtype}
    for columns in inputs:
        table = columns.empty_table()
        rows, _ = ragged_rows(table, schema, storage={"x": dtype})
        assert rows.values["x"].dtype == dtype


# Against a loop over Python objects


LEAVES = [pa.float32(), pa.float64(), pa.int8(), pa.int32(), pa.uint64(), pa.bool_()]


def values_of(type_):
    """Values of a type and nulls, hostile ones among them."""
    if pa.types.is_floating(type_):
        numbers = st.sampled_from([0.0, -1.5, 2.25, 3e4, NAN, INF])
    elif type_ == pa.bool_():
        numbers = st.booleans()
    else:
        bounds = np.iinfo(str(type_))
        numbers = st.sampled_from([0, 1, 2, bounds.min, bounds.max])
    return st.none() | numbers | numbers | numbers


def items_of(type_, *, steps=None):
    """Items of a nested type; `steps` is the number of steps of a variable list."""
    if pa.types.is_fixed_size_list(type_):
        size = type_.list_size
        inner = st.lists(items_of(type_.value_type), min_size=size, max_size=size)
        return st.none() | inner | inner | inner
    if steps is not None:
        return st.lists(items_of(type_.value_type), min_size=steps, max_size=steps)
    return values_of(type_)


@st.composite
def tables(draw):
    """Tables of up to three columns, cut into chunks and sliced, and their schema."""
    rows = draw(st.integers(0, 6))
    lengths = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    columns, contexts = {}, []
    for name in draw(st.sampled_from(["a", "ab", "ac", "abc"])):
        leaf = draw(st.sampled_from(LEAVES))
        for size in draw(st.lists(st.integers(1, 2), max_size=2)):
            leaf = pa.list_(leaf, size)
        if name == "c":
            contexts.append(name)
            type_ = leaf
            cells = draw(st.lists(items_of(leaf), min_size=rows, max_size=rows))
        else:
            type_ = draw(st.sampled_from([pa.list_, pa.large_list]))(leaf)
            cells = []
            for length in lengths:
                kind = draw(st.integers(0, 9))
                steps = draw(st.integers(0, 3)) if kind == 0 else length
                cells.append(None if kind == 1 else draw(items_of(type_, steps=steps)))
        cut = draw(st.integers(0, rows))
        # The chunks are slices of longer arrays.
        chunks = [
            pa.array([*cells[:1], *part, *cells[-1:]], type_).slice(len(cells[:1]), len(part))
            for part in (cells[:cut], cells[cut:])
        ]
        columns[name] = pa.chunked_array(chunks, type_)
    table = pa.table(columns)
    first = draw(st.integers(0, rows))
    table = table.slice(first, draw(st.integers(0, rows - first)))
    schema = Schema.from_arrow(
        table.schema, sequences=[n for n in columns if n not in contexts], contexts=contexts
    )
    return table, schema


def leaves_of(item):
    return [leaf for part in item for leaf in leaves_of(part)] if isinstance(item, list) else [item]


def is_missing(item):
    return any(
        leaf is None or (isinstance(leaf, float) and math.isnan(leaf)) for leaf in leaves_of(item)
    )


def reasons_of(row, schema):
    """Every reason for which a row cannot be used."""
    reasons = set()
    steps = {f.name: row[f.name] for f in schema.sequences}
    if len({len(step or []) for step in steps.values()}) > 1:
        reasons.add("sequence features of different lengths")
    elif None in steps.values():
        reasons.add("null sequence")
    if any(is_missing(row[f.name]) for f in schema.contexts):
        reasons.add("null context or label")
    items = [row[f.name] for f in schema.contexts]
    items += [item for column in steps.values() for item in column or []]
    for item in items:
        leaves = [] if is_missing(item) else leaves_of(item)
        if any(isinstance(leaf, float) and math.isinf(leaf) for leaf in leaves):
            reasons.add("infinite, or beyond float32")
        if any(leaf > 2**63 - 1 for leaf in leaves if type(leaf) is int):
            reasons.add("integer out of range")
    return reasons


@settings(max_examples=300)
@given(tables())
def test_rows_are_those_of_a_loop_over_python_objects(case):
    table, schema = case
    keys = np.arange(table.num_rows, dtype=np.uint64)

    rows, faults = ragged_rows(table, schema, keys=keys)

    usable = []
    for number, (row, fault) in enumerate(zip(table.to_pylist(), faults, strict=True)):
        reasons = reasons_of(row, schema)
        assert bool(fault) == bool(reasons)
        if reasons:
            assert REASONS[fault] in reasons
        else:
            usable.append((number, row))
    assert rows.keys.tolist() == [number for number, _ in usable]
    first = schema.sequences[0].name
    assert rows.lengths.tolist() == [len(row[first]) for _, row in usable]
    missing = [
        any(is_missing(row[f.name][step]) for f in schema.sequences)
        for _, row in usable
        for step in range(len(row[first]))
    ]
    if rows.observed is not None or any(missing):
        assert rows.observed.tolist() == [not miss for miss in missing]
    for feature in schema.sequences:
        steps = [step for _, row in usable for step in row[feature.name]]
        zero = np.zeros(feature.shape).tolist()
        expected = [zero if miss else step for step, miss in zip(steps, missing, strict=True)]
        assert rows.values[feature.name].shape == (len(steps), *feature.shape)
        assert rows.values[feature.name].tolist() == expected
    for feature in schema.contexts:
        assert rows.contexts[feature.name].tolist() == [row[feature.name] for _, row in usable]


# Selecting and cutting


@given(st.data())
def test_selected_rows_are_those_at_the_positions(ragged_batches, data):
    rows = data.draw(ragged_batches)
    most = max(0, len(rows) - 1)
    positions = data.draw(st.lists(st.integers(0, most), max_size=9 if len(rows) else 0))

    selected = rows.select(np.array(positions, np.int64))

    assert_steps(selected, rows, positions, lambda first, last: range(first, last))
    for name, values in rows.contexts.items():
        np.testing.assert_array_equal(selected.contexts[name], values[positions])
    if rows.keys is not None:
        np.testing.assert_array_equal(selected.keys, rows.keys[positions])


@given(st.data(), st.integers(0, 10), st.booleans())
def test_truncated_rows_keep_their_start_or_their_end(ragged_batches, data, max_length, keep_end):
    rows = data.draw(ragged_batches)

    cut = rows.truncated(max_length, keep_end=keep_end)

    def kept(first, last):
        steps = range(first, last)
        return steps[max(0, len(steps) - max_length) :] if keep_end else steps[:max_length]

    assert_steps(cut, rows, range(len(rows)), kept)
    assert cut.contexts.keys() == rows.contexts.keys()
    np.testing.assert_array_equal(cut.contexts["bias"], rows.contexts["bias"])


def assert_steps(found, rows, positions, steps_of):
    steps = [steps_of(*rows.offsets[i : i + 2]) for i in positions]
    flat = np.array([step for row in steps for step in row], np.int64)
    assert found.lengths.tolist() == [len(row) for row in steps]
    for name, values in rows.values.items():
        np.testing.assert_array_equal(found.values[name], values[flat])
        assert found.values[name].dtype == values.dtype
    if rows.observed is None:
        assert found.observed is None
    else:
        np.testing.assert_array_equal(found.observed, rows.observed[flat])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=8))
def test_steps_of_rows_are_gathered_one_row_after_another(rows):
    starts, lengths = np.array(rows, np.int64).reshape(-1, 2).T

    expected = [start + k for start, length in rows for k in range(length)]

    assert span_index(starts, lengths).tolist() == expected


def test_empty_tables_give_no_rows():
    columns = pa.schema([("x", listed(pa.float32(), 2)), ("y", pa.int8())])
    schema = Schema.from_arrow(columns, labels=["y"])

    for empty in (columns.empty_table(), pa.RecordBatch.from_pylist([], schema=columns)):
        rows, faults = ragged_rows(empty, schema, keys=np.zeros(0, np.uint64))
        assert len(rows) == len(faults) == len(rows.keys) == 0
        assert rows.values["x"].shape == (0, 2)
        assert rows.contexts["y"].shape == (0,)
        assert isinstance(rows.select(np.zeros(0, np.int64)), RaggedRows)
