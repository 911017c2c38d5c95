"""Files of lines: cut into ranges of bytes, read in blocks of whole lines.

Every line has a number, blank ones too, so the number of a row is that of its line, from 0.
Counting newlines is the only pass over a file before it is read, at the speed of memory.

    scan_lines     file   ->  ranges [start, stop) that begin and end at lines, with their numbers
    read_blocks    range  ->  LineBlock, LineBlock, …    whole lines; too long ones are broken

A compressed file is one range: nobody can begin in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import crc32c
import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.locations import open_random
from lengthwise.pipeline.sources.source import (
    TOO_LARGE,
    BrokenRow,
    InputFile,
    Unit,
    one_line,
    raw_text,
)

NEWLINE = 10
# Stop of a unit that ends where its file does, wherever that is after decompression.
TO_THE_END = -1

_SCAN_BYTES = 1 << 20
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# A line this many times as long as a row may be is no line: nobody reads a bomb to its end.
_HOPELESS = 16
# Longer lines are no help in telling what a file is: it would take too long.
_LOOKED_AT = 1 << 24


class _NoLinesError(InputError):
    """A line goes on and on."""


@dataclass(frozen=True)
class LineBlock:
    """Some lines that stand one after another.

    Attributes:
        data: whole lines; the last may be without a newline at the end of the file.
        first_line: number of the first.
        start: where `data` begins in the file, decompressed.
        broken: a line before them that is too long to be read.
    """

    data: bytes
    first_line: int
    start: int
    broken: tuple[BrokenRow, ...] = ()

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Where lines begin and end, without their newline: two (n,) int64."""
        ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == NEWLINE)
        if self.data and self.data[-1] != NEWLINE:
            ends = np.append(ends, len(self.data))
        return np.concatenate(([0], ends[:-1] + 1))[: len(ends)], ends


def scan_lines(
    file: InputFile, options: SourceOptions, format_: str
) -> tuple[tuple[Unit, ...], int]:
    """Cuts a file into units of about `options.unit_bytes`, as `scan_file`.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 text.
    """
    return scan_file(file, format_, lambda source: _scan(file, options, format_, source))


