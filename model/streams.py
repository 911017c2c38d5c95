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

import threading

import numpy as np

from lengthwise.model.epochs import Epochs

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
        self._first_epoch, self._first_step = divmod(
            epochs.options.start_step, max(1, epochs.steps_per_epoch)
        )
        self._steps: dict[int, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    @property
    def epoch_range(self) -> tuple[int, int]:
        """The first epoch with steps left, and the one after the last."""
        options = self.epochs.options
        empty = self.epochs.steps_per_epoch == 0
        end = options.epoch + options.epochs
        return (end if empty else options.epoch + self._first_epoch), end

    @property
    def used(self) -> list[int]:
        """The streams that ever have a batch."""
        options, epochs = self.epochs.options, self.epochs
        filled = options.pad_remainder
        full, rest = [], False
        for stream, (rows, size) in enumerate(zip(epochs.records, epochs.sizes, strict=True)):
            step_rows = size * options.num_replicas
            if rows >= step_rows or (filled and rows):
                full.append(stream)
            rest |= rows % step_rows > 0 and not filled and not options.drop_remainder
        # A dataset without batches still has a shape.
        return [*full, self.rest] if rest or not full else full

    def order(self, epoch: int) -> np.ndarray:
        """(steps,) int64, the stream of each step that is left of an epoch."""
        schedule = self.epochs.schedule(epoch)
        full = schedule.full_steps(self.epochs.sizes, num_replicas=self.epochs.options.num_replicas)
        first = self._first_step if epoch == self.epoch_range[0] else 0
        return np.where(full, schedule.buckets, self.rest).astype(np.int64)[first:]

    def num_chunks(self, epoch: int, stream: int) -> int:
        """How many times a stream is read in an epoch."""
        return -(-len(self._steps_of(epoch)[stream]) // self.chunk_batches[stream])

    def read(self, epoch: int, stream: int, chunk: int) -> list[np.ndarray]:
        """The next batches of a bucket: arrays (batches, B, …); of the rest one batch: (B, …)."""
        batches = self.chunk_batches[stream]
        steps = self._steps_of(epoch)[stream][chunk * batches : (chunk + 1) * batches]
        arrays = self.epochs.read_together(epoch, steps)
        if stream == self.rest:
            return arrays
        return [array.reshape(len(steps), -1, *array.shape[1:]) for array in arrays]

    def _steps_of(self, epoch: int) -> list[np.ndarray]:
        """For each stream its steps in an epoch, ascending."""
        with self._lock:
            if epoch not in self._steps:
                order = self.order(epoch)
                first = self.epochs.steps_per_epoch - len(order)
                by_stream = np.argsort(order, kind="stable")
                cuts = np.searchsorted(order[by_stream], np.arange(1, self.rest + 1))
                self._steps = {epoch: np.split(by_stream + first, cuts)}
            return self._steps[epoch]
