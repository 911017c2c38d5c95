"""Lines of CSV: the header, the types of the columns, and lines parsed as those types.

A line is a step, so a quoted value cannot hold a line break. Arrow's parser would let it, which
shows in the number of rows; then halving the lines finds those at fault.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import DECLARED_TYPES, SourceOptions
from lengthwise.pipeline.sources.lines import LineBlock, first_lines
from lengthwise.pipeline.sources.source import (
    BROKEN_LINE,
    NOT_UTF8,
    OUT_OF_RANGE,
    WRONG_TYPE,
    InputFile,
)

_MAX_HEADER_BYTES = 1 << 20
_DELIMITERS = {"csv": ",;\t|", "tsv": "\t"}
_RETURN = 13

# An empty value is missing, and so is what statistics programs write. NaN stays a number.
_NULLS = ["", "NA", "N/A", "#N/A", "null", "NULL"]
_NULL_CELLS = pa.array([null.encode() for null in _NULLS], pa.binary())

_INTEGER = r"^\s*-?\d+\s*$"
_NUMBER = r"^\s*[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|NaN|inf|Inf)\s*$"
_BOOL = r"^\s*(true|True|TRUE|false|False|FALSE)\s*$"


@dataclass(frozen=True)
class Header:
    """The first line of a file.

    Attributes:
        names: of the columns.
        delimiter: between values.
        stop: the byte after it; what a mark of the encoding takes is not counted.
    """

    names: tuple[str, ...]
    delimiter: str
    stop: int


@dataclass(frozen=True)
class CsvLines:
    """The lines of a block that are not blank.

    Attributes:
        starts: (n,) where each begins in the block.
        steps: rows of the lines that were parsed, without the group's column.
        at: (m,) positions of those lines among all.
        ids: (k,) raw values of the group's column, of all lines that have one.
        ids_at: (k,) positions of those lines.
        faults: (position, reason) of the others.
    """

    starts: np.ndarray
    steps: pa.RecordBatch
    at: np.ndarray
    ids: pa.Array
    ids_at: np.ndarray
    faults: tuple[tuple[int, str], ...]


def read_header(file: InputFile, options: SourceOptions, format_: str) -> Header:
    """Reads the names of the columns.

    Raises:
        InputError: there is no header, or names are missing or repeated.
    """
    line, newline, _ = first_lines(file, options, _MAX_HEADER_BYTES).partition(b"\n")
    try:
        text = line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        raise InputError(f"{file.path}: line 1: is not UTF-8; convert the file") from None
    delimiters = _DELIMITERS[format_]
    delimiter = next((one for one in delimiters if one in text), delimiters[0])
    try:
        names = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        names = []  # a return in the middle, or a name without an end
    if not text.strip() or len(set(names)) < len(names) or not all(names):
        raise InputError(
            f"{file.path}: line 1 must name the columns, each once, found {text[:80]!r}"
        )
    return Header(tuple(names), delimiter, len(line) + len(newline))


class LineParser:
    """Parses lines as columns of given types.

    Args:
        header: names of all columns.
        group_by: the column whose raw value is wanted.
        types: column -> type, of those that are wanted beside it.
    """

    def __init__(self, header: Header, group_by: str, types: dict[str, pa.DataType]) -> None:
        self._header = header
        self._group_by = group_by
        self._types = {**types, group_by: pa.binary()}
        self._parsing = arrow_csv.ParseOptions(delimiter=header.delimiter)
        nothing = header.delimiter.encode() * (len(header.names) - 1)
        self._last_line = b"\n" + (nothing or b"-")

    def parse(self, block: LineBlock) -> CsvLines:
        """The lines of a block that are not blank."""
        starts, ends = block.bounds()
        bytes_ = np.frombuffer(block.data, np.uint8)
        if len(ends):
            returned = (ends > starts) & (bytes_[ends - 1] == _RETURN)
            ends = ends - returned
            filled = ends > starts
            torn = _torn_lines(bytes_, starts, ends, int(np.count_nonzero(returned)))[filled]
            starts, ends = starts[filled], ends[filled]
        else:
            torn = np.zeros(0, np.bool_)
        good = np.flatnonzero(~torn)
        faults = [(position, BROKEN_LINE) for position in np.flatnonzero(torn).tolist()]
        steps, at, ids, ids_at = [], [], [], []
        for lines, rows, fault in self._parsed(block.data, starts, ends, good):
            if fault is not None:
                faults.append((int(lines[0]), fault))
            if rows is None:
                continue
            ids.append(rows.column(self._group_by))
            ids_at.append(lines)
            if fault is None:
                steps.append(rows.drop_columns([self._group_by]))
                at.append(lines)
        schema = pa.schema([item for item in self._types.items() if item[0] != self._group_by])
        return CsvLines(
            starts=starts,
            steps=pa.concat_batches(steps) if steps else pa.RecordBatch.from_pylist([], schema),
            at=np.concatenate([np.zeros(0, np.int64), *at]),
            ids=pa.concat_arrays([pa.array([], pa.binary()), *ids]),
            ids_at=np.concatenate([np.zeros(0, np.int64), *ids_at]),
            faults=tuple(sorted(faults)),
        )

    def _parsed(
        self, data: bytes, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch | None, str | None]]:
        """Lines, their rows and no fault; or a line alone, at most its id, and its fault."""
        if len(lines) == 0:
            return
        if len(lines) == 1:
            yield lines, *self._single(data[int(starts[lines[0]]) : int(ends[lines[0]])])
            return
        text = _text_of(data, starts, ends, lines)
        rows = self._rows(text, len(lines), self._types)
        if rows is not None:
            yield lines, rows, None
            return
        half = len(lines) // 2
        yield from self._parsed(data, starts, ends, lines[:half])
        yield from self._parsed(data, starts, ends, lines[half:])

    def _single(self, line: bytes) -> tuple[pa.RecordBatch | None, str | None]:
        """The row of a line and its fault; neither where it has only spaces."""
        rows = self._rows(line, 1, self._types)
        if rows is not None:
            return rows, None
        rows = self._rows(line, 1, {self._group_by: pa.binary()})
        if rows is None:
            return None, BROKEN_LINE if line.strip(b" ") else None
        return rows, self._fault(line)

    def _fault(self, line: bytes) -> str:
        """Why the values of a line are not of their types."""
        for name, type_ in self._types.items():
            if self._rows(line, 1, {name: type_}) is not None:
                continue
            text = self._rows(line, 1, {name: pa.string()})
            if text is None:
                return NOT_UTF8
            if pa.types.is_integer(type_) and _all_match(text.column(0), _INTEGER):
                return OUT_OF_RANGE
            return WRONG_TYPE
        return BROKEN_LINE

    def _rows(
        self, text: bytes, count: int, types: dict[str, pa.DataType]
    ) -> pa.RecordBatch | None:
        """The rows of so many lines; None where one of them is broken."""
        # A quote that is not closed swallows the line after it: here, one that nobody will miss.
        text += self._last_line
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(text),
                arrow_csv.ReadOptions(
                    use_threads=False,
                    block_size=len(text) + 1,
                    column_names=list(self._header.names),
                ),
                self._parsing,
                arrow_csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=_NULLS
                ),
            )
        except (pa.ArrowException, ValueError):
            return None
        if table.num_rows != count + 1:
            return None
        batches = table.combine_chunks().to_batches()
        return batches[0].slice(0, count) if len(batches) == 1 else None


def infer_types(block: bytes, header: Header, options: SourceOptions) -> dict[str, pa.DataType]:
    """Types of all columns, from the lines that come first.

    The first value of a column decides, so that one wrong value does not make strings of numbers;
    integers become floats where others have a point.
    """
    types: dict[str, pa.DataType] = dict.fromkeys(header.names, pa.float64())
    if block.strip():
        for name, cells in _cells(block, header).items():
            cells = cells.filter(pc.invert(pc.is_in(cells, _NULL_CELLS)))
            if len(cells):
                types[name] = _type_of(cells)
    return {
        name: DECLARED_TYPES[options.types[name]] if name in options.types else type_
        for name, type_ in types.items()
    }


def _cells(block: bytes, header: Header) -> dict[str, pa.Array]:
    """The raw values of the lines that are whole."""
    # Arrow shows a line with a wrong number of fields as a string to the handler, or fails to.
    text = block.decode("utf-8", "replace").encode()
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text),
            arrow_csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, column_names=list(header.names)
            ),
            arrow_csv.ParseOptions(delimiter=header.delimiter, invalid_row_handler=_skip),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(header.names, pa.binary())),
        )
    except (pa.ArrowException, ValueError):
        return {}
    return {column: table[column].combine_chunks() for column in header.names}


def _skip(row: arrow_csv.InvalidRow) -> str:
    return "skip"


def _type_of(cells: pa.Array) -> pa.DataType:
    first = cells.slice(0, 1)
    if _all_match(first, _BOOL):
        return pa.bool_()
    if not _all_match(first, _NUMBER):
        return pa.string()
    numbers = cells.filter(pc.match_substring_regex(cells, _NUMBER))
    return pa.int64() if _all_match(numbers, _INTEGER) else pa.float64()


def _all_match(cells: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(cells, pattern)).as_py()


def empty_as_null(column: pa.Array) -> pa.Array:
    """Strings with nulls where nothing stood."""
    if not pa.types.is_string(column.type):
        return column
    empty = pc.equal(pc.binary_length(column), 0)
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def _torn_lines(
    bytes_: np.ndarray, starts: np.ndarray, ends: np.ndarray, at_ends: int
) -> np.ndarray:
    """(n,) bool, True where a line has a carriage return in it: Arrow takes it for an end."""
    torn = np.zeros(len(starts), np.bool_)
    if np.count_nonzero(bytes_ == _RETURN) > at_ends:
        returns = np.flatnonzero(bytes_ == _RETURN)
        line = np.searchsorted(starts, returns, side="right") - 1
        torn[line[returns < ends[line]]] = True
    return torn


def _text_of(data: bytes, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> bytes:
    first, last = int(lines[0]), int(lines[-1])
    if last - first == len(lines) - 1:
        return data[int(starts[first]) : int(ends[last])]
    return b"\n".join(data[int(starts[line]) : int(ends[line])] for line in lines.tolist())