def scan_file(
    file: InputFile, format_: str, cut: Callable[[pa.NativeFile], tuple[tuple[Unit, ...], int]]
) -> tuple[tuple[Unit, ...], int]:
    """Cuts a file into units; a compressed one is a unit as a whole.

    Args:
        file: which.
        format_: of its rows.
        cut: reads a file that is not compressed from its start to its end, and gives the same.

    Returns:
        The units, and the CRC32C of the whole file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open_random(file.path) as source:
            compressed = compression_of(source.read(4)) is not None
            size = source.size()
            source.seek(0)
            if compressed:
                whole = Unit(file, format_, 0, None, 4 * size, 0, TO_THE_END)
                return (whole,), _crc_of(source)
            return cut(source)
    except (OSError, pa.ArrowException) as reason:
        raise InputError(f"{file.path}: cannot be read: {one_line(reason)}") from None


def compression_of(head: bytes) -> str | None:
    """The compression that the first bytes of a file stand for."""
    for magic, compression in _COMPRESSIONS.items():
        if head.startswith(magic):
            return compression
    return None


def open_sequential(path: str, start: int = 0) -> pa.NativeFile:
    """Opens a file for reading from a byte on; what is compressed is decompressed.

    Raises:
        OSError: it cannot be opened.
    """
    source = open_random(path)
    compression = compression_of(source.read(4))
    source.seek(start)
    return source if compression is None else pa.CompressedInputStream(source, compression)


def first_lines(file: InputFile, options: SourceOptions, nbytes: int) -> bytes:
    """About so many bytes of whole lines from the start of a file, without very long ones.

    Raises:
        InputError: the file cannot be read.
    """
    whole = Unit(file, "", 0, None, 0, 0, TO_THE_END)
    short = replace(options, max_row_bytes=min(options.max_row_bytes, _LOOKED_AT))
    data = b""
    try:
        for block in read_blocks(whole, short, nbytes):
            data += block.data
            if len(data) >= nbytes // 2:
                break
    except _NoLinesError:
        pass  # said by those who read all of it
    return data


def read_blocks(unit: Unit, options: SourceOptions, block_bytes: int) -> Iterator[LineBlock]:
    """Reads the lines of a unit, in blocks of about so many bytes.

    Raises:
        InputError: the file cannot be read, or has changed since it was scanned.
    """
    line = unit.first_row
    try:
        for block in _blocks(unit, options, block_bytes):
            yield block
            line = block.first_line + _count(block.data)
    except (OSError, pa.ArrowException) as reason:
        place = f"line {line + 1}" + (f" after byte {unit.start}" if unit.start else "")
        raise InputError(f"{unit.file.path}: {place}: cannot be read: {one_line(reason)}") from None
    if unit.rows is not None and line - unit.first_row != unit.rows:
        raise InputError(
            f"{unit.file.path}: {line - unit.first_row} lines from line {unit.first_row + 1}, "
            f"{unit.rows} were counted before; the file was changed, run again"
        )


def _crc_of(source: pa.NativeFile) -> int:
    """CRC32C of the rest of a file."""
    crc = 0
    buffer = memoryview(bytearray(_SCAN_BYTES))
    while size := source.readinto(buffer):
        crc = crc32c.crc32c(buffer[:size], crc)
    return crc


def _scan(
    file: InputFile, options: SourceOptions, format_: str, source: pa.NativeFile
) -> tuple[tuple[Unit, ...], int]:
    units: list[Unit] = []
    start = first_line = lines = at = crc = 0
    last = NEWLINE

    def cut(stop: int) -> None:
        nonlocal start, first_line, lines
        units.append(Unit(file, format_, first_line, lines, stop - start, start, stop))
        start, first_line, lines = stop, first_line + lines, 0

    block = bytearray(_SCAN_BYTES)
    bytes_ = np.frombuffer(block, np.uint8)
    while size := source.readinto(block):
        crc = crc32c.crc32c(memoryview(block)[:size], crc)
        if at == 0 and block[:2] in _UTF16_MARKS:
            raise InputError(f"{file.path}: is UTF-16 text; convert it to UTF-8")
        if at == 0 and block.startswith(_UTF8_MARK):
            start = len(_UTF8_MARK)
        counted = 0
        # The first newline from where the range is long enough: whatever the blocks are.
        while start + options.unit_bytes <= at + size:
            newline = block.find(b"\n", max(start + options.unit_bytes - 1 - at, 0), size)
            if newline < 0:
                break
            lines += int(np.count_nonzero(bytes_[counted : newline + 1] == NEWLINE))
            counted = newline + 1
            cut(at + counted)
        lines += int(np.count_nonzero(bytes_[counted:size] == NEWLINE))
        at, last = at + size, block[size - 1]
    if at > start:
        lines += last != NEWLINE
        cut(at)
    return tuple(units), crc


def _blocks(unit: Unit, options: SourceOptions, block_bytes: int) -> Iterator[LineBlock]:
    line = unit.first_row
    whole = unit.stop == TO_THE_END
    tail = bytearray()  # the start of a line whose end is not read yet
    skipped = None  # bytes of a line that is too long, once it is known to be
    start_of_skipped = b""
    broken: tuple[BrokenRow, ...] = ()
    at = unit.start  # of what is not in a block yet
    for chunk in _chunks(unit, block_bytes):
        if at == 0 and whole and not tail and chunk.startswith(_UTF8_MARK):
            chunk = chunk[len(_UTF8_MARK) :]
            at = len(_UTF8_MARK)
        if skipped is not None:
            newline = chunk.find(b"\n")
            if newline < 0:
                skipped += len(chunk)
                if whole and skipped > _HOPELESS * options.max_row_bytes:
                    raise _NoLinesError(
                        f"{unit.file.path}: line {line + 1} has more than {skipped} bytes "
                        "decompressed; this is no file of lines"
                    )
                continue
            broken += (BrokenRow(line, TOO_LARGE, raw_text(start_of_skipped)),)
            at += skipped + newline + 1
            line, skipped = line + 1, None
            chunk = chunk[newline + 1 :]
        cut = chunk.rfind(b"\n") + 1
        if cut:
            data = bytes(tail) + chunk[:cut] if tail else chunk[:cut]
            whole_block = LineBlock(data, line, at, broken)
            for block in _without_long_lines(whole_block, options.max_row_bytes):
                yield block
                line = block.first_line + _count(block.data)
            at += len(data)
            broken = ()
            tail = bytearray(chunk[cut:])
        else:
            tail += chunk
        if len(tail) > options.max_row_bytes:
            skipped, start_of_skipped = len(tail), bytes(tail[:4096])
            tail.clear()
    if skipped is not None:
        broken += (BrokenRow(line, TOO_LARGE, raw_text(start_of_skipped)),)
        line, at = line + 1, at + skipped
    if tail or broken:
        yield LineBlock(bytes(tail), line, at, broken)


def _chunks(unit: Unit, size: int) -> Iterator[bytes]:
    with open_sequential(unit.file.path, unit.start) as source:
        if unit.stop == TO_THE_END:
            while chunk := source.read(size):
                yield chunk
            return
        left = unit.stop - unit.start
        while left:
            chunk = source.read(min(size, left))
            if not chunk:
                raise OSError("the file has become shorter, run again")
            left -= len(chunk)
            yield chunk


def _without_long_lines(block: LineBlock, max_row_bytes: int) -> Iterator[LineBlock]:
    if len(block.data) <= max_row_bytes:
        yield block
        return
    starts, ends = block.bounds()
    broken = block.broken
    done = 0
    for long in np.flatnonzero(ends - starts > max_row_bytes).tolist():
        if long > done:
            yield _piece(block, done, int(starts[done]), int(starts[long]), broken)
            broken = ()
        start = int(starts[long])
        raw = raw_text(block.data[start : min(start + 4096, int(ends[long]))])
        broken += (BrokenRow(block.first_line + long, TOO_LARGE, raw),)
        done = long + 1
    start = int(starts[done]) if done < len(starts) else len(block.data)
    if start < len(block.data) or broken:
        yield _piece(block, done, start, len(block.data), broken)


def _piece(
    block: LineBlock, lines: int, start: int, stop: int, broken: tuple[BrokenRow, ...]
) -> LineBlock:
    return LineBlock(block.data[start:stop], block.first_line + lines, block.start + start, broken)


def _count(data: bytes) -> int:
    """Lines of a block."""
    newlines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == NEWLINE))
    return newlines + (len(data) > 0 and data[-1] != NEWLINE)
