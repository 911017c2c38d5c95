"""The exchange: from rows in the order of the input to shards in the order of row keys.

The key of the GroupByKey is (split, bucket, shard), so a bucket that holds most rows is spread over
all workers. Two things can travel through it, with the same shards in the end:

    spill    (unit, slices of its chunks): the rows stay where ingesting left them, and the worker
             that writes a shard maps them; for local runners, whose GroupByKey is in memory
    engine   (unit, rows): packed, unpadded, as Arrow IPC; for runners with a shuffle of their own
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from lengthwise.dataset.canonical import FramedRecords
from lengthwise.dataset.manifest import Shard, shard_name
from lengthwise.dataset.plan import Plan
from lengthwise.dataset.schema import LENGTH
from lengthwise.pipeline.staging import (
    read_reports,
    shard_report_path,
    unit_report_path,
    unit_rows_path,
    write_report,
)
from lengthwise.pipeline.strings import with_ids
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.transforms.encoding import encode_block
from lengthwise.transforms.normalization import normalize
from lengthwise.transforms.packing import KEY, unpack_rows
from lengthwise.transforms.ragged import RaggedRows
from lengthwise.transforms.row_keys import assign_shards
from lengthwise.transforms.writing import write_shard

# Bytes of records that are encoded at once.
_BLOCK_BYTES = 2 << 20
# Units that are mapped at once: each takes a file descriptor.
_MAPPED_UNITS = 128
DATA = "data"

ShardKey = tuple[str, int, int]
Slice = tuple[int, int, int]


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
    """

    plan: Plan
    counts: dict[tuple[str, int], int]
    storage: dict[str, str]
    staging: str
    shards: Path
    exchange: str = "spill"


def exchange(pipeline: beam.Pipeline, units: int, job: ExchangeJob) -> None:
    """Adds the steps that write every shard that has no report yet."""
    _ = (
        pipeline
        | "ListUnits" >> beam.Create(range(units))
        | "ReferToRows" >> beam.FlatMap(refer_to_rows, job)
        | "GroupByShard" >> beam.GroupByKey()
        | "WriteShard" >> beam.Map(write_shard_of, job)
    )


def refer_to_rows(number: int, job: ExchangeJob) -> Iterator[tuple[ShardKey, Any]]:
    """The slices of a unit's chunks that each shard takes rows from."""
    document = read_reports([unit_report_path(job.staging, number)])[0]
    report = UnitReport.from_json(document)
    slices: dict[tuple[str, int], list[Slice]] = {}
    for chunk, runs in enumerate(report.chunks):
        first = 0
        ends = np.searchsorted(job.plan.max_lengths, [length for _, length, _ in runs])
        for (split, _, rows), bucket in zip(runs, ends.tolist(), strict=True):
            own = slices.setdefault((report.splits[split], job.plan.max_lengths[bucket]), [])
            if own and own[-1][0] == chunk and own[-1][2] == first:
                own[-1] = (chunk, own[-1][1], first + rows)
            else:
                own.append((chunk, first, first + rows))
            first += rows
    for (split, max_length), own in slices.items():
        for index in range(job.counts[split, max_length]):
            shard = (split, max_length, index)
            if not shard_report_path(job.shards, shard).is_file():
                if job.exchange == "engine":
                    rows = _rows_of(shard, [(number, own)], job.counts[split, max_length], job)
                    if rows is not None:
                        yield shard, (number, _to_bytes(rows))
                else:
                    yield shard, (number, own)


