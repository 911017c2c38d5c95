"""From a unit of the input to packed rows: read, validate, draw the split, measure, sort.

A unit is decoded once, in batches of bounded size. Each batch becomes one chunk of packed rows,
sorted by (split, length): whatever buckets the plan chooses later, the rows of a bucket are a
contiguous piece of each chunk, so choosing them never moves a byte.

    chunk 0  | train: 3 4 4 7 9 … 512 | val: 5 5 8 … |     a bucket (8, 16] of train is one slice
    chunk 1  | train: 2 2 6 8 8 … 498 | val: 3 9 …   |     of each chunk
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.dataset.errors import LengthwiseError
from lengthwise.dataset.nested import is_list
from lengthwise.dataset.options import MAX_LENGTH, PlanOptions
from lengthwise.dataset.reasons import EMPTY, NULL_SEQUENCE, OVERLONG, REASONS, TOO_LONG
from lengthwise.dataset.schema import NUMBERS, Schema
from lengthwise.dataset.storage import written_whole
from lengthwise.pipeline.accounts import Tally, merge_tallies, tally_by_split
from lengthwise.pipeline.measuring import measure, measure_channels
from lengthwise.pipeline.rejected import UnitRejected
from lengthwise.pipeline.sources import BrokenRow, SourceBatch, SourceOptions, Unit, read_unit
from lengthwise.pipeline.splitting import keys_of, splits_of, training_rows
from lengthwise.pipeline.staging import unit_report_path, unit_rows_path, write_report
from lengthwise.pipeline.strings import UnitStrings
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.pipeline.worker_counts import count_on_worker
from lengthwise.transforms.missing import fill_missing
from lengthwise.transforms.packing import pack_rows
from lengthwise.transforms.ragged import RaggedRows, ragged_rows
from lengthwise.transforms.uncached_file import UncachedFile

# Of the text of a rejected row.
_RAW_CHARACTERS = 1000


@dataclass(frozen=True)
class IngestJob:
    """What ingesting any unit of a build needs; travels to the workers.

    Attributes:
        schema: the features.
        columns: names and types of the columns that units are asked for.
        reading: how files are read.
        storage: feature -> numpy dtype of the packed values.
        options: seed, splits and what becomes of empty and overlong rows.
        splits: names of all splits, ascending.
        staging: the staging folder.
        keep_rows: False only measures.
        batch_rows: rows of a reading batch; None bounds its bytes.
    """

    schema: Schema
    columns: pa.Schema
    reading: SourceOptions
    storage: dict[str, str]
    options: PlanOptions
    splits: tuple[str, ...]
    staging: str
    keep_rows: bool = True
    batch_rows: int | None = None

    @cached_property
    def numbers(self) -> Schema:
        """The features as rows are packed: strings are codes."""
        return self.schema.as_numbers


def ingest_unit(numbered: tuple[int, Unit], job: IngestJob) -> None:
    """Reads a unit and ingests it."""
    number, unit = numbered
    batches = read_unit(unit, job.columns, job.reading, batch_rows=job.batch_rows)
    ingest_batches(number, unit, batches, job)


def ingest_batches(number: int, unit: Unit, batches: Iterable[SourceBatch], job: IngestJob) -> None:
    """Ingests a unit and leaves its packed rows and its report in the staging folder.

    An input that cannot be read is reported, not raised: runners would only try again.
    """
    try:
        report = _ingest(number, unit, batches, job)
    except LengthwiseError as reason:
        report = UnitReport(error=str(reason))
    write_report(unit_report_path(job.staging, number), report.to_json())
    count_on_worker("units")


def _ingest(number: int, unit: Unit, batches: Iterable[SourceBatch], job: IngestJob) -> UnitReport:
    report = UnitReport(splits=list(job.splits))
    strings = UnitStrings(job)
    path = unit_rows_path(job.staging, number)
    with (
        written_whole(path) as unfinished,
        UncachedFile(unfinished) as file,
        UnitRejected(number, job, report) as rejected,
    ):
        writer = None
        for batch in batches:
            _reject(batch.broken, unit, job, report, rejected)
            numbers = batch.row_numbers
            keys = keys_of(numbers, unit, job)
            splits = splits_of(batch.rows, keys, unit, job, report)
            found = Found(batch.rows, numbers, keys, splits)
            coded = strings.as_codes(batch.rows)
            rows, splits = _usable(found, coded, job, report, rejected)
            if len(rows) == 0:
                continue
            strings.count(rows, training_rows(splits, job, report))
            chunk = measure(rows, splits, job, report)
            measure_channels(rows, splits, job, report)
            rows = _filled(rows, job)
            if job.keep_rows:
                packed = _sorted_by_length(pack_rows(rows, job.numbers), rows.lengths, splits)
                if writer is None:
                    writer = pa.ipc.new_file(pa.PythonFile(file, "w"), packed.schema)
                writer.write_batch(packed)
                report.chunks.append(chunk)
        if writer is not None:
            writer.close()
        file.finish()
        strings.write(number)
    return report


def _reject(
    broken: Sequence[BrokenRow],
    unit: Unit,
    job: IngestJob,
    report: UnitReport,
    rejected: UnitRejected,
) -> None:
    """Counts rows that could not be read."""
    if not broken:
        return
    numbers = np.array([row.row for row in broken])
    splits = splits_of(None, keys_of(numbers, unit, job), unit, job, report)
    reasons = [row.reason for row in broken]
    for (split, reason), rows in Counter(zip(splits.tolist(), reasons, strict=True)).items():
        tally = Tally(read=rows, rejected={reason: rows})
        report.tallies = merge_tallies([report.tallies, {report.splits[split]: tally}])
    rejected.add(numbers, reasons, lambda n: [row.raw for row in broken[:n]])


@dataclass(frozen=True)
class Found:
    """Rows of a batch as they were found.

    Attributes:
        rows: (n) the columns as they came.
        numbers: (n,) int64, numbers of the rows in their file.
        keys: (n,) uint64.
        splits: (n,) uint8.
    """

    rows: pa.RecordBatch
    numbers: np.ndarray
    keys: np.ndarray
    splits: np.ndarray


def _usable(
    found: Found,
    coded: pa.RecordBatch,
    job: IngestJob,
    report: UnitReport,
    rejected: UnitRejected,
) -> tuple[RaggedRows, np.ndarray]:
    """The rows that are passed on, and their splits (n,) uint8; counts all of the batch."""
    options = job.options
    rows, fates = ragged_rows(
        coded, job.numbers, storage=job.storage, keys=found.keys, nan=options.nan
    )
    usable = np.flatnonzero(fates == 0)
    fates[usable[rows.lengths == 0]] = EMPTY
    if options.max_length is None:
        fates[usable[rows.lengths > MAX_LENGTH // options.align * options.align]] = TOO_LONG
    elif options.overlong in ("error", "drop"):
        fates[usable[rows.lengths > options.max_length]] = OVERLONG
    dropped = [EMPTY, NULL_SEQUENCE] if options.empty == "drop" else []
    dropped += [OVERLONG] if options.overlong == "drop" else []
    if fates.any():
        passed = fates[usable] == 0
        if not passed.all():
            rows = rows.select(np.flatnonzero(passed))
        faulty = np.flatnonzero((fates != 0) & ~np.isin(fates, dropped))
        reasons = [REASONS[fate] for fate in fates[faulty]]
        rejected.add(found.numbers[faulty], reasons, lambda n: _texts(found.rows, faulty[:n]))
    tallies = tally_by_split(found.splits, fates, dropped, report.splits)
    splits = found.splits[fates == 0]
    if options.max_length is not None and (rows.lengths > options.max_length).any():
        if options.overlong == "split":
            rows, row = rows.pieces(options.max_length, options.overlap)
            added = np.bincount(splits[row], minlength=len(report.splits))
            added -= np.bincount(splits, minlength=len(report.splits))
            for name, pieces in zip(report.splits, added.tolist(), strict=True):
                tallies[name].pieces += pieces
                tallies[name].written += pieces
            splits = splits[row]
        else:
            keep_end = options.overlong == "truncate_start"
            rows = rows.truncated(options.max_length, keep_end=keep_end)
    report.tallies = merge_tallies([report.tallies, tallies])
    return rows, splits


def _texts(rows: pa.RecordBatch, positions: np.ndarray) -> list[str]:
    """The rows at some positions as text."""
    rows = rows.take(pa.array(positions))
    # An item of a list takes more than one character; a row may have millions that nobody sees.
    columns = [
        pc.list_slice(column, 0, _RAW_CHARACTERS) if is_list(column.type) else column
        for column in rows.columns
    ]
    shown = pa.RecordBatch.from_arrays(columns, names=rows.schema.names)
    return [json.dumps(row, default=str)[:_RAW_CHARACTERS] for row in shown.to_pylist()]


def _filled(rows: RaggedRows, job: IngestJob) -> RaggedRows:
    """The rows with what is missing filled, except by the mean, which is not known yet."""
    fill = job.options.fill
    if (rows.observed is None and not rows.elements) or fill in ("zero", "mean"):
        return rows
    values = dict(rows.values)
    for feature in job.schema.sequences:
        observed = rows.observed_of(feature.name)
        if feature.encoding == NUMBERS and not feature.label and observed is not None:
            flat = values[feature.name]
            values[feature.name] = fill_missing(flat, observed, rows.lengths, fill)
    return replace(rows, values=values)


def _sorted_by_length(
    packed: pa.RecordBatch, lengths: np.ndarray, splits: np.ndarray
) -> pa.RecordBatch:
    combined = splits.astype(np.int64) * (int(lengths.max()) + 1) + lengths
    # Sorting integers of sixteen bits takes a fraction of the time.
    small = combined.astype(np.uint16) if combined.max() < 1 << 16 else combined
    return packed.take(pa.array(np.argsort(small, kind="stable")))
