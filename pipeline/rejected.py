"""Faulty rows that are left out: staged as they are found, and listed in the dataset.

    units/000007.rejected.arrow     row, reason, raw         as they were found
                │
                ▼  by row
    rejected/part-00000.parquet     file, row, reason, raw

A unit may find any number of them, so no process has more than a few thousand of them in memory.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lengthwise.dataset.local_files import CopiedFiles, mapped
from lengthwise.dataset.options import MAX_INT64
from lengthwise.dataset.storage import written_whole
from lengthwise.pipeline.accounts import NAMED_FAULTS
from lengthwise.pipeline.staging import damaged, unit_rejected_path
from lengthwise.pipeline.unit_report import UnitReport

if TYPE_CHECKING:
    from lengthwise.pipeline.ingest import IngestJob

# As they are staged.
_STAGED = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])
# As they are listed.
LISTED = pa.schema([("file", pa.string()), *_STAGED])
# Rows that are brought into order at once; their texts may be a few KiB each.
_ORDERED_ROWS = 1 << 12


class UnitRejected(contextlib.ExitStack):
    """The faulty rows of one unit: the first ones in its report, all of them in the staging folder.

    Args:
        number: of the unit.
        job: for the staging folder, and for how many rows can be let through.
        report: of the unit.
    """

    def __init__(self, number: int, job: IngestJob, report: UnitReport) -> None:
        super().__init__()
        self._path = unit_rejected_path(job.staging, number)
        # More than can be let through fail the build, and are not listed.
        self._room = job.options.rejected_limit(MAX_INT64) if job.keep_rows else 0
        self._report = report
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def add(
        self, numbers: np.ndarray, reasons: Sequence[str], texts: Callable[[int], list[str]]
    ) -> None:
        """Takes more rows.

        Args:
            numbers: (n,) int64, of the rows in their file.
            reasons: (n,) what is wrong with each.
            texts: gives the first so many rows as text; asked for what is staged alone.
        """
        found = zip(numbers.tolist(), reasons, strict=True)
        self._report.faults = heapq.nsmallest(NAMED_FAULTS, [*self._report.faults, *found])
        n = min(len(numbers), self._room)
        if n == 0:
            return
        self._room -= n
        if self._writer is None:
            unfinished = self.enter_context(written_whole(self._path))
            self._writer = self.enter_context(pa.ipc.new_file(str(unfinished), _STAGED))
        columns = [pa.array(numbers[:n]), pa.array(reasons[:n]), pa.array(texts(n), pa.string())]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_STAGED))


# A unit, and numbers of its rows, (n,) int64 -> names of their files, and numbers to be shown.
Named = Callable[[int, np.ndarray], tuple[pa.Array, np.ndarray]]


def listed_rows(staging: str, units: Sequence[int], named: Named) -> Iterator[pa.Table]:
    """The rejected rows of units, in the order of their numbers, in tables of a few thousand.

    Args:
        staging: the staging folder.
        units: each with rejected rows.
        named: what names rows.

    Yields:
        Tables with the columns of `LISTED`.

    Raises:
        OutputError: a staged file is not there, or damaged.
    """
    if not units:
        return
    copies = CopiedFiles()
    try:
        pieces = []  # of each staged batch: unit, file, position in it
        found = []
        for unit in units:
            path = copies.local(unit_rejected_path(staging, unit))
            reader = pa.ipc.open_file(mapped(path))
            for position in range(reader.num_record_batches):
                pieces.append((unit, path, position))
                found.append(reader.get_batch(position)["row"].to_numpy().copy())
            del reader  # and the map, whose pages count as memory of this process
        order = np.argsort(np.concatenate(found), kind="stable")
        firsts = np.cumsum([0, *map(len, found)])
        del found
        for start in range(0, len(order), _ORDERED_ROWS):
            rows = order[start : start + _ORDERED_ROWS]
            piece = np.searchsorted(firsts, rows, side="right") - 1
            parts, taken = [], []
            for own in np.unique(piece).tolist():
                unit, path, position = pieces[own]
                taken.append(np.flatnonzero(piece == own))
                batch = pa.ipc.open_file(mapped(path)).get_batch(position)
                batch = batch.take(pa.array(rows[taken[-1]] - firsts[own]))
                files, numbers = named(unit, batch["row"].to_numpy())
                columns = [files, pa.array(numbers), batch["reason"], batch["raw"]]
                parts.append(pa.RecordBatch.from_arrays(columns, schema=LISTED))
            in_order = np.argsort(np.concatenate(taken))
            yield pa.Table.from_batches(parts).take(pa.array(in_order))
    except (OSError, pa.ArrowException):
        raise damaged(staging) from None
