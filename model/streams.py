"""One stream of batches per bucket, and the order in which an epoch takes from them.

A call from tf.data into Python costs as much as reading a small batch. So each bucket has a stream
of its own that reads several of its next batches in one call, as they share their shape, and cuts
them apart again. The order of the epoch says from which stream the next batch comes:

    bucket 24   [a b c d] [e f g h] …  ─┐
    bucket 40   [A B C] [D E F] …      ─┼─▶  a A b α c B d e C …
    the rest    [α] [β] …              ─┘

Batches that are shorter than the others of their bucket make up the last stream, one by one.
"""

from __future__ import annotations

import numpy as np

from lengthwise.model.epochs import Epochs
from lengthwise.model.schedule import EpochSchedule

# More batches at a time would not be faster, and memory grows with them.
_CHUNK_BATCHES = 16
_CHUNK_BYTES = 2 << 20


class BatchStreams:
    """The streams of one replica's epochs.

    Args:
        epochs: the batches.
    """

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs
        self.chunk_batches = [
            min(_CHUNK_BATCHES, max(1, _CHUNK_BYTES // (size * bucket.layout.stride)))
            for bucket, size in zip(epochs.buckets, epochs.sizes, strict=True)
        ]
        # The number of the last stream, whose batches differ in shape.
        self.rest = len(epochs.buckets)
        self.chunk_batches.append(1)
        options, steps = epochs.options, epochs.steps_per_epoch
        epochs_done = min(options.start_step // max(1, steps), options.epochs - 1)
        self._first_epoch = options.epoch + epochs_done
        self._first_step = options.start_step - epochs_done * steps
        schedule = epochs.schedule(self._first_epoch)
        # Batches of each stream in an epoch, and those that were read before the first step.
        self._batches = _by_stream(schedule, len(schedule))
        self._done = _by_stream(schedule, self._first_step)

    @property
    def epoch_range(self) -> tuple[int, int]:
        """The first epoch that has steps left, if any has, and the one after the last."""
        return self._first_epoch, self.epochs.options.epoch + self.epochs.options.epochs

    @property
    def used(self) -> list[int]:
        """The streams that ever have a batch."""
        # A dataset without batches still has a shape.
        return np.flatnonzero(self._batches).tolist() or [self.rest]

    def num_chunks(self, epoch: int) -> np.ndarray:
        """(streams,) int64, how many times each stream is read in an epoch."""
        return -(-(self._batches - self._done_in(epoch)) // self.chunk_batches)

    def blocks(self, epoch: int) -> tuple[int, int]:
        """The first block of the order of an epoch, and the one after the last."""
        order = self.epochs.schedule(self._first_epoch).order
        begun = epoch == self._first_epoch
        return (order.block_of(self._first_step) if begun else 0), order.num_blocks

    def order(self, epoch: int, block: int) -> np.ndarray:
        """(steps,) int64, the stream of each step that is left of a block of an epoch."""
        schedule = self.epochs.schedule(epoch)
        steps = schedule.order.block(block)
        streams = steps.sources
        for bucket, number in schedule.uneven:
            if steps.before[bucket] <= number:
                streams = np.where(
                    (steps.sources == bucket) & (steps.numbers == number), self.rest, streams
                )
        first = self._first_step if epoch == self._first_epoch else 0
        return streams[max(0, first - steps.start) :]

    def read(self, epoch: int, stream: int, chunk: int) -> list[np.ndarray]:
        """The next batches of a bucket: arrays (batches, B, …); of the rest one batch: (B, …)."""
        schedule = self.epochs.schedule(epoch)
        batches = self.chunk_batches[stream]
        start = int(self._done_in(epoch)[stream]) + chunk * batches
        if stream == self.rest:
            bucket, number = schedule.uneven[start]
            return self.epochs.read_together(epoch, bucket, np.array([number]))
        stop = min(start + batches, int(self._batches[stream]))
        numbers = schedule.buckets[stream].even(start, stop)
        arrays = self.epochs.read_together(epoch, stream, numbers)
        return [array.reshape(len(numbers), -1, *array.shape[1:]) for array in arrays]

    def _done_in(self, epoch: int) -> np.ndarray:
        return self._done if epoch == self._first_epoch else np.zeros_like(self._done)


def _by_stream(schedule: EpochSchedule, steps: int) -> np.ndarray:
    """(streams,) int64, of the first so many steps of an epoch."""
    counts = schedule.order.before(steps)
    uneven = [
        sum(number < count for number in bucket.uneven)
        for bucket, count in zip(schedule.buckets, counts.tolist(), strict=True)
    ]
    return np.append(counts - uneven, sum(uneven))
