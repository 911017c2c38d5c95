"""Plain text: a row is a line, with one sequence, `tokens`; a blank line is an empty sequence.

    whitespace   words, split at any white space of Unicode        list<string>
    characters   code points of Unicode                            list<string>
    bytes        ids from 0 to 255; the text need not be UTF-8     list<uint8>

The end of a line is a newline, with or without a carriage return before it, and no part of the row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.fitting import fit_rows
from lengthwise.pipeline.sources.lines import LineBlock, read_blocks, scan_lines
from lengthwise.pipeline.sources.source import (
    NOT_UTF8,
    TOO_LARGE,
    BrokenRow,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
    raw_text,
)

TOKENS_COLUMN = "tokens"

# A character of text takes about five bytes as a string of its own.
_BLOCK_BYTES = 1 << 20

# Of a token in memory, beside its bytes.
_TOKEN_BYTES = 4

_RETURN = 13
_SPACE = 32


def open_text(file: InputFile, options: SourceOptions) -> SourceFile:
    """Counts the lines.

    Raises:
        InputError: the file cannot be read.
    """
    units, identity = scan_lines(file, options, "text")
    token = pa.uint8() if options.tokens == "bytes" else pa.string()
    columns = pa.schema([(TOKENS_COLUMN, pa.list_(token))])
    return SourceFile(file, "text", columns, units, identity)


def read_text(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Splits the lines of a unit into tokens.

    Args:
        unit: which lines.
        columns: `tokens`.
        options: what tokens are.
        batch_rows: rows of a batch at most; None takes blocks of about one MiB of text.

    Raises:
        InputError: the file cannot be read, or was changed.
    """
    for block in read_blocks(unit, options, _BLOCK_BYTES):
        yield from _batch(block, columns, options).pieces(batch_rows)


def _batch(block: LineBlock, columns: pa.Schema, options: SourceOptions) -> SourceBatch:
    starts, ends = block.bounds()
    bytes_ = np.frombuffer(block.data, np.uint8)
    if len(ends):
        ends = ends - ((ends > starts) & (bytes_[ends - 1] == _RETURN))
    lines = np.arange(len(starts))
    broken = [*block.broken]
    if options.tokens != "bytes":
        large = _are_too_large(bytes_, starts, ends, options)
        good = _are_utf8(block.data, starts, ends) & ~large
        lines = np.flatnonzero(good)
        for line in np.flatnonzero(~good).tolist():
            reason = TOO_LARGE if large[line] else NOT_UTF8
            text = block.data[int(starts[line]) : min(int(ends[line]), int(starts[line]) + 4096)]
            broken.append(BrokenRow(block.first_line + line, reason, raw_text(text)))
    # Only what is between these goes on: (n, ) offsets into one run of bytes.
    kept, offsets = _gathered(bytes_, starts[lines], ends[lines])
    split = {"whitespace": _words, "characters": _characters, "bytes": _bytes}[options.tokens]
    rows = pa.RecordBatch.from_arrays([split(kept, offsets)], names=[TOKENS_COLUMN])

    def raw(row: int) -> str:
        return raw_text(kept[offsets[row] : min(offsets[row + 1], offsets[row] + 4096)].tobytes())

    return fit_rows(
        rows,
        block.first_line,
        block.first_line + lines,
        rows.schema,
        options,
        raw=raw,
        broken=broken,
    )


def _gathered(
    bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of lines, one after another, and where each begins, (n + 1,) int32."""
    delta = np.zeros(len(bytes_) + 1, np.int8)
    delta[starts] += 1
    # A line that is empty begins where it ends.
    np.subtract.at(delta, ends, 1)
    kept = bytes_[np.cumsum(delta[:-1], dtype=np.int8).view(np.bool_)]
    return kept, np.concatenate(([0], np.cumsum(ends - starts))).astype(np.int32)


def _are_too_large(
    bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray, options: SourceOptions
) -> np.ndarray:
    """(n,) bool, True where the tokens of a line take more than a row may, as far as bytes tell."""
    large = np.zeros(len(starts), np.bool_)
    suspects = np.flatnonzero((ends - starts) * (1 + _TOKEN_BYTES) > options.max_row_bytes)
    for line in suspects.tolist():
        text = bytes_[starts[line] : ends[line]]
        between = text <= _SPACE if options.tokens == "whitespace" else (text & 0xC0) != 0x80
        taken = len(text) + _TOKEN_BYTES * int(np.count_nonzero(between))
        large[line] = taken > options.max_row_bytes
    return large


def _are_utf8(data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(n,) bool, True where a line is UTF-8."""
    if _is_utf8(data):
        return np.ones(len(starts), np.bool_)
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.array([_is_utf8(data[start:end]) for start, end in bounds], np.bool_)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _words(text: np.ndarray, offsets: np.ndarray) -> pa.Array:
    lines = pc.utf8_trim_whitespace(_strings(text, offsets))
    words = pc.utf8_split_whitespace(lines)
    blank = pc.equal(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False)
    if not blank.any():
        return words
    # Splitting nothing gives one empty word.
    lengths = np.where(blank, 0, np.diff(words.offsets.to_numpy()))
    values = words.flatten()
    values = values.filter(pc.greater(pc.binary_length(values), 0))
    return pa.ListArray.from_arrays(pa.array(_ends(lengths)), values)


def _characters(text: np.ndarray, offsets: np.ndarray) -> pa.Array:
    starts = np.flatnonzero((text & 0xC0) != 0x80)  # all but continuation bytes
    characters = _strings(text, np.append(starts, len(text)).astype(np.int32))
    counts = np.searchsorted(starts, offsets).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(counts), characters)


def _bytes(text: np.ndarray, offsets: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(text))


def _strings(text: np.ndarray, offsets: np.ndarray) -> pa.Array:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def _ends(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


TEXT = SourceFormat(open_text, read_text)
