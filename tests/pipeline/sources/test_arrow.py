"""Arrow files, streams and Feather; what pyarrow wrote comes back, whatever the batches."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import InputFile, SourceOptions, open_file, read_unit
from tests.pipeline.conftest import ragged_table
from tests.pipeline.sources.conftest import read_all

TABLE = ragged_table(120, seed=1)


def write_file(path, table=TABLE, *, rows=17, **options):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table, max_chunksize=rows)
    return path


def write_stream(path, table=TABLE, *, rows=17, **options):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table, max_chunksize=rows)
    return path


def write_feather(path, table=TABLE, **options):
    pyarrow.feather.write_feather(table, str(path), **options)
    return path


WRITERS = {
    "file": write_file,
    "stream": write_stream,
    "lz4 file": lambda path, table=TABLE: write_file(path, table, compression="lz4"),
    "zstd stream": lambda path, table=TABLE: write_stream(path, table, compression="zstd"),
    "feather": write_feather,
    "parquet": lambda path, table=TABLE: pq.write_table(table, path, row_group_size=50) or path,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("unit_bytes", "batch_rows"), [(1, 5), (10_000, None), (1 << 30, 1)])
def test_rows_are_those_of_the_table(tmp_path, writer, unit_bytes, batch_rows):
    path = WRITERS[writer](tmp_path / "rows")  # without a suffix: known by its content
    reading = read_all(path, SourceOptions(unit_bytes=unit_bytes), batch_rows=batch_rows)
    assert reading.rows == dict(enumerate(TABLE.to_pylist()))
    assert reading.source.rows == 120
    assert reading.columns.equals(TABLE.schema)


def test_units_are_runs_of_batches(tmp_path):
    reading = read_all(write_stream(tmp_path / "a.arrow"), SourceOptions(unit_bytes=15_000))
    assert len(reading.source.units) == 3
    assert len(read_all(tmp_path / "a.arrow").source.units) == 1


@pytest.mark.parametrize("writer", ["file", "stream"])
def test_a_file_that_has_other_rows_than_were_counted_is_refused(tmp_path, writer):
    path = WRITERS[writer](tmp_path / "a.arrow")
    source = open_file(InputFile(str(path), "a.arrow"), SourceOptions())
    (unit,) = source.units
    unit = dataclasses.replace(unit, rows=121)
    with pytest.raises(InputError, match=r"120 rows were read, 121 were counted"):
        list(read_unit(unit, source.columns, SourceOptions()))


@pytest.mark.parametrize("writer", ["file", "stream", "feather", "parquet"])
def test_encodings_of_columns_do_not_show(tmp_path, writer):
    plain = pa.table(
        {
            "tokens": pa.array([["a", "b"], ["b"], None], pa.list_(pa.string())),
            "label": ["x", "y", "x"],
            "v": pa.array([[[1, 2]], [], [[3, 4]]], pa.list_(pa.list_(pa.int8(), 2))),
        }
    )
    tokens = plain["tokens"].combine_chunks()
    words = pa.ListArray.from_arrays(
        tokens.offsets, tokens.values.dictionary_encode(), mask=tokens.is_null()
    )
    table = pa.table(
        {"tokens": words, "label": plain["label"].dictionary_encode(), "v": plain["v"]}
    )
    reading = read_all(WRITERS[writer](tmp_path / "rows", table))
    assert reading.rows == dict(enumerate(plain.to_pylist()))
    assert reading.columns.equals(plain.schema)


@pytest.mark.parametrize("writer", ["file", "parquet"])
def test_lists_of_lists_become_vectors_where_a_shape_is_given(tmp_path, writer):
    values = [[[1, 2], None, [3, 4]], [], None, [[5]], [[6, 7], [8, 9, 10]], [[None, 1]]]
    table = pa.table({"v": pa.array(values, pa.list_(pa.list_(pa.int64()))), "x": [[1]] * 6})
    path = WRITERS[writer](tmp_path / "rows", table)
    reading = read_all(path, SourceOptions(shapes={"v": (2,)}), batch_rows=4)
    assert reading.columns.field("v").type == pa.list_(pa.list_(pa.int64(), 2))
    assert reading.broken == {3: "ragged inner vectors", 4: "ragged inner vectors"}
    assert {n: row["v"] for n, row in reading.rows.items()} == {
        0: [[1, 2], None, [3, 4]],
        1: [],
        2: None,
        5: [[None, 1]],
    }
    assert read_all(path).columns.field("v").type == pa.list_(pa.list_(pa.int64()))


@pytest.mark.parametrize("writer", ["file", "lz4 file", "parquet"])
def test_a_row_past_the_limit_is_broken(tmp_path, writer):
    table = pa.table({"x": [[1, 2], list(range(1000)), [3]], "s": [["a"], ["b"], ["c" * 9000]]})
    path = WRITERS[writer](tmp_path / "rows", table)
    reading = read_all(path, SourceOptions(max_row_bytes=8000))
    assert reading.broken == {1: "row too large", 2: "row too large"}
    assert reading.rows == {0: {"x": [1, 2], "s": ["a"]}}
    assert read_all(path, SourceOptions(max_row_bytes=8001), columns=["x"]).broken == {}


def test_the_identity_follows_sizes_and_starts_of_values(tmp_path):
    first = read_all(write_stream(tmp_path / "a.arrow")).source.identity
    assert read_all(write_stream(tmp_path / "b.arrow")).source.identity == first
    other = ragged_table(120, seed=2)
    assert read_all(write_stream(tmp_path / "b.arrow", other)).source.identity != first


def test_feather_v1_and_files_before_arrow_0_15_are_refused(write):
    with pytest.raises(InputError, match="Feather V1 is not read; write it as V2"):
        read_all(write("a.feather", b"FEA1" + bytes(100)))
    with pytest.raises(
        InputError, match=r"not a readable Arrow file: .* before 0\.15 are not read"
    ):
        read_all(write("a.arrow", struct.pack("<I", 200) + bytes(300)))


def test_a_batch_that_would_take_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lengthwise.pipeline.sources.arrow._MAX_BATCH_BYTES", 10_000)
    table = pa.table({"x": pa.array([[0] * 5000], pa.list_(pa.int64()))})
    for writer in ("lz4 file", "zstd stream"):
        path = WRITERS[writer](tmp_path / "rows", table)
        with pytest.raises(InputError, match=r"takes 400\d\d bytes decompressed, more than 10000"):
            read_all(path)
    assert len(read_all(write_file(tmp_path / "rows", table)).rows) == 1


def test_offsets_that_point_elsewhere_are_refused(tmp_path):
    table = pa.table({"x": pa.array([[1, 2], [3]], pa.list_(pa.int64()))})
    path = write_file(tmp_path / "a.arrow", table)
    data = path.read_bytes()
    offsets = struct.pack("<3i", 0, 2, 3)
    assert data.count(offsets) == 1
    for wrong in ((0, 2, 3_000_000), (0, -2, 3), (2, 1, 3)):
        path.write_bytes(data.replace(offsets, struct.pack("<3i", *wrong)))
        with pytest.raises(InputError, match="the record batch from row 0 cannot be read"):
            read_all(path)


FILES = {}


def seed_of(writer: str, folder) -> bytes:
    if writer not in FILES:
        FILES[writer] = WRITERS[writer](folder / "seed", TABLE.slice(0, 30)).read_bytes()
    return FILES[writer]


@given(
    writer=st.sampled_from(sorted(WRITERS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_a_damaged_file_gives_rows_or_one_line(tmp_path_factory, writer, changes, cut):
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(seed_of(writer, folder))
    for place, byte in changes:
        data[min(int(place * len(data)), len(data) - 1)] = byte
    if cut is not None:
        del data[int(cut * len(data)) :]
    path = folder / "damaged.arrow"
    path.write_bytes(data)
    try:
        reading = read_all(path)
    except InputError as reason:
        assert "\n" not in str(reason)
        assert str(path) in str(reason)
    else:
        assert len(reading.rows) == reading.source.rows


def test_values_are_not_copied_into_more_memory_than_a_batch(tmp_path):
    table = pa.table({"x": pa.array([list(range(1000))] * 5000, pa.list_(pa.int64()))})
    path = write_file(tmp_path / "a.arrow", table, rows=5000)
    sizes = [batch.nbytes for batch in read_all(path).batches]
    assert len(sizes) == 10
    assert max(sizes) < 5 << 20
    assert np.sum(sizes) > 38 << 20
