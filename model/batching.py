"""Batch sizes: how many rows of each bucket are read at a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lengthwise.dataset import UsageError


@dataclass(frozen=True)
class TokenBudget:
    """Batches of about equally many steps: many short rows, or few long ones.

    Attributes:
        steps: padded steps that a batch may hold, B·T.
        multiple_of: batch sizes are rounded down to a multiple of this, where one fits.

    Raises:
        UsageError: a value below 1.

    Example:
        >>> TokenBudget(8192).batch_size(max_length=60)
        136
        >>> TokenBudget(8192, multiple_of=8).batch_size(max_length=100)
        80
    """

    steps: int
    multiple_of: int = 1

    def __post_init__(self) -> None:
        _at_least_one("TokenBudget: steps", self.steps)
        _at_least_one("TokenBudget: multiple_of", self.multiple_of)

    def batch_size(self, max_length: int) -> int:
        """Rows of a batch of the bucket that pads to `max_length`; at least one."""
        rows = max(1, self.steps // max_length)
        return max(rows // self.multiple_of * self.multiple_of, 1)


# One number for all buckets, a budget, or max_length -> rows.
BatchSize: TypeAlias = int | TokenBudget | Mapping[int, int]


def batch_sizes(batch_size: BatchSize, max_lengths: Sequence[int]) -> tuple[int, ...]:
    """The batch size of every bucket.

    Args:
        batch_size: rows of every batch; or a budget of steps; or max_length -> rows, as
            `find_batch_sizes` gives them.
        max_lengths: of the buckets.

    Raises:
        UsageError: not a positive integer, a TokenBudget or a mapping that names every bucket.

    Example:
        >>> batch_sizes(64, [100, 200]), batch_sizes(TokenBudget(1000), [100, 200])
        ((64, 64), (10, 5))
        >>> batch_sizes({100: 24, 200: 12}, [100, 200])
        (24, 12)
    """
    if isinstance(batch_size, TokenBudget):
        return tuple(batch_size.batch_size(max_length) for max_length in max_lengths)
    if isinstance(batch_size, Mapping):
        missing = [max_length for max_length in max_lengths if max_length not in batch_size]
        if missing:
            raise UsageError(
                f"batch_size has no entry for the bucket of max_length {missing[0]}; "
                f"it names {', '.join(map(str, batch_size)) or 'none'}"
            )
        for max_length in max_lengths:
            _at_least_one(f"batch_size[{max_length}]", batch_size[max_length])
        return tuple(batch_size[max_length] for max_length in max_lengths)
    _at_least_one("batch_size", batch_size)
    return (batch_size,) * len(max_lengths)


def _at_least_one(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} must be a positive integer, not {value!r}")
