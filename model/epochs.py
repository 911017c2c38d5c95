"""The batches of one or more epochs as arrays, any of them at any time."""

from __future__ import annotations

import os
import threading

import numpy as np

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.batching import batch_sizes
from lengthwise.model.decoding import BatchDecoder
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.schedule import EpochSchedule, epoch_schedule, steps_per_epoch
from lengthwise.model.shards import open_split


class Epochs:
    """The batches that one replica reads, as a sequence of steps over all its epochs.

    Args:
        path: the dataset folder or its manifest.
        split: name of the split.
        options: what to read.

    Raises:
        LengthwiseError: see `read_dataset`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | Manifest, split: str, options: ReadOptions
    ) -> None:
        manifest = path if isinstance(path, Manifest) else Manifest.load(path)
        self.options = options
        self.padding = manifest.padding
        self.decoder = BatchDecoder(
            manifest.schema,
            label=options.label,
            # A row that fills a batch must not count in a loss.
            sample_weight=options.sample_weight
            or (options.pad_remainder and _has_label(manifest, options)),
            form=options.form,
        )
        # A bucket without rows has no batch; its number still counts in the random order.
        self.buckets = open_split(
            manifest, split, integrity=options.integrity, row_filter=options.row_filter
        )
        self.records = [len(bucket) for bucket in self.buckets]
        self.sizes = batch_sizes(options.batch_size, [b.layout.max_length for b in self.buckets])
        self.steps_per_epoch = steps_per_epoch(
            self.records,
            self.sizes,
            num_replicas=options.num_replicas,
            drop_remainder=options.drop_remainder,
        )
        if options.start_step > len(self):
            raise UsageError(f"start_step is {options.start_step}; there are {len(self)} steps")
        self._schedules: dict[int, EpochSchedule] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    def read(self, step: int) -> list[np.ndarray]:
        """The arrays of a batch, in the order of `decoder.names`.

        Args:
            step: from the start of the first epoch, whatever `start_step` is.
        """
        epoch, step = divmod(step, self.steps_per_epoch)
        epoch += self.options.epoch
        bucket, number = self.schedule(epoch)[step]
        return self.read_together(epoch, bucket, np.array([number]))

    def read_together(self, epoch: int, bucket: int, numbers: np.ndarray) -> list[np.ndarray]:
        """The batches of some steps of one bucket, one after another in the same arrays.

        Args:
            epoch: its number.
            bucket: its number.
            numbers: (n,) which of the bucket's steps in this epoch.
        """
        rows = self.schedule(epoch).rows(bucket, numbers, replica=self.options.replica)
        return self.decoder.decode(self.buckets[bucket], rows)

    def schedule(self, epoch: int) -> EpochSchedule:
        """The order of an epoch; the last two are kept."""
        with self._lock:
            if epoch not in self._schedules:
                # Batches are read ahead, so two epochs are in use around the turn of an epoch.
                self._schedules = {e: s for e, s in self._schedules.items() if e == epoch - 1}
                self._schedules[epoch] = epoch_schedule(
                    self.records,
                    self.sizes,
                    seed=self.options.seed,
                    epoch=epoch,
                    shuffle=self.options.shuffle,
                    num_replicas=self.options.num_replicas,
                    drop_remainder=self.options.drop_remainder,
                    pad_remainder=self.options.pad_remainder,
                    longest_first=self.options.longest_first,
                )
            return self._schedules[epoch]


def _has_label(manifest: Manifest, options: ReadOptions) -> bool:
    return options.label is not None or bool(manifest.schema.labels)
