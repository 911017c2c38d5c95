"""Arrow IPC, as files (Feather V2) and as streams: a unit is a run of record batches."""

from __future__ import annotations

from collections.abc import Iterator

import crc32c
import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.arrow_messages import (
    DICTIONARY,
    FILE_MAGIC,
    RECORD_BATCH,
    SCHEMA,
    IpcMessage,
    ipc_messages,
)
from lengthwise.pipeline.sources.fitting import fit_rows, plain_columns
from lengthwise.pipeline.sources.locations import open_random
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

# A batch has to be in memory whole, unless it can be mapped.
_MAX_BATCH_BYTES = 1 << 30
_MAPPED_BYTES = 1 << 26
_SAMPLED_BYTES = 1 << 12

_UNREADABLE = (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError)


def open_arrow(file: InputFile, options: SourceOptions) -> SourceFile:
    """Walks over the messages of a file or stream.

    Raises:
        InputError: the file cannot be read or is no Arrow IPC.
    """
    try:
        with open_random(file.path) as source:
            messages = list(ipc_messages(source))
            if not messages or messages[0].kind != SCHEMA:
                raise ValueError("it does not begin with a schema")
            source.seek(messages[0].start)
            columns = pa.ipc.read_schema(pa.ipc.read_message(source))
            columns = plain_columns(columns, options.shapes)
            identity = _identity(source, messages)
    except _UNREADABLE as reason:
        raise InputError(f"{file.path}: not a readable Arrow file: {one_line(reason)}") from None
    for message in messages:
        if message.compressed and message.nbytes > _MAX_BATCH_BYTES:
            raise InputError(
                f"{file.path}: the record batch at byte {message.start} takes {message.nbytes} "
                f"bytes decompressed, more than {_MAX_BATCH_BYTES}; write smaller batches"
            )
    units = tuple(_units(file, messages, options.unit_bytes))
    return SourceFile(file, "arrow", columns, units, identity)


def _identity(source: pa.NativeFile, messages: list[IpcMessage]) -> int:
    """Of all headers, and of the start of each body: values may change where sizes do not."""
    identity = 0
    for message in messages:
        identity = crc32c.crc32c(message.header, identity)
        body = message.start + 8 + len(message.header)
        source.seek(body)
        start = source.read(min(_SAMPLED_BYTES, message.stop - body))
        identity = crc32c.crc32c(start, identity)
    return identity


def _units(file: InputFile, messages: list[IpcMessage], unit_bytes: int) -> Iterator[Unit]:
    batches = [message for message in messages if message.kind == RECORD_BATCH]
    if any(message.kind == DICTIONARY for message in messages):
        # Batches refer to dictionaries before them, so nobody can begin in the middle.
        rows = sum(message.rows for message in batches)
        yield Unit(file, "arrow", 0, rows, sum(message.nbytes for message in batches), 0, 0)
        return
    first_row, run, nbytes = 0, [], 0
    for number, message in enumerate(batches):
        run.append(message)
        nbytes += message.nbytes
        if nbytes >= unit_bytes or number == len(batches) - 1:
            rows = sum(message.rows for message in run)
            yield Unit(file, "arrow", first_row, rows, nbytes, run[0].start, run[-1].stop)
            first_row, run, nbytes = first_row + rows, [], 0


def read_arrow(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Reads a run of record batches, in slices of bounded size.

    Args:
        unit: which batches.
        columns: their names; the types are those of the file.
        options: how to read.
        batch_rows: rows of a batch; None takes about four MiB.

    Raises:
        InputError: names the file, the rows and the reason.
    """
    row = unit.first_row
    names = columns.names
    try:
        for batch in _record_batches(unit):
            # What is read is not trusted: offsets that point elsewhere would be followed.
            own = plain_columns(batch.schema, options.shapes)
            own = pa.schema([own.field(name) for name in names])
            batch = batch.select(names)
            batch.validate(full=True)
            size = batch_rows or max(1, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes))
            for start in range(0, batch.num_rows, size):
                yield fit_rows(batch.slice(start, size), row + start, None, own, options)
            row += batch.num_rows
    except (*_UNREADABLE, KeyError) as reason:
        raise InputError(
            f"{unit.file.path}: the record batch from row {row} cannot be read: {one_line(reason)}"
        ) from None
    require_rows(unit, row - unit.first_row)


def _record_batches(unit: Unit) -> Iterator[pa.RecordBatch]:
    mapped = unit.nbytes > _MAPPED_BYTES
    with open_random(unit.file.path, mapped=mapped) as source:
        if unit.stop == 0:
            yield from _with_dictionaries(source)
            return
        source.seek(0)
        source.seek(8 if source.read(len(FILE_MAGIC)) == FILE_MAGIC else 0)
        schema = pa.ipc.read_schema(pa.ipc.read_message(source))
        source.seek(unit.start)
        while source.tell() < unit.stop:
            if source.size() < unit.stop:
                raise ValueError("the file has become shorter")
            yield pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)


def _with_dictionaries(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    if source.read(len(FILE_MAGIC)) == FILE_MAGIC:
        source.seek(0)
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    else:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


ARROW = SourceFormat(open_arrow, read_arrow)
