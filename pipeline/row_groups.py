"""Parquet files of any size, written a row group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


def write_row_groups(
    file: BinaryIO | Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    *,
    rows: int,
    compression: str,
) -> None:
    """Writes a Parquet file; its row groups are the same however its rows are cut into tables.

    Args:
        file: where to.
        schema: of the tables, with the metadata of the file.
        tables: the rows, in order.
        rows: of a row group.
        compression: of the columns.
    """
    with pq.ParquetWriter(file, schema, compression=compression) as writer:
        for table in _row_groups(schema.empty_table(), tables, rows):
            writer.write_table(table)


def _row_groups(waiting: pa.Table, tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows in tables of so many; the last has what is left."""
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while waiting.num_rows >= rows:
            yield waiting.slice(0, rows)
            waiting = waiting.slice(rows)
    if waiting.num_rows:
        yield waiting
