"""Where buckets end: the optimum and four alternatives.

A row of length l in a bucket that ends at m takes m slots, of which m - l are padding. The real
steps are what they are, so the least padding is the least sum of slots. With the distinct lengths
(rounded up to `align`) l_1 < … < l_n and C_j = rows of length up to l_j, the least number of slots
for the first j lengths in k buckets is

    S_k(j) = min over i < j of  S_(k-1)(i) + l_j · (C_j - C_i)

       rows |                      a bucket ends at l_j and holds the lengths after l_i: each of
            |        ▄▄            its C_j - C_i rows takes l_j slots
            |   ▄▄ ▄▄██▄▄
            | ▄▄██▄████████▄▄ ▄▄
            +--┴---------┴-----┴-> length
              l_i       l_j   l_n

For a fixed k, each i gives a line in l_j with slope -C_i and intercept S_(k-1)(i). Slopes fall as i
grows and the queries l_j grow, so the lower envelope of the lines is a stack whose left end is
dropped as it falls behind: O(n) for each k ("convex hull trick").

Source: the k-segment dynamic programme is folklore; the envelope is from F. Yao, "Speed-up in
dynamic programming", SIAM J. Alg. Disc. Meth. 3 (1982), and P. Brucker, "Efficient algorithms for
some path partitioning problems", Discrete Applied Mathematics 62 (1995).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.options import MAX_LENGTH, check_max_lengths
from lengthwise.transforms.lengths import Histogram

# `auto` stops adding buckets when one more saves less than this share of all slots …
_LEAST_SAVING = 0.005
# … or when buckets would hold fewer rows than this on average, too few to fill batches.
_LEAST_ROWS = 64
_MOST_BUCKETS = 64


@dataclass(frozen=True)
class Buckets:
    """One point of the curve of padding against the number of buckets.

    Attributes:
        max_lengths: inclusive, ascending.
        padding_fraction: padded slots over all slots.
    """

    max_lengths: tuple[int, ...]
    padding_fraction: float


def optimal_boundaries(histogram: Histogram, num_buckets: int, align: int = 1) -> list[int]:
    """Finds the boundaries with the least padding there is.

    Args:
        histogram: length -> rows; lengths >= 1.
        num_buckets: how many buckets at most; fewer are returned where fewer do as well.
        align: every max_length is a multiple of it.

    Returns:
        Inclusive max_lengths, ascending; the last one holds the longest row.

    Raises:
        PlanError: an empty histogram, a length or count below 1, or num_buckets or align below 1.

    Example:
        >>> optimal_boundaries({2: 3, 3: 2, 9: 5}, num_buckets=2)
        [3, 9]
        >>> optimal_boundaries({2: 10, 3: 1, 9: 5}, num_buckets=2, align=8)
        [8, 16]
    """
    return list(_optimal_curve(histogram, num_buckets, align)[-1])


def quantile_boundaries(histogram: Histogram, num_buckets: int, align: int = 1) -> list[int]:
    """Boundaries that give each bucket about as many rows.

    Args, returns and raises as `optimal_boundaries`.

    Example:
        >>> quantile_boundaries({2: 10, 3: 1, 9: 5}, num_buckets=2)
        [2, 9]
    """
    lengths, rows = _aligned(histogram, num_buckets, align)
    cumulative = np.cumsum(rows)
    targets = cumulative[-1] * np.arange(1, num_buckets + 1) / num_buckets
    return _ascending(lengths[np.searchsorted(cumulative, targets, side="left")])


def geometric_boundaries(histogram: Histogram, num_buckets: int, align: int = 1) -> list[int]:
    """Boundaries that grow by a constant factor from the shortest to the longest length.

    Args, returns and raises as `optimal_boundaries`.

    Example:
        >>> geometric_boundaries({2: 10, 3: 1, 8: 5}, num_buckets=3)
        [2, 4, 8]
    """
    lengths, _ = _aligned(histogram, num_buckets, align)
    spread = np.geomspace(lengths[0], lengths[-1], num_buckets) if num_buckets > 1 else lengths[-1:]
    return _rounded(spread, lengths, align)


def width_boundaries(histogram: Histogram, num_buckets: int, align: int = 1) -> list[int]:
    """Boundaries at equal distances up to the longest length.

    Args, returns and raises as `optimal_boundaries`.

    Example:
        >>> width_boundaries({2: 10, 3: 1, 9: 5}, num_buckets=3)
        [3, 6, 9]
    """
    lengths, _ = _aligned(histogram, num_buckets, align)
    return _rounded(lengths[-1] * np.arange(1, num_buckets + 1) / num_buckets, lengths, align)


def fixed_boundaries(histogram: Histogram, max_lengths: Sequence[int], align: int = 1) -> list[int]:
    """The boundaries that were given, rounded up to `align` and checked to hold every row.

    Args:
        histogram: length -> rows.
        max_lengths: inclusive, ascending.
        align: every max_length becomes a multiple of it.

    Raises:
        PlanError: the boundaries do not ascend, or a row is longer than the last one.

    Example:
        >>> fixed_boundaries({2: 10, 9: 5}, [4, 8, 12])
        [4, 8, 12]
    """
    check_max_lengths(tuple(max_lengths), place="--boundaries")
    _aligned(histogram, len(max_lengths), align)
    boundaries = _ascending(_round_up(np.asarray(max_lengths, np.int64), align))
    longest = max(length for length, rows in histogram.items() if rows)
    if longest > boundaries[-1]:
        raise PlanError(
            f"the longest row has {longest} steps, the last of --boundaries is "
            f"{max_lengths[-1]}: add a boundary, or give --max-length and --overlong"
        )
    return boundaries


STRATEGIES = {
    "optimal": optimal_boundaries,
    "quantile": quantile_boundaries,
    "geometric": geometric_boundaries,
    "width": width_boundaries,
}


def padding_fraction(histogram: Histogram, max_lengths: Sequence[int]) -> float:
    """Padded slots over all slots when rows are padded to these boundaries.

    Args:
        histogram: length -> rows, none longer than the last boundary.
        max_lengths: inclusive, ascending.

    Raises:
        PlanError: a row is longer than the last boundary.

    Example:
        >>> padding_fraction({2: 2, 4: 1}, [4])
        0.3333333333333333
    """
    lengths = np.fromiter(histogram, np.int64, len(histogram))
    rows = np.fromiter(histogram.values(), np.int64, len(histogram))
    if len(lengths) and lengths.max() > max_lengths[-1]:
        raise PlanError(
            f"the longest row has {lengths.max()} steps, the last bucket ends at {max_lengths[-1]}"
        )
    ends = np.asarray(max_lengths, np.int64)[np.searchsorted(max_lengths, lengths)]
    slots = int((ends * rows).sum())
    return (slots - int((lengths * rows).sum())) / slots if slots else 0.0


def padding_curve(
    histogram: Histogram, *, strategy: str = "optimal", align: int = 1, most: int = _MOST_BUCKETS
) -> list[Buckets]:
    """The curve of padding against the number of buckets, for 1, 2, … `most`.

    The curve ends early where more buckets cannot help.

    Args:
        histogram: length -> rows.
        strategy: a key of `STRATEGIES`.
        align: every max_length is a multiple of it.
        most: the largest number of buckets.

    Example:
        >>> [round(b.padding_fraction, 3) for b in padding_curve({2: 2, 3: 1, 9: 1})]
        [0.556, 0.111, 0.0]
    """
    if strategy == "optimal":
        curve = _optimal_curve(histogram, most, align)
    else:
        lengths, _ = _aligned(histogram, most, align)
        curve = [
            tuple(STRATEGIES[strategy](histogram, k, align))
            for k in range(1, min(most, len(lengths)) + 1)
        ]
    return [Buckets(ends, padding_fraction(histogram, ends)) for ends in curve]


def choose_buckets(curve: Sequence[Buckets], *, rows: int) -> Buckets:
    """Chooses the number of buckets: the first one after which another saves next to nothing.

    The choice is the first point of the curve where one more bucket lowers the padding fraction by
    less than 0.005, and no more buckets than one for each 64 rows, so that batches can be filled.

    Args:
        curve: from `padding_curve`.
        rows: number of rows.

    Example:
        >>> choose_buckets(padding_curve({2: 2000, 3: 1000, 9: 1000}), rows=4000).max_lengths
        (2, 3, 9)
    """
    affordable = curve[: max(1, rows // _LEAST_ROWS)]
    for point, following in pairwise(affordable):
        if point.padding_fraction - following.padding_fraction < _LEAST_SAVING:
            return point
    return affordable[-1]


def _aligned(histogram: Histogram, num_buckets: int, align: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct aligned lengths (n,) int64, ascending, and their rows (n,) int64."""
    if num_buckets < 1 or align < 1:
        raise PlanError(f"num_buckets and align must be at least 1, got {num_buckets} and {align}")
    if max(max(histogram, default=0), align) > MAX_LENGTH:
        raise PlanError(
            f"lengths and align must be at most {MAX_LENGTH}, got {max(histogram, default=0)} "
            f"and {align}"
        )
    lengths = np.fromiter((length for length, rows in histogram.items() if rows), np.int64)
    rows = np.fromiter((rows for rows in histogram.values() if rows), np.int64)
    if lengths.size == 0:
        raise PlanError("there is no row to make buckets for: the length histogram is empty")
    if lengths.min() < 1 or rows.min() < 1:
        raise PlanError(
            f"lengths and rows of a histogram must be at least 1, found length {lengths.min()} "
            f"with {rows.min()} rows at the least"
        )
    aligned, inverse = np.unique(_round_up(lengths, align), return_inverse=True)
    totals = np.zeros(len(aligned), np.int64)
    np.add.at(totals, inverse, rows)
    return aligned, totals


