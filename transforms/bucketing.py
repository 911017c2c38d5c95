"""Which bucket a row belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import PValue

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.options import check_max_lengths
from lengthwise.dataset.schema import Schema
from lengthwise.transforms.ragged import single_batch, usable_rows


def assign_buckets(lengths: np.ndarray, max_lengths: Sequence[int]) -> np.ndarray:
    """Finds the bucket of each row: the first whose max_length is not below the row's length.

    Args:
        lengths: (n,) integers, steps of each row.
        max_lengths: inclusive, ascending.

    Returns:
        (n,) int64 bucket ids; `len(max_lengths)` for rows longer than the last bucket.

    Example:
        >>> assign_buckets(np.array([1, 8, 9, 17]), [8, 16])
        array([0, 0, 1, 2])
    """
    return np.searchsorted(np.asarray(max_lengths), lengths, side="left")


class BucketByLength(beam.PTransform):
    """Sorts the rows of Arrow batches into buckets, without a shuffle.

    A bucket is no key: most rows often fall into one, and grouping by it would send them all to
    one worker. This transform only splits each batch; add your own shards before you group.

    Input: `pa.RecordBatch` or `pa.Table`, as `beam.io.ReadFromParquetBatched` gives.
    Output: `(max_length, pa.RecordBatch)`, batches of the same columns, all rows of one bucket.

    Args:
        max_lengths: inclusive, ascending.
        schema: the features; their sequence columns must have equal lengths in each row.
        overlong: `error` or `drop` rows longer than the last bucket.

    Metrics (namespace `lengthwise`): counters `rows_bucketed`, `rows_dropped_overlong`,
        `rows_dropped_empty`.

    Raises:
        InputError: a row cannot be used, or is overlong with `overlong="error"`.

    Example:
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> batch = pa.table({"tokens": [[1, 2], [3], [4, 5, 6, 7]]})
        >>> with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ...     _ = (pipeline | beam.Create([batch])
        ...          | BucketByLength([2, 4], schema=Schema.from_arrow(batch.schema))
        ...          | beam.MapTuple(lambda t, rows: print(t, rows["tokens"].to_pylist())))
        2 [[1, 2], [3]]
        4 [[4, 5, 6, 7]]
    """

    def __init__(
        self, max_lengths: Sequence[int], *, schema: Schema, overlong: str = "error"
    ) -> None:
        super().__init__()
        check_max_lengths(tuple(max_lengths), place="max_lengths")
        if overlong not in ("error", "drop"):
            raise ValueError(f"overlong must be 'error' or 'drop', got {overlong!r}")
        self._options = (tuple(max_lengths), schema, overlong)

    def expand(self, input_or_inputs: beam.PCollection) -> PValue:
        return input_or_inputs | "SplitByBucket" >> beam.FlatMap(_split_batch, *self._options)


def _split_batch(
    batch: pa.RecordBatch | pa.Table, max_lengths: tuple[int, ...], schema: Schema, overlong: str
) -> Iterator[tuple[int, pa.RecordBatch]]:
    rows = usable_rows(batch, schema)
    buckets = assign_buckets(rows.lengths, max_lengths)
    too_long = buckets == len(max_lengths)
    if too_long.any() and overlong == "error":
        row = int(np.flatnonzero(too_long)[0])
        raise InputError(
            f"row {row} of a batch has {rows.lengths[row]} steps, the last bucket ends at "
            f"{max_lengths[-1]}; add a bucket, or give overlong='drop'"
        )
    empty = rows.lengths == 0
    _count("rows_dropped_overlong", int(too_long.sum()))
    _count("rows_dropped_empty", int(empty.sum()))
    for bucket in np.unique(buckets[~too_long & ~empty]).tolist():
        chosen = np.flatnonzero((buckets == bucket) & ~empty)
        _count("rows_bucketed", len(chosen))
        yield max_lengths[bucket], single_batch(batch.take(pa.array(chosen)))


def _count(name: str, rows: int) -> None:
    beam.metrics.Metrics.counter("lengthwise", name).inc(rows)
