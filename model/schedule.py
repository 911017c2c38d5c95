"""The order of an epoch: which bucket at each step, and which of its rows.

A bucket's rows are shuffled as a whole and cut into batches; the batches of all buckets are then
interleaved so that each bucket is spread over the whole epoch.

All of it follows from the number of rows of each bucket, the seed and the epoch, and is computed
where it is asked for: neither the order of rows nor that of steps is ever there as a whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.model.interleaving import Interleaving
from lengthwise.model.permutation import Permutation

# Stands for a row that is not there: mask and length 0.
NO_ROW = -1

_ROWS, _BATCHES, _PLACES = range(3)


@dataclass(frozen=True)
class BucketSteps:
    """How the rows of a bucket are cut into steps, which its replicas share.

    Attributes:
        rows: of the bucket.
        batch_size: of each replica.
        num_replicas: replicas that share each step.
        count: how many steps.
        short: the numbers of steps that are not full, ascending, and how many rows they lack.
        filled: whether these are filled with `NO_ROW`.
        order: of the rows; None where they stay in order.
    """

    rows: int
    batch_size: int
    num_replicas: int
    count: int
    short: tuple[tuple[int, int], ...]
    filled: bool
    order: Permutation | None

    @property
    def uneven(self) -> tuple[int, ...]:
        """The numbers of steps whose batches are not as large as the others, ascending."""
        return () if self.filled else tuple(number for number, _ in self.short)

    def even(self, start: int, stop: int) -> np.ndarray:
        """The numbers of some steps, counted without the uneven ones: (stop - start,) int64."""
        numbers = np.arange(start, stop)
        for uneven in self.uneven:
            numbers += numbers >= uneven
        return numbers

    def read(self, numbers: np.ndarray, replica: int) -> np.ndarray:
        """The rows of a replica's batches at steps (n,), one after another; see `EpochSchedule`."""
        step_rows = self.batch_size * self.num_replicas
        starts = numbers * step_rows
        stops = starts + step_rows
        for number, lacking in self.short:
            starts -= lacking * (numbers > number)
            stops -= lacking * (numbers >= number)
        within = replica + self.num_replicas * np.arange(self.batch_size)
        places = (starts[:, None] + within).ravel()  # (n·B,)
        if not self.short:
            return self._ordered(places)
        there = places < np.repeat(stops, self.batch_size)
        if self.filled:
            # Only places of the order have a row.
            return np.where(there, self._ordered(np.minimum(places, self.rows - 1)), NO_ROW)
        return self._ordered(places[there])

    def _ordered(self, places: np.ndarray) -> np.ndarray:
        return places if self.order is None else self.order[places]


@dataclass(frozen=True)
class EpochSchedule:
    """The batches of one epoch, for all replicas.

    Attributes:
        buckets: for each bucket its steps.
        order: of the steps of all buckets.
    """

    buckets: tuple[BucketSteps, ...]
    order: Interleaving

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int) -> tuple[int, int]:
        """The bucket that every replica reads at a step, and which of the bucket's steps it is."""
        return self.order[step]

    def rows(self, bucket: int, numbers: int | np.ndarray, *, replica: int = 0) -> np.ndarray:
        """The rows of a replica's batch, or of several of one bucket, one after another.

        Args:
            bucket: its number.
            numbers: one of the bucket's steps, or (k,) of them.
            replica: which one, from 0.

        Returns:
            (n,) int64, row numbers within the bucket, `NO_ROW` where a short batch was filled.
            Replicas differ by one row a step at most, filled ones not at all.
        """
        return self.buckets[bucket].read(np.atleast_1d(numbers), replica)

    @functools.cached_property
    def uneven(self) -> list[tuple[int, int]]:
        """Bucket and number of the uneven steps of all buckets, in the order of the epoch."""
        items = [(b, number) for b, steps in enumerate(self.buckets) for number in steps.uneven]
        buckets, numbers = np.array(items, np.int64).reshape(-1, 2).T
        return [items[i] for i in self.order.argsort(buckets, numbers).tolist()]


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
        longest_first: begin with a batch of the last bucket that has steps, its largest one.

    Returns:
        The schedule. Its number of steps does not depend on seed, epoch or shuffle.

    Example:
        >>> schedule = epoch_schedule([5, 2], [2, 2], shuffle=False)
        >>> [(bucket, schedule.rows(bucket, number).tolist()) for bucket, number in schedule.order]
        [(0, [0, 1]), (0, [2, 3]), (0, [4]), (1, [0, 1])]
    """
    cuts = [
        _cut(rows, size * num_replicas, num_replicas, drop=drop_remainder, even=pad_remainder)
        for rows, size in zip(records, batch_sizes, strict=True)
    ]
    first = max((b for b, (count, _) in enumerate(cuts) if count and longest_first), default=None)
    buckets = []
    for bucket, (rows, size, (count, lacking)) in enumerate(
        zip(records, batch_sizes, cuts, strict=True)
    ):
        # Otherwise short batches would always come last, where they weigh most in a model.
        shuffled = shuffle and (bucket != first or count > len(lacking))
        numbers = count - 1 - np.arange(len(lacking))
        if shuffled:
            full = int(bucket == first)
            draw = Permutation(count - full, (seed, epoch, bucket, _BATCHES))
            numbers = full + draw[np.arange(len(lacking))]
        buckets.append(
            BucketSteps(
                rows,
                size,
                num_replicas,
                count,
                tuple(sorted(zip(numbers.tolist(), lacking, strict=True))),
                filled=pad_remainder,
                order=Permutation(rows, (seed, epoch, bucket, _ROWS)) if shuffle else None,
            )
        )
    places = (seed, epoch, len(buckets), _PLACES) if shuffle else None
    order = Interleaving([count for count, _ in cuts], places, first=first)
    return EpochSchedule(tuple(buckets), order)


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
    return sum(
        _cut(rows, size * num_replicas, num_replicas, drop=drop_remainder, even=True)[0]
        for rows, size in zip(records, batch_sizes, strict=True)
    )


def _cut(
    rows: int, step_rows: int, num_replicas: int, *, drop: bool, even: bool
) -> tuple[int, list[int]]:
    """The number of steps of a bucket, and how many rows each step that is not full lacks."""
    full, rest = divmod(rows, step_rows)
    if drop or not rest:
        return full, []
    if not even and full and rest < num_replicas <= step_rows - num_replicas + rest:
        # Too few rows to go round: the step before gives some, so that no replica goes empty.
        return full + 1, [step_rows - num_replicas, num_replicas - rest]
    return full + 1, [step_rows - rest]
