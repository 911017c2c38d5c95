"""Bucketing: inclusive ends, no row lost, none in two buckets."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import PlanError, Schema
from lengthwise.transforms import BucketByLength, assign_buckets

TABLE = pa.table(
    {
        "tokens": [[1, 2], [3], [4, 5, 6, 7], [], [8, 9, 10], list(range(9)), [11, 12, 13, 14]],
        "id": [0, 1, 2, 3, 4, 5, 6],
        "text": list("abcdefg"),
    }
)
SCHEMA = Schema.from_arrow(TABLE.schema, sequences=["tokens"], contexts=["id"])


@given(
    st.lists(st.integers(0, 50), max_size=30),
    st.sets(st.integers(1, 40), min_size=1, max_size=6).map(sorted),
    st.sampled_from([np.uint8, np.int32, np.int64]),
)
def test_a_row_goes_into_the_first_bucket_that_holds_it(lengths, max_lengths, dtype):
    expected = [
        next((i for i, end in enumerate(max_lengths) if length <= end), len(max_lengths))
        for length in lengths
    ]

    buckets = assign_buckets(np.array(lengths, dtype), max_lengths)

    assert buckets.dtype == np.int64
    assert buckets.tolist() == expected


def test_ends_of_buckets_are_inclusive():
    assert assign_buckets(np.array([0, 1, 8, 9, 16, 17]), [8, 16]).tolist() == [0, 0, 0, 1, 1, 2]


def run(batches, expected, *args, **options):
    """Runs the transform, checks what it puts out in any order, and returns its counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    buckets = (
        pipeline
        | beam.Create(batches)
        | BucketByLength(*args, **options)
        | beam.MapTuple(lambda t, rows: (t, rows.to_pydict()))
    )
    assert_that(buckets, equal_to(expected))
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("lengthwise"))
    return {counter.key.metric.name: counter.committed for counter in counters["counters"]}


def test_batches_are_split_by_bucket_and_keep_all_columns_and_the_order_of_rows():
    expected = [
        (2, {"tokens": [[1, 2], [3]], "id": [0, 1], "text": ["a", "b"]}),
        (4, {"tokens": [[4, 5, 6, 7], [8, 9, 10]], "id": [2, 4], "text": ["c", "e"]}),
    ]

    counters = run([TABLE.slice(0, 5)], expected, [2, 4], schema=SCHEMA)

    assert counters == {"rows_bucketed": 4, "rows_dropped_overlong": 0, "rows_dropped_empty": 1}


def test_overlong_rows_are_dropped_and_counted():
    batches = [TABLE.slice(0, 4).to_batches()[0], TABLE.slice(4)]
    expected = [
        (2, {"tokens": [[1, 2], [3]], "id": [0, 1], "text": ["a", "b"]}),
        (4, {"tokens": [[4, 5, 6, 7]], "id": [2], "text": ["c"]}),
        (4, {"tokens": [[8, 9, 10], [11, 12, 13, 14]], "id": [4, 6], "text": ["e", "g"]}),
    ]

    counters = run(batches, expected, [2, 4], schema=SCHEMA, overlong="drop")

    assert counters == {"rows_bucketed": 5, "rows_dropped_overlong": 1, "rows_dropped_empty": 1}


def test_overlong_rows_are_an_error_unless_dropped():
    with pytest.raises(Exception, match="row 5 of a batch has 9 steps, the last bucket ends at 4"):
        run([TABLE], [], [2, 4], schema=SCHEMA)


def test_rows_that_cannot_be_used_are_an_error():
    batch = pa.table({"tokens": [[1], None], "id": [0, 1]})

    with pytest.raises(Exception, match="row 1 of a batch: null sequence; filter such rows out"):
        run([batch], [], [2], schema=SCHEMA)


def test_a_batch_without_the_columns_is_an_error():
    with pytest.raises(Exception, match="no column 'id' in the input"):
        run([pa.table({"tokens": [[1]]})], [], [2], schema=SCHEMA)


def test_empty_batches_give_nothing():
    assert set(run([TABLE.slice(0, 0)], [], [2], schema=SCHEMA).values()) <= {0}


@pytest.mark.parametrize("max_lengths", [[], [4, 2], [0, 4], [4, 4]])
def test_boundaries_ascend(max_lengths):
    with pytest.raises(PlanError, match="max_lengths"):
        BucketByLength(max_lengths, schema=SCHEMA)


def test_the_policy_for_overlong_rows_is_one_of_two():
    with pytest.raises(ValueError, match="overlong must be 'error' or 'drop', got 'keep'"):
        BucketByLength([4], schema=SCHEMA, overlong="keep")
