"""Parquet input: files, globs and folders; a unit is a row group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.errors import InputError
from lengthwise.pipeline.sources.files import InputFile

SUFFIXES = (".parquet", ".pq")

# Decoded bytes of a reading batch: small enough for the cache, large enough for numpy.
_BATCH_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Unit:
    """A row group of a file, the smallest piece of input that is read at once.

    Attributes:
        file: where it is.
        row_group: its number in the file.
        first_row: number of its first row in the file.
        rows: how many.
        nbytes: of its columns, decompressed.
    """

    file: InputFile
    row_group: int
    first_row: int
    rows: int
    nbytes: int

    @property
    def batch_rows(self) -> int:
        """Rows that decode to about four MiB."""
        return max(1, min(self.rows, _BATCH_BYTES * self.rows // max(1, self.nbytes)))


@dataclass(frozen=True)
class ParquetFile:
    """What the footer of a file tells.

    Attributes:
        file: where it is.
        columns: Arrow schema.
        units: its row groups.
        footer_crc32c: of the footer, which holds counts, sizes and ranges of all columns.
    """

    file: InputFile
    columns: pa.Schema
    units: tuple[Unit, ...]
    footer_crc32c: int

    @property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)


def open_footer(file: InputFile) -> ParquetFile:
    """Reads the footer of a file.

    Raises:
        InputError: the file cannot be read or is no Parquet file.
    """
    try:
        with open(file.path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            raw.seek(max(0, size - 8))
            footer_bytes = int.from_bytes(raw.read(4), "little") + 8
            raw.seek(max(0, size - footer_bytes))
            footer = raw.read()
        with pq.ParquetFile(file.path) as parquet:
            metadata, columns = parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as reason:
        raise InputError(f"{file.path}: not a readable Parquet file: {one_line(reason)}") from None
    units, first_row = [], 0
    for row_group in range(metadata.num_row_groups):
        group = metadata.row_group(row_group)
        units.append(Unit(file, row_group, first_row, group.num_rows, group.total_byte_size))
        first_row += group.num_rows
    return ParquetFile(file, columns, tuple(units), crc32c.crc32c(footer))


def read_unit(
    unit: Unit, columns: Sequence[str], *, batch_rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Decodes a row group in batches of bounded size.

    Args:
        unit: which row group.
        columns: their names.
        batch_rows: rows of a batch; None takes about four MiB.

    Raises:
        InputError: names the file, the row group and the reason.
    """
    try:
        # Pre-buffering would hold the whole row group, compressed, in memory.
        with pq.ParquetFile(
            unit.file.path,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
        ) as parquet:
            yield from parquet.iter_batches(
                batch_size=batch_rows or unit.batch_rows,
                row_groups=[unit.row_group],
                columns=list(columns),
                use_threads=False,
            )
    except (OSError, pa.ArrowException) as reason:
        raise InputError(
            f"{unit.file.path}: row group {unit.row_group} cannot be read: {one_line(reason)}"
        ) from None


def is_parquet(path: Path) -> bool:
    """Whether a file in a folder is taken for input."""
    return path.suffix in SUFFIXES and not path.name.startswith((".", "_"))


def one_line(reason: Exception) -> str:
    """The message of an exception, folded into one line of bounded length."""
    return " ".join(str(reason).split())[:300]