def write_shard_of(group: tuple[ShardKey, Iterable[tuple[int, Any]]], job: ExchangeJob) -> None:
    """Writes a shard: its rows in the order of their keys, padded, masked and encoded."""
    shard, references = group
    split, max_length, index = shard
    count = job.counts[split, max_length]
    in_order = sorted(references, key=lambda reference: reference[0])
    if job.exchange == "engine":
        rows = pa.concat_batches([_from_bytes(block) for _, block in in_order])
    else:
        rows = _rows_of(shard, in_order, count, job)
    if rows is not None:
        layout = job.plan.layout(max_length)
        order = _order(rows)
        block_rows = max(1, _BLOCK_BYTES // layout.stride)

        def blocks() -> Iterator[np.ndarray | FramedRecords]:
            for first in range(0, len(order), block_rows):
                block = rows.take(pa.array(order[first : first + block_rows]))
                unpacked = unpack_rows(block, job.plan.schema, job.storage)
                yield encode_block(
                    finished(unpacked, job.plan),
                    job.plan.schema,
                    layout,
                    side=job.plan.options.padding,
                    pad_value=job.plan.options.pad_value,
                )

        compression = job.plan.options.compression
        name = shard_name(split, max_length, index, count, compression=compression)
        written = write_shard(job.shards / DATA / name, blocks(), compression=compression)
        steps = int(rows.column(LENGTH).to_numpy().sum(dtype=np.int64))
        report = [written.records, steps, written.nbytes, written.crc32c]
    else:
        report = [0, 0, 0, 0]
    path = shard_report_path(job.shards, shard)
    write_report(path, {"shard": [split, max_length, index, count, *report]})


def _order(rows: pa.RecordBatch) -> np.ndarray:
    """Positions of rows in the order of their keys.

    Rows of a file never share a key, but rows of two files or pieces of split rows can. Their
    lengths break the tie, then their order in the input, which the chunks keep for equal lengths.
    """
    keys = rows.column(KEY).to_numpy()
    order = np.argsort(keys, kind="stable")
    if (keys[order[1:]] == keys[order[:-1]]).any():
        return np.lexsort((rows.column(LENGTH).to_numpy(), keys))
    return order


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
    """The shards that were written, sorted, without empty ones."""
    compression = job.plan.options.compression
    shards = [
        Shard(*document["shard"], compression=compression)
        for document in read_reports(_report_paths(job))
    ]
    return tuple(shard for shard in shards if shard.records)


def forget_lost_shards(job: ExchangeJob) -> None:
    """Deletes the reports of shards that are not where they should be, so that they are written."""
    for path in _report_paths(job):
        for document in read_reports([path]):
            shard = Shard(*document["shard"], compression=job.plan.options.compression)
            file = job.shards / DATA / shard.name
            if shard.records and not (file.is_file() and file.stat().st_size == shard.nbytes):
                path.unlink()


def _report_paths(job: ExchangeJob) -> list[Path]:
    return [
        shard_report_path(job.shards, (split, max_length, index))
        for (split, max_length), count in sorted(job.counts.items())
        for index in range(count)
    ]


def _rows_of(
    shard: ShardKey, references: list[tuple[int, list[Slice]]], count: int, job: ExchangeJob
) -> pa.RecordBatch | None:
    """All rows of a shard, in the order of units and chunks."""
    copied: list[pa.RecordBatch] = []
    for first_unit in range(0, len(references), _MAPPED_UNITS):
        pieces = []
        for number, slices in references[first_unit : first_unit + _MAPPED_UNITS]:
            reader = pa.ipc.open_file(_mapped(unit_rows_path(job.staging, number)))
            for chunk, first, end in slices:
                piece = reader.get_batch(chunk).slice(first, end - first)
                if count > 1:
                    mine = assign_shards(piece.column(KEY).to_numpy(), count) == shard[2]
                    piece = piece.take(pa.array(np.flatnonzero(mine)))
                if job.plan.schema.strings:
                    piece = with_ids(piece, number, job.plan, job.staging)
                if piece.num_rows:
                    pieces.append(piece)
        if pieces:
            copied.append(pa.concat_batches(pieces))
    return pa.concat_batches(copied) if copied else None


def _mapped(path: Path) -> pa.Buffer:
    """A file in memory. Arrow's own mapping asks the kernel for each whole chunk ahead of time."""
    with open(path, "rb") as file:
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _to_bytes(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


def _from_bytes(block: bytes) -> pa.RecordBatch:
    return pa.ipc.open_stream(block).read_next_batch()
