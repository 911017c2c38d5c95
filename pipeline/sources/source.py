"""What every format of the input gives: files, units to read at once, batches of rows.

    open_file      file        ->  SourceFile: columns, units, identity     on the driver, cheap
    read_unit      unit        ->  SourceBatch, SourceBatch, …              on the workers, bounded

A row's number in its file depends on the file alone: neither on how the file is cut into units nor
on the size of the batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, UsageError
from lengthwise.dataset.reading import SourceOptions

# Decoded bytes of a reading batch: small enough for the cache, large enough for numpy.
BATCH_BYTES = 4 << 20

# Why a row cannot be read; what is wrong with the values of readable rows is found later.
BROKEN_LINE = "broken line"
BROKEN_RECORD = "broken record"
DAMAGED_RECORD = "damaged record"
TOO_LARGE = "row too large"
WRONG_TYPE = "wrong type"
RAGGED_VECTORS = "ragged inner vectors"
OUT_OF_RANGE = "integer out of range"
NOT_UTF8 = "not UTF-8"
INFINITE = "infinite, or beyond float32"
CHANGING_CONTEXT = "context changes within the group"
NULL_ORDER = "null in the column of the order"

# What the first rows of a file cannot say for sure.
TYPES, ROLES, COLUMNS = "types", "roles", "columns"
# Nothing was seen of roles, so that every column may as well be of the other.
UNSEEN_ROLES = "unseen roles"

_RAW_CHARACTERS = 1000


@dataclass(frozen=True)
class InputFile:
    """A file of the input.

    Attributes:
        path: where it is now, or its URL.
        name: path relative to the inputs' common folder, with `/`; part of every row key.
        split: the split that all its rows belong to; None draws the split of each row.
    """

    path: str
    name: str
    split: str | None = None


@dataclass(frozen=True)
class Unit:
    """The smallest piece of input that is read at once; travels to the workers.

    Attributes:
        file: where it is.
        format: how it is written.
        first_row: number of its first row in the file.
        rows: how many row numbers it takes; None where only reading tells.
        nbytes: roughly, decompressed.
        start, stop: what it is of the file: row groups or bytes, as the format has it.
    """

    file: InputFile
    format: str
    first_row: int
    rows: int | None
    nbytes: int
    start: int
    stop: int


@dataclass(frozen=True)
class SourceFile:
    """A file that was looked at, but not read.

    Attributes:
        file: where it is.
        format: how it is written.
        columns: Arrow schema of its rows.
        units: its pieces, in the order of their rows.
        identity: a checksum that changes with the content, as far as that shows without decoding.
        leaves_open: what is only known from the first rows: `TYPES` of columns, `ROLES` (whether
            one has a value per step or per row), `UNSEEN_ROLES` (of which nothing was seen either),
            `COLUMNS` (whether there are more).
    """

    file: InputFile
    format: str
    columns: pa.Schema
    units: tuple[Unit, ...]
    identity: int
    leaves_open: frozenset[str] = frozenset()

    @property
    def rows(self) -> int | None:
        """Row numbers of the file; None where only reading tells."""
        total = 0
        for unit in self.units:
            if unit.rows is None:
                return None
            total += unit.rows
        return total


@dataclass(frozen=True)
class BrokenRow:
    """A row that cannot be read.

    Attributes:
        row: its number in the file.
        reason: why, in words that are counted.
        raw: the start of its text, where there is one.
    """

    row: int
    reason: str
    raw: str = ""


@dataclass(frozen=True)
class SourceBatch:
    """Rows that were read.

    Attributes:
        rows: the columns that were asked for.
        first_row: number of the first row in the file.
        numbers: (n,) int64 ascending row numbers; None where they are consecutive.
        broken: rows that cannot be read.
    """

    rows: pa.RecordBatch
    first_row: int
    numbers: np.ndarray | None = None
    broken: tuple[BrokenRow, ...] = ()

    @classmethod
    def of(
        cls, rows: pa.RecordBatch, numbers: np.ndarray, broken: tuple[BrokenRow, ...] = ()
    ) -> SourceBatch:
        """A batch of rows with any ascending numbers."""
        first = int(numbers[0]) if len(numbers) else 0
        consecutive = len(numbers) == 0 or int(numbers[-1]) - first == len(numbers) - 1
        return cls(rows, first, None if consecutive else numbers, broken)

    @property
    def row_numbers(self) -> np.ndarray:
        """(n,) int64, the number of each row in its file."""
        if self.numbers is not None:
            return self.numbers
        return np.arange(self.first_row, self.first_row + self.rows.num_rows)

    def pieces(self, batch_rows: int | None) -> Iterator[SourceBatch]:
        """The same rows in batches of at most so many; None leaves them together."""
        n = self.rows.num_rows
        if batch_rows is None or n <= batch_rows:
            yield self
            return
        for start in range(0, n, batch_rows):
            rows = self.rows.slice(start, batch_rows)
            broken = self.broken if start == 0 else ()
            if self.numbers is None:
                yield SourceBatch(rows, self.first_row + start, None, broken)
            else:
                yield SourceBatch.of(rows, self.numbers[start : start + batch_rows], broken)


@dataclass(frozen=True)
class SourceFormat:
    """How files of one format are read.

    Attributes:
        open: looks at a file and cuts it into units.
        read: decodes the columns of a unit, in batches of bounded size.
    """

    open: Callable[[InputFile, SourceOptions], SourceFile]
    read: Callable[[Unit, pa.Schema, SourceOptions, int | None], Iterator[SourceBatch]]


def one_line(reason: Exception) -> str:
    """The message of an exception, folded into one line of bounded length."""
    return " ".join(str(reason).split())[:300]


def raw_text(data: bytes | bytearray | memoryview) -> str:
    """The start of a broken row as text."""
    return bytes(data[: 4 * _RAW_CHARACTERS]).decode("utf-8", "backslashreplace")[:_RAW_CHARACTERS]


def require_rows(unit: Unit, found: int, *, place: str = "") -> None:
    """Checks that a unit had as many rows as were counted when its file was opened.

    Raises:
        InputError: it had more or fewer.
    """
    if unit.rows is not None and found != unit.rows:
        place = place or f"rows from {unit.first_row}"
        raise InputError(
            f"{unit.file.path}: {place}: {found} rows were read, {unit.rows} were counted before; "
            "the file is damaged or was changed, run again"
        )


def parse_shape(text: str) -> tuple[int, ...]:
    """The sizes written as `12` or `4x3`.

    Raises:
        UsageError: the text is no shape.

    Example:
        >>> parse_shape("4x3")
        (4, 3)
    """
    if re.fullmatch(r"\d{1,8}(x\d{1,8})*", text, re.ASCII) is None:
        raise UsageError(f"{text!r} is no shape: write sizes, as in 12 or 4x3")
    return tuple(int(size) for size in text.split("x"))
