"""CSV and TSV in long form: a line is a step, the lines of a group are a row.

Groups stand together in the file, and no unit cuts one. A row's number is that of its group, from
0. Columns that say the same in all lines of a group have one value per row, the others become
lists. A line that is broken breaks the row of the line before it, or its own where it has an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.nested import is_list
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.csv_lines import (
    CsvLines,
    Header,
    LineParser,
    infer_types,
    read_header,
)
from lengthwise.pipeline.sources.groups import GroupAssembler, constant_in_groups, starts_of_groups
from lengthwise.pipeline.sources.lines import (
    TO_THE_END,
    LineBlock,
    first_lines,
    read_blocks,
    scan_lines,
)
from lengthwise.pipeline.sources.source import (
    ROLES,
    TYPES,
    UNSEEN_ROLES,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
    require_rows,
)

_BLOCK_BYTES = 4 << 20
_INFERRED_BYTES = 4 << 20


def open_csv(file: InputFile, options: SourceOptions) -> SourceFile:
    """Finds the groups of a file separated by commas; see `_open`."""
    return _open(file, options, "csv")


def open_tsv(file: InputFile, options: SourceOptions) -> SourceFile:
    """Finds the groups of a file separated by tabs; see `_open`."""
    return _open(file, options, "tsv")


def _open(file: InputFile, options: SourceOptions, format_: str) -> SourceFile:
    """Reads the header, infers the columns from the first lines, and finds the groups.

    Raises:
        InputError: the file cannot be read, a column is missing, or a group is in two pieces.
    """
    whole, identity = scan_lines(file, options, format_)
    header = read_header(file, options, format_)
    group_by = _column(file, header, options.group_by)
    if options.order_by is not None:
        _column(file, header, options.order_by)
    columns, unseen = _infer_columns(file, header, group_by, options)
    if whole and whole[0].stop == TO_THE_END:
        units = whole
    else:
        units = tuple(_units(file, header, group_by, options, format_))
    return SourceFile(
        file, format_, columns, units, identity, leaves_open=frozenset({TYPES, ROLES, *unseen})
    )


def read_csv(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Parses the lines of a unit, and makes rows of groups.

    Args:
        unit: which groups.
        columns: names and types; a line whose values are of others breaks its group.
        options: how to read.
        batch_rows: rows of a batch at most; None takes blocks of about four MiB of text.

    Raises:
        InputError: the file cannot be read, was changed, or has a group in two pieces.
    """
    header = read_header(unit.file, options, unit.format)
    group_by = _column(unit.file, header, options.group_by)
    types = {
        column.name: column.type.value_type if is_list(column.type) else column.type
        for column in columns
    }
    if options.order_by is not None:
        types.setdefault(options.order_by, pa.string())
    parser = LineParser(header, group_by, types)
    assembler = GroupAssembler(columns, options, unit.first_row)
    known = _Ids()
    compressed = unit.stop == TO_THE_END
    for block, lines in _blocks_of_lines(unit, header, parser, options):
        if compressed:
            known.add(lines)
        for batch in assembler.add(block, lines):
            yield from batch.pieces(batch_rows)
    for batch in assembler.end():
        yield from batch.pieces(batch_rows)
    require_rows(unit, assembler.rows)
    if compressed:
        # Nobody has looked through it before.
        known.require_distinct(unit, header, group_by, options)


def _column(file: InputFile, header: Header, name: str | None) -> str:
    if name is None:
        raise InputError(
            f"{file.path}: CSV has a line for each step; say with --group-by which column tells "
            f"the rows apart; columns are: {', '.join(header.names)}"
        )
    if name not in header.names:
        raise InputError(f"{file.path}: no column '{name}'; columns are: {', '.join(header.names)}")
    return name