def _optimal_curve(histogram: Histogram, num_buckets: int, align: int) -> list[tuple[int, ...]]:
    """The optimal boundaries for 1, 2, … buckets, until no padding of whole steps is left."""
    lengths_array, rows = _aligned(histogram, num_buckets, align)
    lengths: list[int] = lengths_array.tolist()
    cumulative: list[int] = [0, *np.cumsum(rows).tolist()]
    n = len(lengths)
    # slots[j]: least slots for the first j lengths in k buckets; came[k][j]: where the last began.
    slots = [length * total for length, total in zip([0, *lengths], cumulative, strict=True)]
    came = [[0] * (n + 1)]
    for k in range(2, min(num_buckets, n) + 1):
        slots, begins = _one_more_bucket(slots, lengths, cumulative, first=k)
        came.append(begins)
    curve = []
    for k in range(1, len(came) + 1):
        ends, j = [], n
        for begins in reversed(came[:k]):
            ends.append(lengths[j - 1])
            j = begins[j]
        curve.append(tuple(reversed(ends)))
    return curve


def _one_more_bucket(
    slots: list[int], lengths: list[int], cumulative: list[int], *, first: int
) -> tuple[list[int], list[int]]:
    """One row of the dynamic programme, by the lower envelope of lines.

    Lines are (slope, intercept, i) = (-C_i, S(i), i); `first` is the smallest j with k buckets.
    """
    n = len(lengths)
    best, begins = [0] * (n + 1), [0] * (n + 1)
    envelope: deque[tuple[int, int, int]] = deque()
    for j in range(first, n + 1):
        i = j - 1
        line = (-cumulative[i], slots[i], i)
        while len(envelope) > 1 and _hidden(envelope[-2], envelope[-1], line):
            envelope.pop()
        envelope.append(line)
        at = lengths[j - 1]
        while len(envelope) > 1 and (
            envelope[1][0] * at + envelope[1][1] <= envelope[0][0] * at + envelope[0][1]
        ):
            envelope.popleft()
        slope, intercept, begins[j] = envelope[0]
        best[j] = slope * at + intercept + at * cumulative[j]
    return best, begins


def _hidden(a: tuple[int, int, int], b: tuple[int, int, int], c: tuple[int, int, int]) -> bool:
    """Whether line b is nowhere below both a and c; slopes fall from a to c."""
    return (c[1] - a[1]) * (a[0] - b[0]) <= (b[1] - a[1]) * (a[0] - c[0])


def _round_up(lengths: np.ndarray, align: int) -> np.ndarray:
    return -(-lengths // align) * align


def _rounded(spread: np.ndarray, lengths: np.ndarray, align: int) -> list[int]:
    """Real-valued boundaries as aligned integers; the last one holds the longest row."""
    # A boundary that floating point put a hair above an integer must not move to the next one.
    spread = np.asarray(spread, np.float64) * (1 - 1e-12)
    ends = _round_up(np.ceil(spread).astype(np.int64), align)
    ends[-1] = lengths[-1]
    return _ascending(np.clip(ends, align, lengths[-1]))


def _ascending(ends: np.ndarray) -> list[int]:
    return np.unique(ends).tolist()
