"""The messages of an Arrow IPC file or stream: where they are and how many rows they hold.

    file      ARROW1\\0\\0 | schema | dictionary … | record batch … | end | footer | ARROW1
    stream                 schema | dictionary … | record batch … | end

Counting rows by pyarrow would decompress every batch. The header of a message tells them, and more:
how much memory its buffers ask for, before anything is allocated. Source: Arrow columnar format,
"Encapsulated message format"; `Message.fbs`; the layout of FlatBuffers ("Internals").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

FILE_MAGIC = b"ARROW1"
CONTINUATION = b"\xff\xff\xff\xff"

SCHEMA, DICTIONARY, RECORD_BATCH = 1, 2, 3

_MAX_HEADER_BYTES = 1 << 26


@dataclass(frozen=True)
class IpcMessage:
    """One message.

    Attributes:
        kind: `SCHEMA`, `DICTIONARY` or `RECORD_BATCH`.
        start: its first byte in the file.
        stop: the byte after its body.
        rows: of a record batch; values of a dictionary.
        nbytes: that its buffers take in memory.
        compressed: whether its buffers are smaller in the file.
        header: the bytes that say all of this.
    """

    kind: int
    start: int
    stop: int
    rows: int
    nbytes: int
    compressed: bool
    header: bytes


def ipc_messages(source: pa.NativeFile) -> Iterator[IpcMessage]:
    """Walks over the messages without reading their bodies.

    Raises:
        ValueError: the bytes are no Arrow IPC, or end within a message.
    """
    size = source.size()
    source.seek(0)
    at = 8 if source.read(len(FILE_MAGIC)) == FILE_MAGIC else 0
    while at + 8 <= size:
        source.seek(at)
        prefix = source.read(8)
        if prefix[:4] != CONTINUATION:
            raise ValueError(f"no message at byte {at}; files of Arrow before 0.15 are not read")
        length = int.from_bytes(prefix[4:], "little", signed=True)
        if length == 0:
            return
        if not 8 <= length <= min(_MAX_HEADER_BYTES, size - at - 8):
            raise ValueError(f"the message at byte {at} would have a header of {length} bytes")
        header = source.read(length)
        try:
            message = _message(header, at, source, size)
        except (struct.error, IndexError):
            raise ValueError(f"the message at byte {at} has a malformed header") from None
        yield message
        at = message.stop


def _message(header: bytes, at: int, source: pa.NativeFile, size: int) -> IpcMessage:
    root = _Table(header, _unsigned(header, 0))
    kind = root.integer(1, "B")
    body_bytes = root.integer(3, "q")
    body = at + 8 + len(header)
    if not 0 <= body_bytes <= size - body:
        raise ValueError(f"the message at byte {at} would have a body of {body_bytes} bytes")
    rows, nbytes, compressed = 0, body_bytes, False
    if kind in (RECORD_BATCH, DICTIONARY):
        batch = root.table(2) if kind == RECORD_BATCH else root.table(2).table(1)
        rows = batch.integer(0, "q")
        compressed = batch.place(3) is not None
        if compressed:
            nbytes = _decompressed_bytes(batch, source, body, body_bytes)
        # A row of a list takes four bytes or more; of a null column, none.
        if not 0 <= rows <= 8 * nbytes + 64:
            raise ValueError(f"the batch at byte {at} would have {rows} rows in {nbytes} bytes")
    return IpcMessage(kind, at, body + body_bytes, rows, nbytes, compressed, header)


def _decompressed_bytes(batch: _Table, source: pa.NativeFile, body: int, body_bytes: int) -> int:
    """What all buffers of a compressed batch take; each begins with its own size as an int64."""
    total = 0
    for offset, length in batch.pairs(2):
        if length == 0:
            continue
        if offset < 0 or length < 8 or offset + length > body_bytes:
            raise ValueError(f"a buffer at byte {body} reaches out of its message")
        source.seek(body + offset)
        size = int.from_bytes(source.read(8), "little", signed=True)
        if size < -1:
            raise ValueError(f"a buffer at byte {body} would have {size} bytes")
        total += length - 8 if size == -1 else size
    return total


class _Table:
    """A table of a FlatBuffer: fields are found through a table of offsets."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._offsets = at - struct.unpack_from("<i", data, at)[0]
        if self._offsets < 0:
            raise IndexError

    def place(self, field: int) -> int | None:
        """Where a field is; None where it is not given."""
        size = struct.unpack_from("<H", self._data, self._offsets)[0]
        entry = 4 + 2 * field
        if entry + 2 > size:
            return None
        offset = struct.unpack_from("<H", self._data, self._offsets + entry)[0]
        return self._at + offset if offset else None

    def integer(self, field: int, code: str) -> int:
        """A number, 0 where it is not given."""
        place = self.place(field)
        return 0 if place is None else struct.unpack_from(f"<{code}", self._data, place)[0]

    def table(self, field: int) -> _Table:
        """A table in this one."""
        place = self.place(field)
        if place is None:
            raise IndexError
        return _Table(self._data, place + _unsigned(self._data, place))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two int64."""
        place = self.place(field)
        if place is None:
            return iter(())
        start = place + _unsigned(self._data, place)
        count = _unsigned(self._data, start)
        return struct.iter_unpack("<qq", _exactly(self._data, start + 4, 16 * count))


def _unsigned(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


def _exactly(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length]