def _infer_columns(
    file: InputFile, header: Header, group_by: str, options: SourceOptions
) -> tuple[pa.Schema, set[str]]:
    """The columns, and `UNSEEN_ROLES` where no group has a second line to tell them by."""
    text = first_lines(file, options, _INFERRED_BYTES)[header.stop :]
    types = infer_types(text, header, options)
    lines = LineParser(header, group_by, types).parse(LineBlock(text, 0, 0))
    starts, _ = starts_of_groups(lines, None)
    ordinals = np.searchsorted(starts, lines.at, side="right")
    offsets = np.searchsorted(ordinals, np.arange(1, len(starts) + 2))
    several = len(starts) < len(lines.ids)
    columns = []
    for name, type_ in types.items():
        context = name in options.contexts or name == group_by
        if not context and name not in options.sequences and several:
            values = lines.steps.column(name).slice(int(offsets[0]))
            context = not constant_in_groups(values, offsets - offsets[0])[1]
        columns.append((name, type_ if context else pa.list_(type_)))
    return pa.schema(columns), set() if several else {UNSEEN_ROLES}


def _units(
    file: InputFile, header: Header, group_by: str, options: SourceOptions, format_: str
) -> Iterator[Unit]:
    """Cuts a file at groups; checks that no group is in two pieces."""
    whole = Unit(file, format_, 0, None, 0, 0, TO_THE_END)
    parser = LineParser(header, group_by, {})
    known = _Ids()
    start, first_row, row, stop = None, 0, 0, 0
    for block, lines in _blocks_of_lines(whole, header, parser, options):
        start = block.start if start is None else start
        begins = known.add(lines)
        for position in lines.starts[begins].tolist():
            at = block.start + position
            if at >= start + options.unit_bytes and row > first_row:
                yield Unit(file, format_, first_row, row - first_row, at - start, start, at)
                start, first_row = at, row
            row += 1
        stop = block.start + len(block.data)
    known.require_distinct(whole, header, group_by, options)
    if start is not None and stop > start:
        # Lines without any id are one row, that they may be counted.
        row = max(row, 1)
        yield Unit(file, format_, first_row, row - first_row, stop - start, start, stop)


def _blocks_of_lines(
    unit: Unit, header: Header, parser: LineParser, options: SourceOptions
) -> Iterator[tuple[LineBlock, CsvLines]]:
    """Blocks and their lines, without the header."""
    # What the unit counts are groups; what is read are lines.
    in_lines = replace(unit, first_row=0, rows=None)
    for block in read_blocks(in_lines, options, _BLOCK_BYTES):
        if unit.start == 0 and block.first_line == 0:
            block = replace(
                block,
                data=block.data[header.stop :],
                first_line=1,
                start=block.start + header.stop,
            )
        yield block, parser.parse(block)


class _Ids:
    """Hashes of the ids of all groups so far: 64 bits each, to find one that comes again."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._hashes: list[np.ndarray] = []

    def add(self, lines: CsvLines) -> np.ndarray:
        """Takes the ids of more lines; returns positions of the lines that begin a group."""
        starts, ids = starts_of_groups(lines, self._last)
        if ids:
            self._hashes.append(np.array([_hash(id_) for id_ in ids], np.uint64))
            self._last = ids[-1]
        return starts

    def require_distinct(
        self, unit: Unit, header: Header, group_by: str, options: SourceOptions
    ) -> None:
        """Reads the file again where two hashes are the same.

        Raises:
            InputError: names the line where a group comes again.
        """
        hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *self._hashes]))
        self._hashes.clear()
        again = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        if not again:
            return
        parser = LineParser(header, group_by, {})
        seen: set[bytes] = set()
        last = None
        for block, lines in _blocks_of_lines(unit, header, parser, options):
            starts, ids = starts_of_groups(lines, last)
            last = ids[-1] if ids else last
            for position, id_ in zip(starts.tolist(), ids, strict=True):
                if id_ in seen:
                    before = block.data[: int(lines.starts[position])].count(b"\n")
                    shown = id_.decode("utf-8", "backslashreplace")[:80]
                    raise InputError(
                        f"{unit.file.path}: line {block.first_line + before + 1}: {group_by} "
                        f"{shown!r} comes again after other groups; sort the file by '{group_by}'"
                    )
                if _hash(id_) in again:
                    seen.add(id_)


def _hash(id_: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(id_, digest_size=8).digest(), "little")


CSV = SourceFormat(open_csv, read_csv)
TSV = SourceFormat(open_tsv, read_csv)
