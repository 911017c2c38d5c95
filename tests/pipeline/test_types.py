"""Every type of value, as steps, context and label, comes out as it went in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import PlanOptions
from lengthwise.pipeline import FeatureNames, build
from tests.pipeline.test_building import decoded_rows

LENGTHS = [3, 1, 2]
TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64(), pa.bool_()),
]


def extremes(type_: pa.DataType, n: int) -> np.ndarray:
    """(n,) values of a type, its least and greatest among them."""
    if pa.types.is_boolean(type_):
        return np.arange(n) % 3 == 0
    dtype = pa.array([], type_).to_numpy().dtype
    if np.issubdtype(dtype, np.floating):
        return np.resize(np.array([0.5, -2.0, 0.0, 60000.0, -0.0], dtype), n)
    info = np.iinfo(dtype)
    # What is past int64 has a test of its own.
    return np.resize(np.array([0, 1, info.min, min(info.max, 2**63 - 1)], dtype), n)


def fixed(values: pa.Array, *sizes: int) -> pa.Array:
    for size in sizes:
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values


def steps(values: pa.Array) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum(LENGTHS))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


@pytest.mark.parametrize("large", [False, True])
def test_a_build_of_every_type(tmp_path, large):
    names: dict[str, list[str]] = {"sequences": [], "labels": [], "contexts": ["row"]}
    columns: dict[str, pa.Array] = {"row": pa.array(range(3))}
    for type_ in TYPES:
        values = {size: pa.array(extremes(type_, size), type_) for size in (3, 6, 12, 36)}
        made = {
            "scalar": ("sequences", steps(values[6])),
            "vector": ("sequences", steps(fixed(values[12], 2))),
            "matrix": ("sequences", steps(fixed(values[36], 3, 2))),
            "step_label": ("labels", steps(values[6])),
            "label": ("labels", values[3]),
            "context": ("contexts", values[3]),
            "context_vector": ("contexts", fixed(values[12], 4)),
        }
        for kind, (role, column) in made.items():
            if large and pa.types.is_list(column.type):
                column = column.cast(pa.large_list(column.type.value_type))
            name = f"{kind}_{type_}"
            columns[name] = column
            names[role].append(name)
    # Arrow keeps types that Parquet has no name for.
    table = pa.table(columns)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    roles = FeatureNames(
        sequences=tuple(names["sequences"]),
        labels=tuple(names["labels"]),
        contexts=tuple(names["contexts"]),
    )
    manifest = build([tmp_path / "a.arrow"], tmp_path / "out", names=roles)
    rows = decoded_rows(manifest, "train")
    for number, source in enumerate(table.to_pylist()):
        for name, value in source.items():
            found = rows[number][name]
            if isinstance(value, list) and not name.startswith("context"):
                found = found[: LENGTHS[number]]
            expected = np.array(value)
            if np.issubdtype(expected.dtype, np.floating):
                assert found.dtype == np.float32
                expected = expected.astype(np.float32)
            np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=name)


def test_parquet_keeps_the_same_types(tmp_path):
    columns = {f"x_{type_}": steps(pa.array(extremes(type_, 6), type_)) for type_ in TYPES}
    table = pa.table({**columns, "row": [0, 1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    names = FeatureNames(sequences=tuple(columns), contexts=("row",))
    rows = decoded_rows(build([tmp_path / "a.parquet"], tmp_path / "out", names=names), "train")
    for number, source in enumerate(table.to_pylist()):
        for name in columns:
            found = rows[number][name][: LENGTHS[number]]
            np.testing.assert_array_equal(found, np.array(source[name]).astype(found.dtype))


def test_strings_are_contexts_too(tmp_path):
    table = pa.table(
        {
            "x": [["a"], ["b", "a"]],
            "user": ["u", "v"],
            "pair": pa.array([["k", "l"], ["l", "l"]], pa.list_(pa.string(), 2)),
            "row": [0, 1],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", store_schema=True)
    names = FeatureNames(sequences=("x",), contexts=("user", "pair", "row"))
    manifest = build([tmp_path / "a.parquet"], tmp_path / "out", names=names, options=PlanOptions())
    rows = decoded_rows(manifest, "train")
    assert [int(rows[i]["user"]) for i in (0, 1)] == [2, 3]
    assert [rows[i]["pair"].tolist() for i in (0, 1)] == [[3, 2], [2, 2]]
