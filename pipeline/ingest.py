"""From a unit of the input to packed rows: read, validate, draw the split, measure, sort.

A unit is decoded once, in batches of bounded size. Each batch becomes one chunk of packed rows,
sorted by (split, length): whatever buckets the plan chooses later, the rows of a bucket are a
contiguous piece of each chunk, so choosing them never moves a byte.

    chunk 0  | train: 3 4 4 7 9 … 512 | val: 5 5 8 … |     a bucket (8, 16] of train is one slice
    chunk 1  | train: 2 2 6 8 8 … 498 | val: 3 9 …   |     of each chunk
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, LengthwiseError
from lengthwise.dataset.plan import PlanOptions
from lengthwise.dataset.schema import Schema
from lengthwise.pipeline.accounts import Tally, merge_tallies, tally_by_split
from lengthwise.pipeline.sources import Unit, read_unit
from lengthwise.pipeline.staging import unit_report_path, unit_rows_path, write_report
from lengthwise.transforms.lengths import merge_histograms
from lengthwise.transforms.packing import pack_rows
from lengthwise.transforms.ragged import EMPTY, OVERLONG, REASONS, RaggedRows, ragged_rows
from lengthwise.transforms.row_keys import assign_splits, row_keys
from lengthwise.transforms.statistics import Summary, summarize
from lengthwise.transforms.writing import TEMPORARY_PREFIX

# Faulty rows that a unit's report names.
_NAMED_FAULTS = 5


@dataclass(frozen=True)
class IngestJob:
    """What ingesting any unit of a build needs; travels to the workers.

    Attributes:
        schema: the features.
        storage: feature -> numpy dtype of the packed values.
        options: seed, splits and what becomes of empty and overlong rows.
        splits: names of all splits, ascending.
        staging: the staging folder.
        keep_rows: False only measures.
        batch_rows: rows of a reading batch; None bounds its bytes.
    """

    schema: Schema
    storage: dict[str, str]
    options: PlanOptions
    splits: tuple[str, ...]
    staging: str
    keep_rows: bool = True
    batch_rows: int | None = None


@dataclass
class UnitReport:
    """What ingesting a unit found.

    Attributes:
        tallies: split -> counts of rows.
        faults: (row number in the file, reason) of the first faulty rows.
        histograms: split -> length -> rows passed on.
        summaries: feature -> summary.
        chunks: for each chunk of packed rows, [(position of the split, length, rows), …].
        error: why the unit could not be read at all.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)
    histograms: dict[str, dict[int, int]] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    chunks: list[list[tuple[int, int, int]]] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "tallies": {split: tally.to_json() for split, tally in self.tallies.items()},
            "faults": self.faults,
            "histograms": self.histograms,
            "summaries": {name: summary.to_json() for name, summary in self.summaries.items()},
            "chunks": self.chunks,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> UnitReport:
        return cls(
            tallies={split: Tally(**tally) for split, tally in document["tallies"].items()},
            faults=[(row, reason) for row, reason in document["faults"]],
            histograms={
                split: {int(length): rows for length, rows in histogram.items()}
                for split, histogram in document["histograms"].items()
            },
            summaries={
                name: Summary.from_json(summary) for name, summary in document["summaries"].items()
            },
            chunks=[[tuple(run) for run in chunk] for chunk in document["chunks"]],
            error=document["error"],
        )


def ingest_unit(numbered: tuple[int, Unit], job: IngestJob) -> None:
    """Ingests a unit and leaves its packed rows and its report in the staging folder.

    An input that cannot be read is reported, not raised: runners would only try again.
    """
    number, unit = numbered
    try:
        report = _ingest(number, unit, job)
    except LengthwiseError as reason:
        report = UnitReport(error=str(reason))
    write_report(unit_report_path(job.staging, number), report.to_json())


