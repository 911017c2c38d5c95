"""The order of an epoch: which bucket at each step, and which of its rows.

A bucket's rows are shuffled as a whole and cut into batches; the batches of all buckets are then
interleaved so that each bucket is spread over the whole epoch. Batch j of the n batches of a bucket
stands at (j + u) / n of the epoch, where u is random within [0, 1):

    short rows   |  a    | b     |    c  | d     |       n = 4
    long rows    |        A      |   B           |       n = 2
    epoch          a      A b      B  c    d

All of it follows from the number of rows of each bucket, the seed and the epoch. What it keeps
grows by 28 bytes a step, not by rows: their order is computed batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.model.permutation import Permutation, random_bits

# Stands for a row that is not there: mask and length 0.
NO_ROW = -1

_ROWS, _BATCHES, _PLACES = range(3)


@dataclass(frozen=True)
class EpochSchedule:
    """The batches of one epoch, for all replicas.

    Attributes:
        buckets: (steps,) int32, the bucket that every replica reads at each step.
        starts, stops: (steps,) int64, the slice of the bucket's row order that all replicas share.
        row_orders: bucket -> the order of its rows; None where they stay in order.
        filled_to: (steps,) int64, rows that each replica's batch is filled up to with `NO_ROW`; 0
            where it is not.
    """

    buckets: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    row_orders: tuple[Permutation | None, ...]
    filled_to: np.ndarray

    def __len__(self) -> int:
        return len(self.buckets)

    def rows(
        self, steps: int | np.ndarray, *, num_replicas: int = 1, replica: int = 0
    ) -> np.ndarray:
        """The rows of one replica's batch, or of several of one bucket, one after another.

        Args:
            steps: one, or (k,) of them; from 0.
            num_replicas: replicas that share each step.
            replica: which of them, from 0.

        Returns:
            (n,) int64, row numbers within the bucket, `NO_ROW` where a short batch was filled.
            Replicas differ by one row a step at most, filled ones not at all.
        """
        steps = np.atleast_1d(steps)
        order = self.row_orders[self.buckets[steps[0]]]
        parts = []
        for start, stop, filled_to in zip(
            self.starts[steps].tolist(),
            self.stops[steps].tolist(),
            self.filled_to[steps].tolist(),
            strict=True,
        ):
            parts.append(np.arange(start + replica, stop, num_replicas, dtype=np.int64))
            if len(parts[-1]) < filled_to:
                parts.append(np.full(filled_to - len(parts[-1]), NO_ROW, np.int64))
        places = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if order is None:
            return places
        # Only places of the order have a number.
        return np.where(places == NO_ROW, NO_ROW, order[np.maximum(places, 0)])

    def full_steps(self, batch_sizes: Sequence[int], *, num_replicas: int = 1) -> np.ndarray:
        """(steps,) bool, where every replica's batch has the batch size of its bucket."""
        sizes = np.asarray(batch_sizes, np.int64)[self.buckets]
        return (self.filled_to == sizes) | (self.stops - self.starts == sizes * num_replicas)


def epoch_schedule(
    records: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    num_replicas: int = 1,
    drop_remainder: bool = False,
    pad_remainder: bool = False,
    longest_first: bool = False,
) -> EpochSchedule:
    """Lays out an epoch in which every row comes exactly once over all replicas.

    Args:
        records: rows of each bucket.
        batch_sizes: rows of a batch of each bucket, per replica.
        seed, epoch: any non-negative integers.
        shuffle: False keeps buckets, batches and rows in order.
        num_replicas: replicas that share each step.
        drop_remainder: leave out the rows that do not fill a batch of every replica.
        pad_remainder: fill the batches that they do not fill with `NO_ROW`.
        longest_first: begin with a batch of the last bucket that has rows, its largest one.

    Returns:
        The schedule. Its number of steps does not depend on seed, epoch or shuffle.

    Example:
        >>> schedule = epoch_schedule([5, 2], [2, 2], shuffle=False)
        >>> [(int(b), schedule.rows(i).tolist()) for i, b in enumerate(schedule.buckets)]
        [(0, [0, 1]), (0, [2, 3]), (0, [4]), (1, [0, 1])]
    """
    buckets, sizes, starts, places, orders = [], [], [], [], []
    for bucket, (rows, batch_size) in enumerate(zip(records, batch_sizes, strict=True)):
        size = _step_sizes(
            rows,
            batch_size,
            num_replicas,
            drop_remainder=drop_remainder,
            pad_remainder=pad_remainder,
        )
        if shuffle:
            # Otherwise short batches would always come last, where they weigh most in a model.
            size = size[
                Permutation(len(size), (seed, epoch, bucket, _BATCHES))[np.arange(len(size))]
            ]
            jitter = _uniform(len(size), (seed, epoch, bucket, _PLACES))
            places.append((np.arange(len(size)) + jitter) / max(1, len(size)))
        orders.append(Permutation(rows, (seed, epoch, bucket, _ROWS)) if shuffle else None)
        buckets.append(np.full(len(size), bucket, np.int32))
        starts.append(np.cumsum(size) - size)
        sizes.append(size)

    all_buckets, all_starts, all_sizes = _join(buckets), _join(starts), _join(sizes)
    if shuffle:
        by_place = np.argsort(_join(places), kind="stable")
        all_buckets, all_starts = all_buckets[by_place], all_starts[by_place]
        all_sizes = all_sizes[by_place]
    if longest_first and len(all_buckets):
        longest = np.flatnonzero(all_buckets == all_buckets.max())
        first = longest[np.argmax(all_sizes[longest])]
        order = np.concatenate([[first], np.delete(np.arange(len(all_buckets)), first)])
        all_buckets, all_starts = all_buckets[order], all_starts[order]
        all_sizes = all_sizes[order]
    filled_to = np.zeros(len(all_buckets), np.int64)
    if pad_remainder:
        filled_to = np.asarray(batch_sizes, np.int64)[all_buckets]
    return EpochSchedule(all_buckets, all_starts, all_starts + all_sizes, tuple(orders), filled_to)


def steps_per_epoch(
    records: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    num_replicas: int = 1,
    drop_remainder: bool = False,
) -> int:
    """The number of steps of every epoch, without laying one out.

    Example:
        >>> steps_per_epoch([5, 2], [2, 2]), steps_per_epoch([5, 2], [2, 2], drop_remainder=True)
        (4, 3)
    """
    steps = 0
    for rows, batch_size in zip(records, batch_sizes, strict=True):
        full, rest = divmod(rows, batch_size * num_replicas)
        steps += full + (rest > 0 and not drop_remainder)
    return steps


def _step_sizes(
    rows: int, batch_size: int, num_replicas: int, *, drop_remainder: bool, pad_remainder: bool
) -> np.ndarray:
    """Rows that all replicas together read at each step of a bucket."""
    step_rows = batch_size * num_replicas
    full, rest = divmod(rows, step_rows)
    sizes = [step_rows] * full
    if rest and not drop_remainder:
        sizes.append(rest)
        if not pad_remainder and full and rest < num_replicas <= step_rows - num_replicas + rest:
            # Too few rows to go round: the step before gives some, so that no replica goes empty.
            sizes[-1], sizes[-2] = num_replicas, step_rows - num_replicas + rest
    return np.array(sizes, np.int64)


def _uniform(n: int, seed: Sequence[int]) -> np.ndarray:
    return (random_bits(n, seed) >> np.uint64(11)) * 2.0**-53


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
