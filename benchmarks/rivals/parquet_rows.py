"""The rows of a benchmark's Parquet file for whoever takes them one by one, decoded by columns.

None of the rivals has to pay for slow decoding: a row is a view of its row group's array.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 16
SEQUENCE = {"floats": "features", "ids": "tokens"}
DTYPE = {"floats": "float32", "ids": "int32"}
# Bytes that are read ahead of a column.
_READ_AHEAD = 1 << 20

Group = tuple[np.ndarray, np.ndarray, np.ndarray]


def num_row_groups(path: str) -> int:
    """How many row groups a file has."""
    return pq.ParquetFile(path).num_row_groups


def row_groups(path: str, kind: str) -> Iterator[Group]:
    """Yields the steps, offsets and labels of each row group."""
    for number in range(num_row_groups(path)):
        yield row_group(path, kind, number)


def row_group(path: str, kind: str, number: int) -> Group:
    """One row group: steps (N, 16) float32 or (N,) int32, offsets (rows + 1,), labels (rows,)."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD)
    table = file.read_row_group(number, use_threads=False)
    lists = table[SEQUENCE[kind]].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0)
    offsets = lists.offsets.to_numpy()
    return steps_of(lists), offsets - offsets[0], table["label"].to_numpy()


def steps_of(lists: pa.ListArray) -> np.ndarray:
    """The steps of all rows, one after another: (N, 16) float32 or (N,) int32."""
    steps = lists.flatten()
    if pa.types.is_fixed_size_list(steps.type):
        return steps.flatten().to_numpy().reshape(-1, WIDTH)
    return steps.to_numpy()


def rows(path: str, kind: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the steps and the label of each row."""
    for group in row_groups(path, kind):
        yield from rows_of(group)


def rows_of(group: Group) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the steps and the label of each row of a row group."""
    steps, offsets, labels = group
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), labels.tolist(), strict=True)
    for start, end, label in bounds:
        yield steps[start:end], label
