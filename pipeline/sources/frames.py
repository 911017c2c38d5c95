"""TFRecord files in blocks of whole records, every checksum checked.

    uint64 length | uint32 masked CRC32C of the length | data | uint32 masked CRC32C of the data

A record whose data is damaged is broken and the next goes on; where a length is damaged, nobody
knows where the next record begins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import crc32c
import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, masked_crc32c
from lengthwise.pipeline.sources.lines import TO_THE_END, open_sequential, scan_file
from lengthwise.pipeline.sources.source import (
    DAMAGED_RECORD,
    TOO_LARGE,
    BrokenRow,
    InputFile,
    Unit,
    one_line,
)
from lengthwise.pipeline.sources.wire import PADDING, Spans

_SCAN_BYTES = 1 << 22
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_KNOWN_LENGTHS = 1 << 16
_MASK_DELTA = np.uint32(0xA282EAD8)


@dataclass(frozen=True)
class RecordBlock:
    """Some records that stand one after another.

    Attributes:
        data: (m,) uint8, padded for `wire`.
        records: where the data of those that are whole is.
        numbers: (n,) int64 of those, in the file.
        broken: records of the block that are damaged or too large.
    """

    data: np.ndarray
    records: Spans
    numbers: np.ndarray
    broken: tuple[BrokenRow, ...]


def begins_with_record(head: bytes) -> bool:
    """Whether the first bytes of a file are the length of a record and its checksum."""
    if len(head) < HEADER_BYTES:
        return False
    return _HEADER.unpack_from(head)[1] == masked_crc32c(head[:8])


def scan_records(file: InputFile, options: SourceOptions) -> tuple[tuple[Unit, ...], int]:
    """Cuts a file into units of about `options.unit_bytes`, as `scan_file`.

    Raises:
        InputError: the file cannot be read, or is no TFRecord file.
    """
    return scan_file(file, "tfrecord", lambda source: _scan(file, options, source))


def _scan(
    file: InputFile, options: SourceOptions, source: pa.NativeFile
) -> tuple[tuple[Unit, ...], int]:
    units: list[Unit] = []
    lengths = _Lengths(file.path)
    start = first_row = 0  # of the unit
    record = row = 0  # where the next record begins, and its number
    at = crc = 0
    head = b""  # the start of a header that is cut in two

    def cut() -> None:
        nonlocal start, first_row
        rows, nbytes = row - first_row, record - start
        units.append(Unit(file, "tfrecord", first_row, rows, nbytes, start, record))
        start, first_row = record, row

    while chunk := source.read(_SCAN_BYTES):
        crc = crc32c.crc32c(chunk, crc)
        base = at - len(head)
        data = head + chunk if head else chunk
        at += len(chunk)
        while record + HEADER_BYTES <= at:
            if record - start >= options.unit_bytes:
                cut()
            length = lengths.read(data, record - base, row)
            record, row = record + length + FRAME_BYTES, row + 1
        head = data[record - base :] if record < at else b""
    if record != at:
        row -= record > at
        raise InputError(f"{file.path}: record {row}: the file ends within a record")
    if record > start:
        cut()
    return tuple(units), crc


def read_records(unit: Unit, options: SourceOptions, block_bytes: int) -> Iterator[RecordBlock]:
    """Reads the records of a unit, in blocks of about so many bytes.

    Raises:
        InputError: the file cannot be read, ends within a record, or the length of one is damaged.
    """
    try:
        with open_sequential(unit.file.path, unit.start) as source:
            left = None if unit.stop == TO_THE_END else unit.stop - unit.start
            yield from _blocks(source, left, unit, options.max_row_bytes, block_bytes)
    except (OSError, pa.ArrowException) as reason:
        raise InputError(f"{unit.file.path}: cannot be read: {one_line(reason)}") from None


def _blocks(
    source: pa.NativeFile, left: int | None, unit: Unit, max_row_bytes: int, block_bytes: int
) -> Iterator[RecordBlock]:
    lengths = _Lengths(unit.file.path)
    row, rest, skip = unit.first_row, b"", 0
    wanted = block_bytes
    while True:
        chunk = source.read(wanted if left is None else min(wanted, left))
        if left is not None:
            left -= len(chunk)
        if not chunk:
            break
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        data = rest + chunk[skip:]
        skip, at = 0, 0
        starts, stops, numbers, broken = [], [], [], []
        while at + HEADER_BYTES <= len(data):
            length = lengths.read(data, at, row)
            end = at + length + FRAME_BYTES
            if length > max_row_bytes:
                broken.append(BrokenRow(row, TOO_LARGE))
                skip, at = max(0, end - len(data)), min(end, len(data))
                row += 1
                continue
            if end > len(data):
                break
            starts.append(at + HEADER_BYTES)
            stops.append(end - FOOTER_BYTES)
            numbers.append(row)
            at, row = end, row + 1
        rest = data[at:]
        # A record longer than a block is read in one go.
        wanted = block_bytes
        if len(rest) >= HEADER_BYTES:
            wanted = max(block_bytes, _HEADER.unpack_from(rest)[0] + FRAME_BYTES - len(rest))
        if numbers or broken:
            yield _checked(data, starts, stops, numbers, broken)
    if rest or skip:
        raise InputError(f"{unit.file.path}: record {row}: the file ends within a record")
    if left:
        raise InputError(f"{unit.file.path}: the file has become shorter, run again")


def _checked(
    data: bytes,
    starts: list[int],
    stops: list[int],
    numbers: list[int],
    broken: list[BrokenRow],
) -> RecordBlock:
    """The block, without the records whose data does not have its checksum."""
    view = memoryview(data)
    checksum = crc32c.crc32c
    found = np.array(
        [checksum(view[start:stop]) for start, stop in zip(starts, stops, strict=True)], np.uint32
    )
    behind = len(data) - (stops[-1] if stops else 0)
    padded = np.frombuffer(data if behind >= PADDING else data + bytes(PADDING), np.uint8)
    ends = np.array(stops, np.int64)
    stored = padded[ends[:, None] + np.arange(FOOTER_BYTES)].copy().view("<u4").reshape(-1)
    masked = ((found >> np.uint32(15)) | (found << np.uint32(17))) + _MASK_DELTA
    good = masked == stored
    rows = np.array(numbers, np.int64)
    broken += [BrokenRow(row, DAMAGED_RECORD) for row in rows[~good].tolist()]
    records = Spans(np.array(starts, np.int64)[good], ends[good])
    return RecordBlock(padded, records, rows[good], tuple(sorted(broken, key=lambda b: b.row)))


class _Lengths:
    """Reads the lengths of records; remembers the checksums of lengths that come again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[int, int] = {}

    def read(self, data: bytes, at: int, row: int) -> int:
        """The length of the record whose header is at this place.

        Raises:
            InputError: it does not have its checksum.
        """
        length, stored = _HEADER.unpack_from(data, at)
        if self._known.get(length) != stored:
            if masked_crc32c(data[at : at + 8]) != stored:
                raise InputError(
                    f"{self._path}: record {row}: checksum of the record's length does not match; "
                    "the file is damaged, or no TFRecord"
                )
            if len(self._known) >= _KNOWN_LENGTHS:
                self._known.clear()
            self._known[length] = stored
        return length
