"""Parquet: a unit is a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.storage import is_url
from lengthwise.pipeline.sources.fitting import fit_rows, plain_columns
from lengthwise.pipeline.sources.locations import open_random
from lengthwise.pipeline.sources.memory import bounded_memory
from lengthwise.pipeline.sources.source import (
    BATCH_BYTES,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
    one_line,
    require_rows,
)

_BUFFER_BYTES = 1 << 20
_MAX_FOOTER_BYTES = 1 << 28
# That decoding one batch of about four MiB may take.
_MAX_MEMORY = 1 << 29

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
            decoded = max(_decoded_bytes(group, own.names), unit.nbytes)
            fitting = BATCH_BYTES * group.num_rows // max(1, decoded)
            batches = parquet.iter_batches(
                batch_size=batch_rows or max(1, min(group.num_rows, fitting)),
                row_groups=[unit.start],
                columns=own.names,
                use_threads=False,
            )
            # All of the row group may be one row, for all that is known before.
            for batch in _bounded(batches) if decoded > _MAX_MEMORY else batches:
                yield fit_rows(batch.select(own.names), row, None, own, options)
                row += batch.num_rows
    except MemoryError:
        raise InputError(
            f"{unit.file.path}: {place}: rows from {row} take more than {_MAX_MEMORY} bytes "
            "decoded; leave the largest out"
        ) from None
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


def _decoded_bytes(group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
    """What the columns of a row group take in memory."""
    prefixes = tuple(f"{name}." for name in names)
    decoded = 0
    for number in range(group.num_columns):
        chunk = group.column(number)
        if not f"{chunk.path_in_schema}.".startswith(prefixes):
            continue
        if chunk.num_values < group.num_rows or chunk.total_compressed_size < 0:
            raise ValueError(f"it would have {chunk.num_values} values in {group.num_rows} rows")
        # Dictionaries and runs make a column much smaller in the file than in memory.
        values = chunk.num_values * _WIDTHS.get(chunk.physical_type, 1)
        decoded += max(values, chunk.total_uncompressed_size)
    return decoded


def _bounded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while True:
        with bounded_memory(_MAX_MEMORY):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


PARQUET = SourceFormat(open_parquet, read_parquet)
