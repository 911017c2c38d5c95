"""Which rows of a split are read: by length, by bucket, or only a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.dataset import Manifest, UsageError


@dataclass(frozen=True)
class RowFilter:
    """The rows to read.

    Attributes:
        min_length, max_length: shortest and longest rows, inclusive; None for no limit.
        buckets: max_lengths of the buckets to read; None for all.
        take: so many rows at most, of each bucket in proportion to its rows.

    Raises:
        UsageError: a value that cannot mean anything.
    """

    min_length: int | None = None
    max_length: int | None = None
    buckets: tuple[int, ...] | None = None
    take: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_length", "max_length", "take"):
            value = getattr(self, name)
            if value is not None and (
                not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1
            ):
                raise UsageError(f"{name} must be a positive integer or None, not {value!r}")
        low, high = self.min_length or 1, self.max_length
        if high is not None and low > high:
            raise UsageError(f"min_length is {low}, more than max_length, which is {high}")

    def check_buckets(self, manifest: Manifest) -> None:
        """Raises UsageError unless all named buckets exist."""
        for bucket in self.buckets or ():
            if bucket not in manifest.max_lengths:
                raise UsageError(
                    f"buckets: there is none of max_length {bucket!r}; there are: "
                    f"{', '.join(map(str, manifest.max_lengths))}"
                )

    def excludes(self, shortest: int, longest: int) -> bool:
        """Whether no row of the bucket with lengths in [shortest, longest] is read."""
        low, high = self._limits
        named = self.buckets is None or longest in self.buckets
        return not named or longest < low or shortest > high

    def cuts(self, shortest: int, longest: int) -> bool:
        """Whether the lengths of such a bucket have to be looked at."""
        low, high = self._limits
        return not self.excludes(shortest, longest) and not low <= shortest <= longest <= high

    def keeps(self, lengths: np.ndarray) -> np.ndarray:
        """(n,) bool, for lengths (n,)."""
        low, high = self._limits
        return (lengths >= low) & (lengths <= high)

    @property
    def _limits(self) -> tuple[int, float]:
        return self.min_length or 1, float("inf") if self.max_length is None else self.max_length


def proportional_shares(total: int | None, counts: Sequence[int]) -> list[int]:
    """Shares out `total` in proportion to `counts`, exactly, no share above its count.

    Example:
        >>> proportional_shares(5, [10, 20, 0]), proportional_shares(None, [10, 20, 0])
        ([2, 3, 0], [10, 20, 0])
    """
    everything = sum(counts)
    if total is None or total >= everything:
        return list(counts)
    shares = [total * count // everything for count in counts]
    remainders = [total * count % everything for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
