"""Steps that stand one after another become rows: a group of lines is a row.

    id  t  x              id   x
    a   0  1        ->    a    [1, 2]
    a   1  2              b    [3]
    b   0  3

A group may reach over many blocks of lines; it is complete when another begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.dataset.nested import is_list
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.csv_lines import CsvLines, empty_as_null
from lengthwise.pipeline.sources.fitting import fit_rows
from lengthwise.pipeline.sources.lines import LineBlock
from lengthwise.pipeline.sources.ordering import order_of_steps
from lengthwise.pipeline.sources.source import (
    CHANGING_CONTEXT,
    TOO_LARGE,
    WRONG_TYPE,
    BrokenRow,
    SourceBatch,
    raw_text,
)


@dataclass
class _OpenGroup:
    """The group that the last line belongs to.

    Attributes:
        id: raw value of the group's column; None before the first.
        steps: its rows so far.
        nbytes: of its lines so far.
        fault: why it is broken, and the line that shows it.
    """

    id: bytes | None = None
    steps: list[pa.RecordBatch] = field(default_factory=list)
    nbytes: int = 0
    fault: tuple[str, str] | None = None


class GroupAssembler:
    """Makes rows of the lines of a unit.

    Args:
        columns: names and types of the rows; lists have a value per line, others one per group.
        options: how to read.
        first_row: number of the first group in the file.
    """

    def __init__(self, columns: pa.Schema, options: SourceOptions, first_row: int) -> None:
        self._columns = columns
        self._options = options
        self._open = _OpenGroup()
        self._next_row = first_row
        self.rows = 0

    def add(self, block: LineBlock, lines: CsvLines) -> Iterator[SourceBatch]:
        """Adds lines; yields the rows of groups that are complete."""
        group = self._open
        for row in block.broken:
            group.fault = group.fault or (row.reason, row.raw)
        starts, ids = starts_of_groups(lines, group.id)
        if group.id is None and ids:
            # What stands before the first line that has an id belongs to its group.
            group.id, ids, starts = ids[0], ids[1:], starts[1:]
        # 0 is the group that is open already, however many lines it has here.
        ordinal_of_line = np.searchsorted(starts, np.arange(len(lines.starts)), side="right")
        faults: dict[int, tuple[str, str]] = {}
        for position, reason in lines.faults:
            start = int(lines.starts[position])
            line = block.data[start : start + 4096].partition(b"\n")[0]
            faults.setdefault(int(ordinal_of_line[position]), (reason, raw_text(line)))
        edges = np.concatenate((lines.starts[starts], [len(block.data)]))
        group.nbytes += int(edges[0])
        group.fault = group.fault or faults.get(0)
        ordinals = ordinal_of_line[lines.at]
        if len(starts) == 0:
            self._keep(group, lines.steps)
            return
        fault_of_last = faults.pop(len(starts), None)
        if group.fault is not None:
            faults[0] = group.fault
        here = np.searchsorted(ordinals, np.arange(len(starts) + 2))
        self._keep(group, lines.steps.slice(0, int(here[1])))
        yield from self._close(
            [*group.steps, lines.steps.slice(int(here[1]), int(here[-2] - here[1]))],
            counts=np.concatenate(
                ([sum(rows.num_rows for rows in group.steps)], np.diff(here[1:-1]))
            ),
            nbytes=np.concatenate(([group.nbytes], np.diff(edges)[:-1])),
            faults=faults,
            ids=[group.id or b"", *ids[:-1]],
        )
        self._open = _OpenGroup(ids[-1], [], int(edges[-1] - edges[-2]), fault_of_last)
        self._keep(self._open, lines.steps.slice(int(here[-2])))

    def end(self) -> Iterator[SourceBatch]:
        """Yields the last group."""
        group = self._open
        if group.id is None and group.fault is None:
            return
        yield from self._close(
            group.steps,
            counts=np.array([sum(rows.num_rows for rows in group.steps)]),
            nbytes=np.array([group.nbytes]),
            faults={0: group.fault} if group.fault else {},
            ids=[group.id or b""],
        )
        self._open = _OpenGroup()

    def _keep(self, group: _OpenGroup, steps: pa.RecordBatch) -> None:
        group.steps.append(steps)
        if group.nbytes > self._options.max_row_bytes:
            # The row is too large already; nothing of it will be needed.
            group.steps[:] = [steps.slice(0, 0)]

    def _close(
        self,
        steps: list[pa.RecordBatch],
        *,
        counts: np.ndarray,
        nbytes: np.ndarray,
        faults: dict[int, tuple[str, str]],
        ids: list[bytes],
    ) -> Iterator[SourceBatch]:
        """Makes rows of whole groups that stand one after another.

        Args:
            steps: rows of their lines.
            counts: (g,) lines of each.
            nbytes: (g,) of each.
            faults: position of a group -> why it is broken, and a line of it.
            ids: of the groups.
        """
        for group in np.flatnonzero(nbytes > self._options.max_row_bytes).tolist():
            faults[group] = (TOO_LARGE, raw_text(ids[group]))
        rows = pa.concat_batches(steps)
        made, found = self._rows(rows, counts, ids, set(faults))
        for group, reason in found.items():
            faults.setdefault(group, (reason, raw_text(ids[group])))
        first = self._next_row
        self._next_row += len(ids)
        self.rows += len(ids)
        whole = np.ones(len(ids), np.bool_)
        whole[list(faults)] = False
        good = np.flatnonzero(whole)
        if faults:
            made = made.take(pa.array(good))
        yield fit_rows(
            made,
            first,
            first + good,
            self._columns,
            self._options,
            raw=lambda row: raw_text(ids[good[row]]),
            broken=[BrokenRow(first + group, *faults[group]) for group in sorted(faults)],
        )

    def _rows(
        self, steps: pa.RecordBatch, counts: np.ndarray, ids: list, broken: set[int]
    ) -> tuple[pa.RecordBatch, dict[int, str]]:
        """The rows of all groups, nulls where one is broken, and what else is wrong with some."""
        faults: dict[int, str] = {}
        offsets = np.concatenate(([0], np.cumsum(counts)))
        if self._options.order_by is not None:
            cells = steps.column(self._options.order_by)
            order, faults = order_of_steps(cells, offsets, broken)
            if order is not None:
                steps = steps.take(pa.array(order))
        arrays = []
        for column in self._columns:
            if column.name == self._options.group_by:
                array, wrong = _ids_as(ids, column.type)
                faults.update(dict.fromkeys(wrong, WRONG_TYPE))
                arrays.append(array)
                continue
            values = empty_as_null(steps.column(column.name))
            if is_list(column.type):
                array = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)
            else:
                array, changed = constant_in_groups(values, offsets)
                faults.update(dict.fromkeys(changed, CHANGING_CONTEXT))
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=self._columns.names), faults


def starts_of_groups(lines: CsvLines, open_id: bytes | None) -> tuple[np.ndarray, list[bytes]]:
    """Positions of the lines that begin a group, and their ids.

    Args:
        lines: some lines.
        open_id: the id of the line before them; None where there is none.
    """
    ids = lines.ids
    if len(ids) == 0:
        return np.zeros(0, np.int64), []
    begins = np.ones(len(ids), np.bool_)
    begins[0] = ids[0].as_py() != open_id
    if len(ids) > 1:
        changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        begins[1:] = changes.to_numpy(zero_copy_only=False)
    at = np.flatnonzero(begins)
    return lines.ids_at[at], ids.take(pa.array(at)).to_pylist()


def constant_in_groups(values: pa.Array, offsets: np.ndarray) -> tuple[pa.Array, list[int]]:
    """The first value of each group, and the groups that have others beside it.

    Example:
        >>> first, changing = constant_in_groups(pa.array([7, 7, 8, 9]), np.array([0, 2, 4]))
        >>> first.to_pylist(), changing
        ([7, 8], [1])
    """
    counts = np.diff(offsets)
    if len(values) == 0:
        return pa.nulls(len(counts), values.type), []
    first = values.take(pa.array(np.minimum(offsets[:-1], len(values) - 1), mask=counts == 0))
    # Codes, because nulls and NaN are equal to themselves here.
    codes = values.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
    group_of_step = np.repeat(np.arange(len(counts)), counts)
    differs = codes != codes[offsets[:-1][group_of_step]]
    changing = np.zeros(len(counts), np.bool_)
    changing[group_of_step[differs]] = True
    return first, np.flatnonzero(changing).tolist()


def _ids_as(ids: list[bytes], type_: pa.DataType) -> tuple[pa.Array, list[int]]:
    """The ids as values of a type; null where one is not, and which."""
    try:
        text = pa.array(ids, pa.binary()).cast(pa.string())
        return pc.utf8_trim_whitespace(text).cast(type_), []
    except pa.ArrowException:
        pass
    values, wrong = [], []
    for group, raw in enumerate(ids):
        try:
            text = pa.array([raw], pa.binary()).cast(pa.string())
            values.append(pc.utf8_trim_whitespace(text).cast(type_)[0].as_py())
        except pa.ArrowException:
            values.append(None)
            wrong.append(group)
    return pa.array(values, type_), wrong
