"""Rows as a caller has them, brought into flat form."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import Feature, InputError, SchemaError
from lengthwise.dataset.reasons import REASONS
from lengthwise.model.flat_rows import as_table, flat_rows

STEPS = Feature("x", "float32")
WORDS = Feature("word", "int64", encoding="tokens")
POINT = Feature("point", "float32", (2,), sequence=False)


def flat(rows, inputs):
    (batch,) = as_table(rows, inputs).to_batches() or [None]
    return flat_rows(batch, inputs)


def test_arrow_and_dicts_are_the_same_rows():
    inputs = [POINT, WORDS, STEPS]
    dicts = [
        {"x": [1.0, None], "word": ["a", None], "point": [1, 2]},
        {"x": np.zeros(1, np.float32), "word": ["a"], "point": np.array([3.0, 4.0])},
    ]
    table = pa.table(
        {
            "beside": [1, 2],
            "x": pa.array([[1.0, None], [0.0]], pa.large_list(pa.float32())),
            "word": pa.array(
                [["a", None], ["a"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))
            ),
            "point": pa.array([[1, 2], [3, 4]], pa.list_(pa.float64(), 2)),
        }
    )
    for rows in (dicts, table, table.to_batches()[0], table.slice(0, 5)):
        found, faults = flat(rows, inputs)
        assert found.lengths.tolist() == [2, 1]
        assert found.steps["x"].tolist() == [1, 0, 0]
        assert found.observed.tolist() == [True, False, True]
        assert found.words["word"][found.steps["word"][[0, 2]]].tolist() == ["a", "a"]
        assert found.contexts["point"].tolist() == [[1, 2], [3, 4]]
        assert not faults.any()


def test_rows_that_are_null_or_do_not_fit_together_are_faults():
    rows = [
        {"x": None, "word": ["a"], "point": [1, 2]},
        {"x": [1.0], "word": ["a", "b"], "point": [1, 2]},
        {"x": [1.0], "word": ["a"], "point": [1, None]},
        {"x": [1.0], "word": ["a"]},
        {"x": [], "word": [], "point": [1, 2]},
    ]
    found, faults = flat(rows, [STEPS, WORDS, POINT])
    assert [REASONS[fault] for fault in faults] == [
        "null sequence",
        "sequence features of different lengths",
        "null context or label",
        "null context or label",
        "",
    ]
    assert found.lengths.tolist() == [0]


def test_numbers_beyond_float32_become_infinite_and_nan_stays():
    found, _ = flat([{"x": [1e300, float("nan")]}], [STEPS])
    assert np.isinf(found.steps["x"][0]) and np.isnan(found.steps["x"][1])
    assert found.observed.all()


def test_bools_are_integers():
    found, _ = flat([{"n": [True, None]}, {"n": []}], [Feature("n", "int64")])
    assert found.steps["n"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "inputs", "message"),
    [
        ([{"y": [1]}], [STEPS], r"no 'x' in the rows; the model takes x: float32 \(steps,\)"),
        ([{"x": [1.0]}, {"x": ["a"]}], [STEPS], "row 1: 'x' is not x: float32"),
        ([{"x": 3.0}], [STEPS], "row 0: 'x' is not x: float32"),
        ([{"n": [1.5]}], [Feature("n", "int64")], "row 0: 'n' is not n: int64"),
        ([{"n": [2**63]}], [Feature("n", "int64")], "row 0: 'n' is not n: int64"),
        ([{"point": [1, 2, 3]}], [POINT], "row 0: 'point' is not point"),
        (pa.table({"y": [[1.0]]}), [STEPS], "no column 'x' in the rows"),
        (pa.table({"x": [[1]]}), [STEPS], "column 'x' of the rows is list<.*>, the model takes"),
        (pa.table({"x": [1.0]}), [STEPS], "column 'x' of the rows is double, the model takes"),
        (pa.table({"x": pa.nulls(2)}), [STEPS], "column 'x' of the rows is null, the model takes"),
        (pa.table({"n": pa.array([[2**63]], pa.list_(pa.uint64()))}), [Feature("n", "int64")], "n"),
    ],
)
def test_rows_of_another_kind_are_one_line(rows, inputs, message):
    with pytest.raises(SchemaError, match=message) as caught:
        flat(rows, inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [{"x": [1.0]}, "rows", 3, [[1.0]]])
def test_what_is_no_rows_is_said(rows):
    with pytest.raises(InputError, match="must be"):
        as_table(rows, [STEPS])


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=5), max_size=8),
    data=st.data(),
)
def test_selected_rows_are_those_rows(rows, data):
    table = pa.table({"x": pa.array(rows, pa.list_(pa.float32()))})
    if not rows:
        return
    # A slice, whose offsets do not begin at 0.
    first = data.draw(st.integers(0, len(rows) - 1))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - first - 1), max_size=6))
    found, _ = flat(table.slice(first), [STEPS])
    part = found.select(np.array(chosen, np.int64))
    ends = np.cumsum(part.lengths)
    for number, row in enumerate(chosen):
        steps = slice(ends[number] - part.lengths[number], ends[number])
        given_row = rows[first + row]
        assert part.observed[steps].tolist() == [value is not None for value in given_row]
        expected = np.array([0.0 if value is None else value for value in given_row], np.float32)
        np.testing.assert_array_equal(part.steps["x"][steps], expected)
