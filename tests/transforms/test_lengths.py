"""The length histogram: the same however the rows are cut up and merged."""

from collections import Counter
from itertools import chain

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.transforms import LengthHistogram, length_histogram, merge_histograms

LENGTHS = st.lists(st.integers(0, 30), max_size=40)


@given(LENGTHS)
def test_rows_are_counted_by_length(lengths):
    expected = dict(sorted(Counter(lengths).items()))

    for given_as in (lengths, tuple(lengths), np.array(lengths, np.int32), iter(lengths)):
        histogram = length_histogram(given_as)
        assert list(histogram.items()) == list(expected.items())
        assert all(type(n) is int for item in histogram.items() for n in item)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_lengths_may_be_of_any_integer_type(dtype):
    assert length_histogram(np.array([200, 3, 200], dtype).astype(dtype)) == {3: 1, 200: 2}


@given(st.lists(LENGTHS, max_size=5), st.randoms())
def test_merging_in_any_order_gives_the_histogram_of_all_rows(parts, random):
    histograms = [length_histogram(part) for part in parts]
    random.shuffle(histograms)

    merged = merge_histograms(histograms)

    assert list(merged.items()) == list(length_histogram(chain(*parts)).items())


@given(st.lists(LENGTHS, min_size=1, max_size=6), st.randoms())
def test_the_combiner_gives_the_same_for_any_tree_of_merges(parts, random):
    combine = LengthHistogram()
    accumulators = []
    for part in parts:
        accumulator = combine.create_accumulator()
        cut = random.randint(0, len(part))
        for batch in (part[:cut], part[cut:]):
            accumulator = combine.add_input(accumulator, np.array(batch, np.int64))
        accumulators.append(accumulator)
    while len(accumulators) > 1:
        random.shuffle(accumulators)
        size = random.randint(2, len(accumulators))
        merged = combine.merge_accumulators(accumulators[:size])
        accumulators = [combine.compact(merged), *accumulators[size:]]

    assert combine.extract_output(accumulators[0]) == length_histogram(chain(*parts))


def test_the_combiner_runs_in_a_pipeline():
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        batches = [np.array([3, 5]), np.array([], np.int64), np.array([3, 0])]
        histogram = pipeline | beam.Create(batches) | beam.CombineGlobally(LengthHistogram())
        assert_that(histogram, equal_to([{0: 1, 3: 2, 5: 1}]))
