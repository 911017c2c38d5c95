"""Parquet: a unit is a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.errors import InputError
from lengthwise.pipeline.sources.fitting import fit_rows, plain_columns
from lengthwise.pipeline.sources.locations import is_url, open_random
from lengthwise.pipeline.sources.source import (
    BATCH_BYTES,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    SourceOptions,
    Unit,
    one_line,
    require_rows,
)

_BUFFER_BYTES = 1 << 20
_MAX_FOOTER_BYTES = 1 << 28
# Of a row, on average; a footer that says more is taken for nonsense before anything is allocated.
_MAX_MEAN_ROW_BYTES = 1 << 30

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}

# What pyarrow raises on files that are not what they say: also names that are not UTF-8.
_UNREADABLE = (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError)


def open_parquet(file: InputFile, options: SourceOptions) -> SourceFile:
    """Reads the footer of a file.

    Raises:
        InputError: the file cannot be read or is no Parquet file.
    """
    try:
        with open_random(file.path) as raw:
            size = raw.size()
            raw.seek(max(0, size - 8))
            footer_bytes = int.from_bytes(raw.read(4), "little") + 8
            if footer_bytes > min(size, _MAX_FOOTER_BYTES):
                raise ValueError(f"its footer would have {footer_bytes} bytes")
            raw.seek(size - footer_bytes)
            footer = raw.read()
            raw.seek(0)
            with pq.ParquetFile(raw) as parquet:
                metadata, columns = parquet.metadata, parquet.schema_arrow
        units = _units(file, metadata)
        columns = plain_columns(columns, options.shapes)
    except _UNREADABLE as reason:
        raise InputError(f"{file.path}: not a readable Parquet file: {one_line(reason)}") from None
    return SourceFile(file, "parquet", columns, units, crc32c.crc32c(footer))


def _units(file: InputFile, metadata: pq.FileMetaData) -> tuple[Unit, ...]:
    units: list[Unit] = []
    first_row = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows < 0 or group.total_byte_size < 0:
            raise ValueError(f"row group {number} has a negative size")
        units.append(
            Unit(
                file=file,
                format="parquet",
                first_row=first_row,
                rows=group.num_rows,
                nbytes=group.total_byte_size,
                start=number,
                stop=number + 1,
            )
        )
        first_row += group.num_rows
    return tuple(units)


def read_parquet(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Decodes a row group in batches of bounded size.

    Args:
        unit: which row group.
        columns: their names; the types are those of the file.
        options: how to read.
        batch_rows: rows of a batch; None takes about four MiB.

    Raises:
        InputError: names the file, the row group and the reason.
    """
    row = unit.first_row
    place = f"row group {unit.start}"
    try:
        # Pre-buffering would hold the whole row group, compressed, in memory.
        with pq.ParquetFile(
            _source(unit.file.path),
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
        ) as parquet:
            group = parquet.metadata.row_group(unit.start)
            own = plain_columns(parquet.schema_arrow, options.shapes)
            own = pa.schema([own.field(name) for name in columns.names])
            batches = parquet.iter_batches(
                batch_size=batch_rows or _batch_rows(unit, group, columns.names),
                row_groups=[unit.start],
                columns=columns.names,
                use_threads=False,
            )
            for batch in batches:
                yield fit_rows(batch.select(own.names), row, None, own, options)
                row += batch.num_rows
    except _UNREADABLE as reason:
        if "Expected all lists to be of size" in str(reason):
            raise InputError(
                f"{unit.file.path}: {place} holds a null vector, which the reader of Parquet "
                "cannot read; write NaN values in its place"
            ) from None
        raise InputError(f"{unit.file.path}: {place} cannot be read: {one_line(reason)}") from None
    require_rows(unit, row - unit.first_row, place=place)


def _source(path: str) -> str | pa.NativeFile:
    return open_random(path) if is_url(path) else path


def _batch_rows(unit: Unit, group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
    """Rows that decode to about four MiB."""
    rows = group.num_rows
    tops = tuple(f"{name}." for name in names)
    decoded = 0
    for number in range(group.num_columns):
        chunk = group.column(number)
        if not f"{chunk.path_in_schema}.".startswith(tops):
            continue
        if chunk.num_values < rows or chunk.total_compressed_size < 0:
            raise ValueError(f"{chunk.num_values} values in {rows} rows")
        # Dictionaries and runs make a column much smaller in the file than in memory.
        values = chunk.num_values * _WIDTHS.get(chunk.physical_type, 1)
        decoded += max(values, chunk.total_uncompressed_size)
    if decoded > max(1, rows) * _MAX_MEAN_ROW_BYTES:
        raise ValueError(f"{decoded} bytes in {rows} rows are more than rows can have")
    return max(1, min(rows, BATCH_BYTES * rows // max(1, decoded, unit.nbytes)))


PARQUET = SourceFormat(open_parquet, read_parquet)
