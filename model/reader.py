"""Datasets as tf.data: whole-bucket batches in an order that is known beforehand."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.batching import TokenBudget, batch_sizes
from lengthwise.model.decoding import BatchDecoder
from lengthwise.model.schedule import EpochSchedule, epoch_schedule, steps_per_epoch
from lengthwise.model.shards import BucketRows, open_split

# Gathering holds Python's lock most of the time: more threads would only wait for each other.
_PARALLEL_BATCHES = 2
_PREFETCHED_BATCHES = 8


@dataclass(frozen=True)
class ReadOptions:
    """What a reader yields, and in which order; see `read_dataset` for each of them."""

    batch_size: int | TokenBudget = 64
    shuffle: bool = True
    seed: int = 0
    epoch: int = 0
    epochs: int = 1
    num_replicas: int = 1
    replica: int = 0
    start_step: int = 0
    drop_remainder: bool = False
    label: str | None = None
    integrity: str = "first"

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("epoch", 0), ("epochs", 1), ("num_replicas", 1)):
            _at_least(name, getattr(self, name), low)
        _at_least("start_step", self.start_step, 0)
        if not 0 <= self.replica < self.num_replicas:
            raise UsageError(
                f"replica is {self.replica}; with num_replicas={self.num_replicas} it must lie "
                f"within [0, {self.num_replicas - 1}]"
            )


def read_dataset(
    path: str | os.PathLike[str] | Manifest,
    split: str = "train",
    *,
    batch_size: int | TokenBudget = 64,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    num_replicas: int = 1,
    replica: int = 0,
    start_step: int = 0,
    drop_remainder: bool = False,
    label: str | None = None,
    integrity: str = "first",
) -> tf.data.Dataset:
    """Reads a split of a dataset in batches of one bucket each.

    An epoch is a pure function of the dataset, `seed` and `epoch`. Each row comes exactly once over
    all replicas; at each step all replicas read the same bucket, and as many rows to within one. A
    replica's batch is empty only where a bucket has fewer rows than there are replicas. The number
    of steps is known: `dataset.cardinality()`.

    T is static in the sense that each batch of a bucket has exactly the T of its bucket, so there
    are as many shapes as buckets. In the specification of the dataset T is None unless the split
    has one bucket only.

    Args:
        path: the dataset folder; or its manifest, which a newer build cannot change meanwhile.
        split: name of the split.
        batch_size: rows of a batch per replica, or a `TokenBudget`.
        shuffle: False reads buckets and rows in their order on disk.
        seed: any non-negative integer; another seed, another order.
        epoch: another epoch, another order.
        epochs: how many epochs to read, one after another, starting with `epoch`.
        num_replicas: replicas that share the epoch.
        replica: which of them this is, from 0.
        start_step: steps to leave out at the start, as after a stop; costs nothing.
        drop_remainder: leave out rows that do not fill a batch, other ones each epoch.
        label: the feature to predict; by default the labels of the schema.
        integrity: "first" compares the CRC32C of each file once per process, "never" only sizes.

    Returns:
        Elements are `(features, label)`. `features` maps the name of every feature that is not a
        label to (B, T, …) for sequences and (B, …) for contexts, float32 or int64; beside them
        "mask" (B, T) bool, True at real steps, and "length" (B,) int32. `label` is (B, …), per step
        (B, T, …); a dict of them where the schema has several labels; without any, elements are
        `features` alone.

    Raises:
        ManifestError: there is no dataset, or no such split.
        SchemaError: there is no such label.
        CorruptDataError: a file is missing, or is not what the manifest says.
        UsageError: an argument that cannot mean anything.

    Example:
        >>> read_dataset("nowhere")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    options = ReadOptions(
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        epochs=epochs,
        num_replicas=num_replicas,
        replica=replica,
        start_step=start_step,
        drop_remainder=drop_remainder,
        label=label,
        integrity=integrity,
    )
    manifest = path if isinstance(path, Manifest) else Manifest.load(path)
    buckets = open_split(manifest, split, integrity=integrity)
    decoder = BatchDecoder(manifest.schema, label=label)
    return _to_dataset(_Batches(buckets, options), decoder, options)


class _Batches:
    """The framed records of each step of one or more epochs, as arrays."""

    def __init__(self, buckets: Sequence[BucketRows], options: ReadOptions) -> None:
        # A bucket without rows has no batch; its number still counts in the random order.
        self.buckets = buckets
        self.options = options
        self.records = [len(bucket) for bucket in buckets]
        self.sizes = batch_sizes(options.batch_size, [b.layout.max_length for b in buckets])
        self.steps_per_epoch = steps_per_epoch(
            self.records,
            self.sizes,
            num_replicas=options.num_replicas,
            drop_remainder=options.drop_remainder,
        )
        self._schedules: dict[int, EpochSchedule] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    def __getitem__(self, step: int) -> tuple[BucketRows, np.ndarray]:
        """The bucket of a step, and its records (n, stride) uint8."""
        epoch, step = divmod(step, self.steps_per_epoch)
        schedule = self._schedule(self.options.epoch + epoch)
        bucket = self.buckets[schedule.buckets[step]]
        rows = schedule.rows(
            step, num_replicas=self.options.num_replicas, replica=self.options.replica
        )
        return bucket, bucket.gather(rows)

    def _schedule(self, epoch: int) -> EpochSchedule:
        with self._lock:
            if epoch not in self._schedules:
                # Batches are read ahead, so two epochs are in use around the turn of an epoch.
                self._schedules = {e: s for e, s in self._schedules.items() if e >= epoch - 1}
                self._schedules[epoch] = epoch_schedule(
                    self.records,
                    self.sizes,
                    seed=self.options.seed,
                    epoch=epoch,
                    shuffle=self.options.shuffle,
                    num_replicas=self.options.num_replicas,
                    drop_remainder=self.options.drop_remainder,
                )
            return self._schedules[epoch]


def _to_dataset(batches: _Batches, decoder: BatchDecoder, options: ReadOptions) -> tf.data.Dataset:
    if options.start_step > len(batches):
        raise UsageError(f"start_step is {options.start_step}; there are {len(batches)} steps")
    max_lengths = {b.layout.max_length for b in batches.buckets if len(b)}
    names, specs = decoder.specs(max_lengths)

    def read(step: np.ndarray) -> list[np.ndarray]:
        bucket, framed = batches[int(step)]
        return decoder.decode(bucket.layout, framed)

    def read_batch(step: tf.Tensor) -> Any:
        arrays = tf.numpy_function(read, [step], [spec.dtype for spec in specs], stateful=False)
        for array, spec in zip(arrays, specs, strict=True):
            array.set_shape(spec.shape)
        return decoder.structure(dict(zip(names, arrays, strict=True)))

    settings = tf.data.Options()
    settings.deterministic = True
    # Replicas share the work by `replica`; sharding the steps once more would lose rows.
    settings.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return (
        tf.data.Dataset.range(options.start_step, len(batches))
        .map(read_batch, num_parallel_calls=_PARALLEL_BATCHES)
        .prefetch(_PREFETCHED_BATCHES)
        .with_options(settings)
    )


def _at_least(name: str, value: int, low: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
        raise UsageError(f"{name} must be an integer of at least {low}, not {value!r}")
