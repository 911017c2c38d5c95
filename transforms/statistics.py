"""Statistics of a feature that come out the same whatever the order in which they are merged.

Sums of floats depend on the order of addition, and with it on the number of workers. Here each
row is summed by itself in double precision, and the sums of rows are added *exactly*, as integers
in units of the smallest double: addition of integers is associative, so any order and any grouping
gives the same bits.

The variance is the mean square less the squared mean. Of its 16 digits it loses two for each factor
of ten by which the mean exceeds the deviation: subtract an offset from timestamps beforehand.

Source: the idea of an exact accumulator is from U. Kulisch, "Very fast and exact accumulation of
products", Computing 91 (2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from lengthwise.dataset.plan import FeatureStatistics
from lengthwise.dataset.schema import Feature
from lengthwise.transforms.lengths import merge_histograms

# Doubles are integers in units of 2**-1074.
_UNIT_EXPONENT = 1074
_MANTISSA_BITS = 53
_HALF_BITS = 27
# Values in one block: the double-precision copy of it stays in the second-level cache.
_BLOCK_VALUES = 1 << 17
_MOST_LABEL_VALUES = 4096


def exact_sum(values: np.ndarray) -> int:
    """The exact sum of doubles, in units of 2**-1074.

    Args:
        values: (n,) float64, finite, n below 2**26.

    Example:
        >>> exact_sum(np.array([1e300, 1.0, -1e300])) == 1 << 1074
        True
    """
    mantissas, exponents = np.frexp(values)
    integers = np.ldexp(mantissas, _MANTISSA_BITS).astype(np.int64)
    lowest = int(exponents.min(initial=1024))
    group = exponents - lowest
    # Halves of 27 bits: their sums stay below 2**53, where a double is exact.
    high = np.bincount(group, weights=integers >> _HALF_BITS)
    low = np.bincount(group, weights=integers & ((1 << _HALF_BITS) - 1))
    total = 0
    for exponent, (above, below) in enumerate(
        zip(high.tolist(), low.tolist(), strict=True), lowest
    ):
        part = (int(above) << _HALF_BITS) + int(below)
        shift = exponent - _MANTISSA_BITS + _UNIT_EXPONENT
        # Subnormal doubles end in zeros, so nothing is lost on the way right.
        total += part << shift if shift >= 0 else part >> -shift
    return total


@dataclass(frozen=True)
class Summary:
    """What is known of a feature after some of the rows; summaries merge in any order.

    Attributes:
        count, missing: values observed and not observed.
        total, squares: exact sums, in units of 2**-1074, of rows' sums of values and squares.
        low, high: smallest and largest observed value; None where there is none.
        values: value -> count for labels of integers; None where not counted or too many.
    """

    count: int = 0
    missing: int = 0
    total: int = 0
    squares: int = 0
    low: float | None = None
    high: float | None = None
    values: Mapping[int, int] | None = field(default_factory=dict)

    def merged(self, other: Summary) -> Summary:
        """The summary of the rows of both."""
        values = None
        if self.values is not None and other.values is not None:
            values = _bounded(merge_histograms([self.values, other.values]))
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Summary(
            count=self.count + other.count,
            missing=self.missing + other.missing,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            low=min(lows, default=None),
            high=max(highs, default=None),
            values=values,
        )

    def statistics(self, feature: Feature) -> FeatureStatistics:
        """Mean, variance and the rest, rounded once."""
        mean = variance = 0.0
        if self.count:
            unit = Fraction(1, 1 << _UNIT_EXPONENT)
            average = self.total * unit / self.count
            mean = float(average)
            variance = float(max(self.squares * unit / self.count - average**2, Fraction(0)))
        number = int if feature.dtype == "int64" else float
        counted = feature.label and feature.dtype == "int64"
        return FeatureStatistics(
            count=self.count,
            missing=self.missing,
            mean=mean,
            variance=variance,
            low=number(self.low or 0),
            high=number(self.high or 0),
            values=self.values if counted else None,
        )

    def to_json(self) -> dict[str, Any]:
        values = None if self.values is None else {str(v): n for v, n in self.values.items()}
        return {
            "count": self.count,
            "missing": self.missing,
            "total": hex(self.total),
            "squares": hex(self.squares),
            "low": self.low,
            "high": self.high,
            "values": values,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Summary:
        values = document["values"]
        return cls(
            count=document["count"],
            missing=document["missing"],
            total=int(document["total"], 16),
            squares=int(document["squares"], 16),
            low=document["low"],
            high=document["high"],
            values=None if values is None else {int(v): n for v, n in values.items()},
        )


def summarize(
    values: np.ndarray, lengths: np.ndarray, feature: Feature, observed: np.ndarray | None = None
) -> Summary:
    """Summarizes the values of one feature of some rows.

    Args:
        values: (N, *shape) of all steps, finite, zeros at missing steps.
        lengths: (n,) steps of each row, at least 1; ones for a feature per row.
        feature: which feature it is.
        observed: (N,) bool of steps or (N, *shape) of elements; None where all are.

    Example:
        >>> frames = Feature("frames", "float32")
        >>> steps = np.array([1, 2, 4, 0], np.float32)
        >>> summary = summarize(steps, np.array([1, 3]), frames, np.array([1, 1, 1, 0], bool))
        >>> statistics = summary.statistics(frames)
        >>> statistics.count, statistics.missing, statistics.mean, statistics.high
        (3, 1, 2.3333333333333335, 4.0)
    """
    steps = len(values)
    seen = values if observed is None else values[observed]
    if len(seen) == 0:
        return Summary(missing=steps * feature.size)
    low, high, count = seen.min(), seen.max(), seen.size
    if low != low:  # NaN was kept as a value; it has no part in the statistics
        numbers = seen[~np.isnan(seen)]
        if len(numbers) == 0:
            return Summary(missing=steps * feature.size)
        low, high, count = numbers.min(), numbers.max(), len(numbers)
        values = np.nan_to_num(values, nan=0.0)
    sizes = np.asarray(lengths) * feature.size
    total, squares = _exact_sums(values.reshape(-1), sizes, max(abs(low.item()), abs(high.item())))
    counted = feature.label and feature.dtype == "int64"
    return Summary(
        count=count,
        missing=steps * feature.size - count,
        total=total,
        squares=squares,
        low=low.item(),
        high=high.item(),
        values=_bounded(_value_counts(seen)) if counted else {},
    )


def _exact_sums(flat: np.ndarray, sizes: np.ndarray, largest: float) -> tuple[int, int]:
    """Exact sums, in units of 2**-1074, of rows' sums of values and of squares.

    Args:
        flat: values of all rows.
        sizes: (n,) values of each row.
        largest: the greatest magnitude of a value.
    """
    if (
        flat.dtype.kind in "iub"
        and largest * largest * max(int(sizes.max()), _BLOCK_VALUES) < 2**53
    ):
        # Sums of integers below 2**53 are exact in any order, so rows need not be told apart.
        total = squares = 0
        for first in range(0, len(flat), _BLOCK_VALUES):
            doubles = flat[first : first + _BLOCK_VALUES].astype(np.float64)
            total += int(doubles.sum())
            # Not by a dot product: BLAS would wake threads that then spin.
            np.multiply(doubles, doubles, out=doubles)
            squares += int(doubles.sum())
        return total << _UNIT_EXPONENT, squares << _UNIT_EXPONENT
    sums, squares_ = _row_sums(flat, sizes)
    return exact_sum(sums), exact_sum(squares_)


def _row_sums(flat: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and of squares of each row, (n,) float64; a row's sums are its own alone."""
    if len(flat) == len(sizes):
        doubles = flat.astype(np.float64)
        return doubles, doubles * doubles
    n = len(sizes)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    sums, squares = np.empty(n), np.empty(n)
    buffer = np.empty(max(_BLOCK_VALUES, int(sizes.max())))
    first = 0
    while first < n:
        # As many whole rows as fit into the block, and at least one.
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _BLOCK_VALUES, "right")))
        begin, end = int(starts[first]), int(ends[last - 1])
        doubles = buffer[: end - begin]
        np.copyto(doubles, flat[begin:end])
        at = starts[first:last] - begin
        np.add.reduceat(doubles, at, out=sums[first:last])
        np.multiply(doubles, doubles, out=doubles)
        np.add.reduceat(doubles, at, out=squares[first:last])
        first = last
    return sums, squares


def _value_counts(values: np.ndarray) -> dict[int, int]:
    distinct, counts = np.unique(values, return_counts=True)
    return dict(zip(distinct.tolist(), counts.tolist(), strict=True))


def _bounded(values: dict[int, int]) -> dict[int, int] | None:
    """None past the bound; merging only ever adds values, so the order of merging is no matter."""
    return values if len(values) <= _MOST_LABEL_VALUES else None
