"""The length histogram: the only statistic that the choice of buckets needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import apache_beam as beam
import numpy as np

Histogram = Mapping[int, int]


def length_histogram(lengths: np.ndarray | Iterable[int]) -> dict[int, int]:
    """Counts rows by length.

    Args:
        lengths: (n,) integers >= 0, steps of each row.

    Returns:
        length -> rows, ascending, without zeros.

    Example:
        >>> length_histogram([3, 5, 3])
        {3: 2, 5: 1}
    """
    lengths = np.asarray(lengths if isinstance(lengths, np.ndarray) else list(lengths))
    if lengths.size == 0:
        return {}
    values, counts = np.unique(lengths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def merge_histograms(histograms: Iterable[Histogram]) -> dict[int, int]:
    """Adds histograms up; the order does not matter.

    Example:
        >>> merge_histograms([{3: 2}, {5: 1, 3: 1}])
        {3: 3, 5: 1}
    """
    merged: dict[int, int] = {}
    for histogram in histograms:
        for length, rows in histogram.items():
            merged[length] = merged.get(length, 0) + rows
    return dict(sorted(merged.items()))


class LengthHistogram(beam.CombineFn):
    """Combines arrays of lengths, `(n,)` integers, into one histogram.

    Example:
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ...     _ = (pipeline | beam.Create([np.array([3, 5]), np.array([3])])
        ...          | beam.CombineGlobally(LengthHistogram()) | beam.Map(print))
        {3: 2, 5: 1}
    """

    def create_accumulator(self) -> dict[int, int]:
        return {}

    def add_input(self, mutable_accumulator: dict[int, int], element: np.ndarray) -> dict[int, int]:
        return merge_histograms([mutable_accumulator, length_histogram(element)])

    def merge_accumulators(self, accumulators: Iterable[dict[int, int]]) -> dict[int, int]:
        return merge_histograms(accumulators)

    def extract_output(self, accumulator: dict[int, int]) -> dict[int, int]:
        return accumulator
