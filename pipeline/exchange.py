"""The exchange: from rows in the order of the input to shards in the order of row keys.

The key of the GroupByKey is (split, bucket, shard), so a bucket that holds most rows is spread over
all workers. Two things can travel through it, with the same shards in the end:

    spill    (unit, position, rows): the rows stay where ingesting left them, and the worker that
             writes a shard maps them; for local runners, whose GroupByKey is in memory
    engine   (unit, rows): packed, unpadded, as Arrow IPC; for runners with a shuffle of their own
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from lengthwise.dataset.canonical import FramedRecords
from lengthwise.dataset.plan import Plan
from lengthwise.dataset.schema import LENGTH, Feature
from lengthwise.dataset.shard import Shard, shard_name
from lengthwise.dataset.storage import StoragePath, files_below
from lengthwise.pipeline.staged_rows import StagedRows, StagedUnit, by_shard
from lengthwise.pipeline.staging import (
    read_reports,
    shard_report_path,
    unit_report_path,
    write_report,
)
from lengthwise.pipeline.strings import id_tables, with_ids
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.pipeline.versions import CheckVersions
from lengthwise.pipeline.worker_counts import count_on_worker
from lengthwise.transforms.encoding import RowEncoder
from lengthwise.transforms.normalization import normalize
from lengthwise.transforms.packing import KEY, unpack_rows, value_column
from lengthwise.transforms.ragged import RaggedRows
from lengthwise.transforms.row_keys import assign_shards
from lengthwise.transforms.row_places import concat_places, gather_rows, places_of, take_places
from lengthwise.transforms.writing import write_shard

# Bytes of records that are encoded at once.
_BLOCK_BYTES = 4 << 20
DATA = "data"

ShardKey = tuple[str, int, int]


@dataclass(frozen=True)
class ExchangeJob:
    """What writing any shard of a build needs; travels to the workers.

    Attributes:
        plan: buckets and layouts.
        counts: (split, max_length) -> number of shards.
        storage: feature -> numpy dtype of the packed values.
        staging: the staging folder.
        shards: folder of the reports of shards; the shards go to `data` below it.
        exchange: `spill` sends references to rows through the GroupByKey, `engine` the rows.
        finished: shards that are there already, from a run that was killed.
    """

    plan: Plan
    counts: dict[tuple[str, int], int]
    storage: dict[str, str]
    staging: str
    shards: StoragePath
    exchange: str = "spill"
    finished: frozenset[ShardKey] = frozenset()

    @cached_property
    def keys(self) -> list[ShardKey]:
        """All shards, in order."""
        return [
            (split, max_length, index)
            for (split, max_length), count in sorted(self.counts.items())
            for index in range(count)
        ]

    @cached_property
    def first_keys(self) -> dict[tuple[str, int], int]:
        """(split, max_length) -> position of its first shard in `keys`."""
        return {key[:2]: at for at, key in enumerate(self.keys) if key[2] == 0}


def exchange(pipeline: beam.Pipeline, units: int, job: ExchangeJob) -> None:
    """Adds the steps that write every shard that is not finished yet."""
    _ = (
        pipeline
        | "ListUnits" >> beam.Create(range(units))
        | "CheckVersions" >> CheckVersions()
        | "ReferToRows" >> beam.FlatMap(refer_to_rows, job)
        | "GroupByShard" >> beam.GroupByKey()
        | "CheckVersionsOfWriters" >> CheckVersions()
        | "WriteShard" >> beam.ParDo(WriteShard(job))
    )


def refer_to_rows(number: int, job: ExchangeJob) -> Iterator[tuple[ShardKey, Any]]:
    """The rows of a unit that each shard takes: where they are, or (`engine`) the rows."""
    report = UnitReport.from_json(next(read_reports([unit_report_path(job.staging, number)])))
    if not report.chunks:
        return
    unit = StagedUnit(job.staging, number)
    chunks = _chunks_with_shards(unit, number, report, job)
    if job.exchange == "engine":
        kept, numbers = zip(*chunks, strict=True)
        places, runs = by_shard([places_of(rows) for rows in kept], numbers)
        for shard, first, end in runs:
            yield job.keys[shard], (number, _to_bytes(gather_rows(places[first:end])))
    else:
        for shard, reference in unit.write_places(chunks, job.shards):
            yield job.keys[shard], reference


def _chunks_with_shards(
    unit: StagedUnit, number: int, report: UnitReport, job: ExchangeJob
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Chunks of a unit, strings as ids, and for each row the number of its shard.

    The number is the position of the shard in `job.keys`, or -1 if that is finished.
    """
    finished = np.array([shard in job.finished for shard in job.keys])
    tables = id_tables(number, job.plan, job.staging)
    for rows, runs in zip(unit.chunks(), report.chunks, strict=True):
        buckets = np.searchsorted(job.plan.max_lengths, [length for _, length, _ in runs])
        groups = [
            (report.splits[split], job.plan.max_lengths[bucket])
            for (split, _, _), bucket in zip(runs, buckets.tolist(), strict=True)
        ]
        repeats = [rows for _, _, rows in runs]
        firsts = np.repeat([job.first_keys[group] for group in groups], repeats)
        counts = np.repeat([job.counts[group] for group in groups], repeats)
        shards = firsts + assign_shards(rows.column(KEY).to_numpy(), counts)
        shards[finished[shards]] = -1
        yield with_ids(rows, job.plan.schema, tables), shards


