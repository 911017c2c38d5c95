"""The Parquet file of predictions: put together from the parts of units, whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.errors import OutputError
from lengthwise.pipeline.staging import unit_rows_path
from lengthwise.transforms.writing import TEMPORARY_PREFIX, sync_folder

# In the metadata of the Parquet file; by it a file of ours is known.
METADATA = b"lengthwise-predictions"
_ROW_GROUP_ROWS = 1 << 16


def check_output(output: Path) -> None:
    """Raises OutputError unless the file can be made, or holds predictions that may be replaced."""
    if not output.parent.is_dir():
        raise OutputError(f"{output}: the folder {output.parent} does not exist")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output}: the folder {output.parent} cannot be written to")
    if not output.exists():
        return
    try:
        ours = METADATA in (pq.read_schema(output).metadata or {})
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise OutputError(
            f"{output}: is there already and holds no predictions; choose another --output, or "
            "remove it first"
        )


def write_part(path: Path, table: pa.Table) -> None:
    """Leaves the predictions of a unit in the staging folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_output(output: Path, units: int, staging: str, empty: pa.Table) -> None:
    """Joins the parts of all units into one file, whole or not at all."""
    temporary = output.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            with pq.ParquetWriter(file, empty.schema, compression="zstd") as writer:
                for table in _row_groups(units, staging, empty):
                    writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, output)
        sync_folder(output.parent)
    except OSError as reason:
        raise OutputError(f"{output}: cannot be written: {reason.strerror or reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _row_groups(units: int, staging: str, empty: pa.Table) -> Iterator[pa.Table]:
    """The parts in tables of as many rows as a row group has, or somewhat more."""
    waiting = empty
    for number in range(units):
        with pa.memory_map(str(unit_rows_path(staging, number))) as file:
            part = pa.ipc.open_file(file).read_all()
        waiting = pa.concat_tables([waiting, part])
        full = waiting.num_rows - waiting.num_rows % _ROW_GROUP_ROWS
        if full:
            yield waiting.slice(0, full)
            waiting = waiting.slice(full)
    if waiting.num_rows or not units:
        yield waiting