def _ingest(number: int, unit: Unit, job: IngestJob) -> UnitReport:
    report = UnitReport()
    with _rows_file(unit_rows_path(job.staging, number)) as file:
        writer = None
        first_row = unit.first_row
        for batch in read_unit(unit, job.schema.names, batch_rows=job.batch_rows):
            rows, splits = _usable(batch, unit, first_row, job, report)
            first_row += batch.num_rows
            if len(rows) == 0:
                continue
            chunk = _measure(rows, splits, job, report)
            if job.keep_rows:
                packed = _sorted_by_length(pack_rows(rows, job.schema), rows.lengths, splits)
                if writer is None:
                    writer = pa.ipc.new_file(file, packed.schema)
                writer.write_batch(packed)
                report.chunks.append(chunk)
        if writer is not None:
            writer.close()
        if first_row != unit.first_row + unit.rows:
            raise InputError(
                f"{unit.file.path}: row group {unit.row_group} holds "
                f"{first_row - unit.first_row} rows, its footer says {unit.rows}"
            )
    return report


@contextmanager
def _rows_file(path: Path) -> Iterator[pa.OSFile]:
    """A file that has its name only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _usable(
    batch: pa.RecordBatch, unit: Unit, first_row: int, job: IngestJob, report: UnitReport
) -> tuple[RaggedRows, np.ndarray]:
    """The rows that are passed on, and their splits (n,) uint8; counts all of the batch."""
    options = job.options
    keys = row_keys(options.seed, unit.file.name, first_row, batch.num_rows)
    if unit.file.split is None:
        fractions = {name: options.splits[name] for name in sorted(options.splits)}
        drawn = assign_splits(keys, fractions)
        splits = np.array([job.splits.index(name) for name in fractions], np.uint8)[drawn]
    else:
        splits = np.full(batch.num_rows, job.splits.index(unit.file.split), np.uint8)
    rows, fates = ragged_rows(batch, job.schema, storage=job.storage, keys=keys)
    usable = np.flatnonzero(fates == 0)
    fates[usable[rows.lengths == 0]] = EMPTY
    if options.max_length is not None and options.overlong in ("error", "drop"):
        fates[usable[rows.lengths > options.max_length]] = OVERLONG
    dropped = [EMPTY] if options.empty == "drop" else []
    dropped += [OVERLONG] if options.overlong == "drop" else []
    if fates.any():
        passed = fates[usable] == 0
        if not passed.all():
            rows = rows.select(np.flatnonzero(passed))
        rejected = np.flatnonzero((fates != 0) & ~np.isin(fates, dropped))
        room = _NAMED_FAULTS - len(report.faults)
        report.faults += [(first_row + int(r), REASONS[fates[r]]) for r in rejected[:room]]
    if options.max_length is not None and (rows.lengths > options.max_length).any():
        rows = rows.truncated(options.max_length, keep_end=options.overlong == "truncate_start")
    tallies = tally_by_split(splits, fates, dropped, job.splits)
    report.tallies = merge_tallies([report.tallies, tallies])
    return rows, splits[fates == 0]


def _measure(
    rows: RaggedRows, splits: np.ndarray, job: IngestJob, report: UnitReport
) -> list[tuple[int, int, int]]:
    """Adds rows to the statistics; returns the runs of (split, length, rows) when sorted."""
    combined = splits.astype(np.int64) << 32 | rows.lengths
    distinct, counts = np.unique(combined, return_counts=True)
    runs = [
        (key >> 32, key & 0xFFFFFFFF, n)
        for key, n in zip(distinct.tolist(), counts.tolist(), strict=True)
    ]
    for split in {run[0] for run in runs}:
        name = job.splits[split]
        own = {length: n for s, length, n in runs if s == split}
        report.histograms[name] = merge_histograms([report.histograms.get(name, {}), own])
    ones = np.ones(len(rows), np.int64)
    for feature in job.schema.features:
        if feature.sequence:
            values, lengths, observed = rows.values[feature.name], rows.lengths, rows.observed
        else:
            values, lengths, observed = rows.contexts[feature.name], ones, None
        summary = summarize(values, lengths, feature, observed)
        previous = report.summaries.get(feature.name, Summary())
        report.summaries[feature.name] = previous.merged(summary)
    return runs


def _sorted_by_length(
    packed: pa.RecordBatch, lengths: np.ndarray, splits: np.ndarray
) -> pa.RecordBatch:
    return packed.take(pa.array(np.lexsort((lengths, splits))))