class WriteShard(beam.DoFn):
    """Writes shards.

    Input: shard and what `refer_to_rows` gives for it. Output: none; a report in the staging
    folder.
    """

    def __init__(self, job: ExchangeJob) -> None:
        self._job = job

    def start_bundle(self) -> None:
        self._staged = StagedRows(self._job.staging, self._job.shards)

    def process(self, element: tuple[ShardKey, Iterable[Any]]) -> None:
        write_shard_of(element, self._job, self._staged)

    def finish_bundle(self) -> None:
        # Files that are mapped keep their disk space even when they are deleted.
        del self._staged


def write_shard_of(
    group: tuple[ShardKey, Iterable[Any]], job: ExchangeJob, staged: StagedRows
) -> None:
    """Writes a shard: its rows in the order of their keys, padded, masked and encoded."""
    shard, references = group
    split, max_length, index = shard
    count = job.counts[split, max_length]
    # What places refer to lives as long as `_held`.
    places, _held = _places_of_shard(sorted(references), job, staged)
    order = _order(places)
    layout = job.plan.layout(max_length)
    encoder = RowEncoder(
        job.plan.schema,
        layout,
        side=job.plan.options.padding,
        pad_value=job.plan.options.pad_value,
    )
    block_rows = max(1, _BLOCK_BYTES // layout.stride)
    as_they_are = {value_column(feature): feature.name for feature in _staged_as_written(job.plan)}
    others = [name for name in places.dtype.names or () if name not in as_they_are]

    def blocks() -> Iterator[np.ndarray | FramedRecords]:
        for first in range(0, len(order), block_rows):
            block = take_places(places, order[first : first + block_rows])
            rows = unpack_rows(gather_rows(block[others]), job.plan.schema, job.storage)
            elsewhere = {name: block[column] for column, name in as_they_are.items()}
            yield encoder.encode(finished(rows, job.plan), elsewhere)

    compression = job.plan.options.compression
    name = shard_name(split, max_length, index, count, compression=compression)
    written = write_shard(job.shards / DATA / name, blocks(), compression=compression)
    steps = int(places[LENGTH].sum(dtype=np.int64))
    report = [written.records, steps, written.nbytes, written.crc32c]
    path = shard_report_path(job.shards, shard)
    write_report(path, {"shard": [split, max_length, index, count, *report]})
    count_on_worker("shards")


def _places_of_shard(
    references: list[Any], job: ExchangeJob, staged: StagedRows
) -> tuple[np.ndarray, list[Any]]:
    """The places of the rows of a shard, in the order of the input, and what they refer to."""
    if job.exchange == "engine":
        blocks = [_from_bytes(block) for _, block in references]
        return concat_places([places_of(rows) for rows in blocks]), blocks
    return staged.places(references)


def _order(places: np.ndarray) -> np.ndarray:
    """Positions of places in the order of their keys.

    Rows of a file never share a key, but rows of two files or pieces of split rows can. Their
    lengths break the tie, then their order in the input, which the chunks keep for equal lengths.
    """
    keys = places[KEY]
    order = np.argsort(keys)
    in_order = keys[order]
    if (in_order[1:] == in_order[:-1]).any():
        return np.lexsort((places[LENGTH], keys))
    return order


def _staged_as_written(plan: Plan) -> list[Feature]:
    """The sequences whose staged bytes are those of the records."""
    return [
        feature
        for feature in plan.schema.sequences
        if feature.dtype == "float32"
        and not feature.element_mask
        and feature.name not in plan.means
        and feature.name not in plan.normalizations
    ]


def finished(rows: RaggedRows, plan: Plan) -> RaggedRows:
    """The rows with what only the plan knows: means where values miss, then normalised values."""
    if not (plan.means or plan.normalizations):
        return rows
    values = dict(rows.values)
    for name, means in plan.means.items():
        if rows.observed_of(name) is not None:
            by_element = np.array(means, np.float32).reshape(plan.schema[name].shape)
            values[name] = np.where(rows.elements_of(name), values[name], by_element)
    for name, constants in plan.normalizations.items():
        values[name] = normalize(values[name], constants)
    return replace(rows, values=values)


def written_shards(job: ExchangeJob) -> tuple[Shard, ...]:
    """The shards that were written, sorted."""
    paths = [shard_report_path(job.shards, key) for key in job.keys]
    return tuple(
        Shard(*document["shard"], compression=job.plan.options.compression)
        for document in read_reports(paths)
    )


def finished_shards(job: ExchangeJob) -> dict[ShardKey, Shard]:
    """The shards that an earlier run finished, and that are still where they should be."""
    there = files_below(job.shards / DATA)
    return {
        (shard.split, shard.max_length, shard.index): shard
        for shard in written_shards(job)
        if there.get(shard.name) == shard.nbytes
    }


def _to_bytes(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


def _from_bytes(block: bytes) -> pa.RecordBatch:
    return pa.ipc.open_stream(block).read_next_batch()
