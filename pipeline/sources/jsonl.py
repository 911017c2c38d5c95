"""JSON Lines: a row is a line with one object; blank lines are passed over, but counted.

Blocks of lines are parsed by Arrow. Where that fails, Python looks at each line, and what it sees
nothing wrong with is tried again by halves: only what Arrow refuses is broken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.fitting import fit_rows
from lengthwise.pipeline.sources.json_types import fault_of, infer_columns, type_to_parse
from lengthwise.pipeline.sources.lines import LineBlock, first_lines, read_blocks, scan_lines
from lengthwise.pipeline.sources.source import (
    BROKEN_LINE,
    COLUMNS,
    TOO_LARGE,
    TYPES,
    BrokenRow,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
    raw_text,
)

# Text of numbers is about as large as the numbers.
_BLOCK_BYTES = 2 << 20
_INFERRED_BYTES = 4 << 20
# Of a number in memory; between two there is a comma.
_VALUE_BYTES = 8

_OPEN, _CLOSE, _RETURN = b"{}\r"
_BLANKS = b" \t\r"

_FAULTY = (pa.ArrowException, ValueError)


def open_jsonl(file: InputFile, options: SourceOptions) -> SourceFile:
    """Counts the lines, and infers the types of the columns from the first of them.

    Raises:
        InputError: the file cannot be read.
    """
    units, identity = scan_lines(file, options, "jsonl")
    lines = first_lines(file, options, _INFERRED_BYTES).split(b"\n")
    _require_lines(file, lines)
    columns = infer_columns(lines, options)
    return SourceFile(
        file, "jsonl", columns, units, identity, leaves_open=frozenset({TYPES, COLUMNS})
    )


def _require_lines(file: InputFile, lines: Iterable[bytes]) -> None:
    """Raises InputError where lines begin with JSON of another form."""
    first, *others = [*itertools.islice(filter(None, map(bytes.strip, lines)), 4)] or [b""]
    if first.startswith(b"["):
        found, convert = "begins with a list", "`jq -c '.[]' FILE > rows.jsonl`"
    elif _goes_on(first, others):
        found = "begins with an object over several lines"
        convert = "`jq -c . FILE > rows.jsonl`, or with '.NAME[]' for a list in the object"
    else:
        return
    raise InputError(f"{file.path}: {found}; JSON Lines have one object a line: run {convert}")


def _goes_on(line: bytes, following: Sequence[bytes]) -> bool:
    """Whether an object goes on in the lines that follow: one that was cut off does not."""
    if not line.startswith(b"{") or line.endswith(b"}"):
        return False
    objects = [text.startswith(b"{") and text.endswith(b"}") for text in following]
    if line.endswith(b"["):
        return not all(objects)
    named = following[0].startswith(b'"') if following else False
    return line.endswith((b"{", b",")) and named and not any(objects)


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
        large = self._too_large(block.data, starts, ends, objects, options)
        objects = objects[~large[objects]]
        broken = [*block.broken]
        for line in others.tolist():
            text = block.data[int(starts[line]) : int(ends[line])]
            fault = fault_of(text, self._columns) or BROKEN_LINE
            broken.append(BrokenRow(block.first_line + line, fault, raw_text(text)))
        for line in np.flatnonzero(large).tolist():
            text = block.data[int(starts[line]) : int(starts[line]) + 4096]
            broken.append(BrokenRow(block.first_line + line, TOO_LARGE, raw_text(text)))
        for lines, rows, fault in self._parsed(block.data, starts, ends, objects):
            if rows is None:
                text = block.data[int(starts[lines[0]]) : int(ends[lines[0]])]
                line = block.first_line + int(lines[0])
                broken.append(BrokenRow(line, fault or BROKEN_LINE, raw_text(text)))
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

    def _too_large(
        self,
        data: bytes,
        starts: np.ndarray,
        ends: np.ndarray,
        lines: np.ndarray,
        options: SourceOptions,
    ) -> np.ndarray:
        """(n,) bool, True where a line has more values than a row may have bytes for."""
        large = np.zeros(len(starts), np.bool_)
        most = options.max_row_bytes // _VALUE_BYTES
        for line in lines[(ends - starts)[lines] > most].tolist():
            large[line] = data.count(b",", int(starts[line]), int(ends[line])) > most
        return large

    def _parsed(
        self,
        data: bytes,
        starts: np.ndarray,
        ends: np.ndarray,
        lines: np.ndarray,
        *,
        looked: bool = False,
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch | None, str | None]]:
        """Lines, their rows and no fault; or a line alone, no row, and its fault if it is known.

        Args:
            data: the block.
            starts, ends: of all its lines.
            lines: which of them; each has one object, as it seems.
            looked: whether faults that Python sees were taken out before.
        """
        if len(lines) == 0:
            return
        rows = self._rows(_text_of(data, starts, ends, lines), len(lines))
        if rows is not None:
            yield lines, rows, None
            return
        if not looked:
            good = []
            for line in lines.tolist():
                fault = fault_of(data[int(starts[line]) : int(ends[line])], self._columns)
                if fault is None:
                    good.append(line)
                else:
                    yield np.array([line]), None, fault
            yield from self._parsed(data, starts, ends, np.array(good, np.int64), looked=True)
        elif len(lines) == 1:
            yield lines, None, None
        else:
            half = len(lines) // 2
            yield from self._parsed(data, starts, ends, lines[:half], looked=True)
            yield from self._parsed(data, starts, ends, lines[half:], looked=True)

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
