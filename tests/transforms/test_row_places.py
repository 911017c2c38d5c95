"""Places: rows of any number of batches come out together, in any order, byte by byte."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.transforms.row_places import (
    concat_places,
    gather_rows,
    place_dtype,
    places_of,
    take_places,
)

_SCHEMA = pa.schema(
    {
        "key": pa.uint64(),
        "length": pa.int32(),
        "bytes": pa.large_binary(),
        "label": pa.binary(3),
    }
)


def batch_of(values: list[bytes | None]) -> pa.RecordBatch:
    n = len(values)
    return pa.record_batch(
        [
            pa.array(range(2**63, 2**63 + n), pa.uint64()),
            pa.array(range(n), pa.int32()),
            pa.array(values, pa.large_binary()),
            pa.array([bytes([i % 256] * 3) for i in range(n)], pa.binary(3)),
        ],
        schema=_SCHEMA,
    )


@given(st.data())
def test_gathered_rows_are_the_rows_of_the_batches(data):
    values = st.lists(st.none() | st.binary(max_size=40), max_size=6)
    batches, rows = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        batch = batch_of(data.draw(values))
        first = data.draw(st.integers(0, batch.num_rows))
        batches.append(batch.slice(first))
        rows += batches[-1].to_pylist()
    places = concat_places([places_of(batch) for batch in batches])
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12) if rows else st.just([]))

    gathered = gather_rows(take_places(places, np.array(order, int)))

    assert gathered.schema == _SCHEMA
    gathered.validate(full=True)
    assert gathered.to_pylist() == [rows[i] for i in order]


def test_sliced_arrays_of_one_width_start_where_the_slice_starts():
    batch = batch_of([b"a", b"b", b"c"]).slice(1, 1)
    assert gather_rows(places_of(batch)).to_pylist() == batch.to_pylist()


def test_gathering_allocates_no_more_than_the_rows_take():
    # Two rows far apart in memory, with all of what lies between them left alone.
    large = batch_of([b"x" * 1000, b"y" * (1 << 24), b"z" * 1000])
    before = pa.total_allocated_bytes()
    gathered = gather_rows(places_of(large)[[2, 0]])
    assert pa.total_allocated_bytes() - before < 16_000
    assert gathered.column("bytes").to_pylist() == [b"z" * 1000, b"x" * 1000]


def test_the_dtype_has_a_field_a_column():
    assert place_dtype(_SCHEMA).names == ("key", "length", "bytes", "label")
