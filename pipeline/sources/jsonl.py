"""JSON Lines: a row is a line with one object; blank lines are passed over, but counted.

Blocks of lines are parsed by Arrow. Where that fails, halving the block finds the lines at fault.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json

from lengthwise.dataset.errors import InputError
from lengthwise.pipeline.sources.fitting import fit_rows
from lengthwise.pipeline.sources.json_types import fault_of, infer_columns, type_to_parse
from lengthwise.pipeline.sources.lines import LineBlock, first_block, read_blocks, scan_lines
from lengthwise.pipeline.sources.source import (
    COLUMNS,
    TYPES,
    BrokenRow,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    SourceOptions,
    Unit,
    raw_text,
)

# Text of numbers is about as large as the numbers.
_BLOCK_BYTES = 2 << 20
_INFERRED_BYTES = 4 << 20

_OPEN, _CLOSE, _RETURN = b"{}\r"
_BLANKS = b" \t\r"

_FAULTY = (pa.ArrowException, ValueError)


def open_jsonl(file: InputFile, options: SourceOptions) -> SourceFile:
    """Counts the lines, and infers the types of the columns from the first of them.

    Raises:
        InputError: the file cannot be read.
    """
    units, identity = scan_lines(file, options, "jsonl")
    lines = first_block(file, options, _INFERRED_BYTES).split(b"\n")
    if lines[0].lstrip()[:1] == b"[":
        raise InputError(
            f"{file.path}: begins with a list; JSON Lines have one object a line, as written by "
            "`jq -c '.[]'`"
        )
    columns = infer_columns(lines, options)
    return SourceFile(
        file, "jsonl", columns, units, identity, leaves_open=frozenset({TYPES, COLUMNS})
    )


def read_jsonl(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Parses the lines of a unit.

    Args:
        unit: which lines.
        columns: names and types; a line whose values are of others is broken.
        options: how to read.
        batch_rows: rows of a batch at most; None takes blocks of about two MiB of text.

    Raises:
        InputError: the file cannot be read, or was changed.
    """
    parser = _Parser(columns)
    for block in read_blocks(unit, options, _BLOCK_BYTES):
        for batch in parser.batches(block, options):
            yield from batch.pieces(batch_rows)


class _Parser:
    """Parses blocks of lines as columns of given types."""

    def __init__(self, columns: pa.Schema) -> None:
        self._columns = columns
        self._options = arrow_json.ParseOptions(
            explicit_schema=pa.schema([(c.name, type_to_parse(c.type)) for c in columns]),
            unexpected_field_behavior="ignore",
        )

    def batches(self, block: LineBlock, options: SourceOptions) -> Iterator[SourceBatch]:
        """The rows of a block; several batches where lines between them are broken."""
        starts, ends = block.bounds()
        objects, others = _lines_with_objects(block.data, starts, ends)
        broken = [*block.broken]
        for line in others.tolist():
            text = block.data[int(starts[line]) : int(ends[line])]
            broken.append(self._broken(block.first_line + line, text))

        for lines, rows in self._parsed(block.data, starts, ends, objects):
            if rows is None:
                text = block.data[int(starts[lines[0]]) : int(ends[lines[0]])]
                broken.append(self._broken(block.first_line + int(lines[0]), text))
                continue

            def raw(row: int, lines: np.ndarray = lines) -> str:
                start, end = int(starts[lines[row]]), int(ends[lines[row]])
                return raw_text(block.data[start : min(end, start + 4096)])

            numbers = block.first_line + lines
            yield fit_rows(
                rows, int(numbers[0]), numbers, self._columns, options, raw=raw, broken=broken
            )
            broken = []
        if broken:
            nothing = pa.RecordBatch.from_pylist([], schema=self._columns)
            yield SourceBatch(nothing, block.first_line, None, tuple(broken))

    def _broken(self, line: int, text: bytes) -> BrokenRow:
        return BrokenRow(line, fault_of(text, self._columns), raw_text(text[:4096]))

    def _parsed(
        self, data: bytes, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch | None]]:
        """Lines and their rows; a line alone and None where it cannot be parsed."""
        if len(lines) == 0:
            return
        rows = self._rows(_text_of(data, starts, ends, lines), len(lines))
        if rows is not None or len(lines) == 1:
            yield lines, rows
            return
        half = len(lines) // 2
        yield from self._parsed(data, starts, ends, lines[:half])
        yield from self._parsed(data, starts, ends, lines[half:])

    def _rows(self, text: bytes, count: int) -> pa.RecordBatch | None:
        """The rows of lines with one object each; None where one is broken."""
        reading = arrow_json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        try:
            table = arrow_json.read_json(pa.BufferReader(text), reading, self._options)
        except _FAULTY:
            return None
        # Lines that begin and end as objects do, but hold more than one.
        if table.num_rows != count:
            return None
        batches = table.select(self._columns.names).combine_chunks().to_batches()
        return batches[0] if len(batches) == 1 else None


def _lines_with_objects(
    data: bytes, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the lines that begin with `{` and end with `}`, and of others that are not blank.

    Arrow takes an object over several lines, or several in a line, for rows like any other; and a
    block that begins with `null` crashes it. Where every line begins and ends like this, a value
    cannot reach over a newline (after `}` no valid one goes on with `{`), so that as many rows as
    lines means one a line.
    """
    if len(starts) == 0:
        return starts, starts
    bytes_ = np.frombuffer(data, np.uint8)
    ends = ends - ((ends > starts) & (bytes_[ends - 1] == _RETURN))
    filled = ends > starts
    last = bytes_[np.where(filled, ends - 1, 0)]
    good = filled & (bytes_[np.minimum(starts, len(data) - 1)] == _OPEN) & (last == _CLOSE)
    others = []
    for line in np.flatnonzero(filled & ~good).tolist():
        text = data[int(starts[line]) : int(ends[line])].strip(_BLANKS)
        if text[:1] == b"{" and text[-1:] == b"}":
            good[line] = True
        elif text:
            others.append(line)
    return np.flatnonzero(good), np.array(others, np.int64)


def _text_of(data: bytes, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> bytes:
    first, last = int(lines[0]), int(lines[-1])
    if last - first == len(lines) - 1:
        return data[int(starts[first]) : int(ends[last])]
    return b"\n".join(data[int(starts[line]) : int(ends[line])] for line in lines.tolist())


JSONL = SourceFormat(open_jsonl, read_jsonl)
