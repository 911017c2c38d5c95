"""Datasets as tf.data: whole-bucket batches in an order that is known beforehand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from lengthwise.dataset import Manifest
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.model.batching import BatchSize
from lengthwise.model.epochs import Epochs
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.streams import BatchStreams

_PREFETCHED_BATCHES = 8

_Arrange: TypeAlias = Callable[[dict[str, tf.Tensor]], Any]


def read_dataset(
    path: str | os.PathLike[str] | Manifest,
    split: str = "train",
    *,
    batch_size: BatchSize = 64,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    num_replicas: int = 1,
    replica: int = 0,
    start_step: int = 0,
    drop_remainder: bool = False,
    pad_remainder: bool = False,
    longest_first: bool = False,
    label: str | None = None,
    sample_weight: bool = False,
    form: str = "dict",
    ragged: bool = False,
    min_length: int | None = None,
    max_length: int | None = None,
    buckets: Sequence[int] | None = None,
    take: int | None = None,
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
        batch_size: rows of a batch per replica; or a `TokenBudget`; or max_length -> rows.
        shuffle: False reads buckets and rows in their order on disk.
        seed: any non-negative integer; another seed, another order.
        epoch: another epoch, another order.
        epochs: how many epochs to read, one after another, starting with `epoch`.
        num_replicas: replicas that share the epoch.
        replica: which of them this is, from 0.
        start_step: steps to leave out at the start, as after a stop; costs nothing.
        drop_remainder: leave out rows that do not fill a batch, other ones each epoch.
        pad_remainder: fill short batches with rows of mask False, length 0, values 0 and sample
            weight 0, so that B is static and all replicas read as many rows.
        longest_first: begin each epoch with the longest bucket, to run out of memory at once or not
            at all.
        label: the feature to predict; by default the labels of the schema.
        sample_weight: give weights as well; they come with `pad_remainder` anyway.
        form: of the features: "dict", or "tuple" in the order of their names, mask and length last.
        ragged: sequences, mask and labels per step as RaggedTensors without padding.
        min_length, max_length: leave out shorter and longer rows; both inclusive. Buckets that they
            cut are looked through at the start.
        buckets: read only the buckets of these max_lengths.
        take: read so many rows only, of each bucket in proportion; the same ones each epoch.
        integrity: "first" compares the CRC32C of each file once per process, "always" at every
            call, "never" only sizes.

    Returns:
        Elements are `(features, label)`. `features` maps the name of every feature that is not a
        label to (B, T, …) for sequences and (B, …) for contexts, float32 or int64; beside them
        "mask" (B, T) bool, True at real steps, and "length" (B,) int32. `label` is (B, …), per step
        (B, T, …); a dict of them where the schema has several labels; without any, elements are
        `features` alone. With weights elements are `(features, label, sample_weight)`: (B,)
        float32, 1 for a row and 0 for what fills a batch; for labels per step (B, T), 1 at real
        steps; a dict where `label` is one.

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
        pad_remainder=pad_remainder,
        longest_first=longest_first,
        label=label,
        sample_weight=sample_weight,
        form=form,
        min_length=min_length,
        max_length=max_length,
        buckets=buckets,
        take=take,
        integrity=integrity,
    )
    return _to_dataset(BatchStreams(Epochs(path, split, options)), ragged=ragged)


def _to_dataset(streams: BatchStreams, *, ragged: bool) -> tf.data.Dataset:
    epochs = streams.epochs
    inside = [i for i, rows in enumerate(epochs.records) if rows]
    full = [i for i in inside if streams.has_full_batches(i)]
    max_lengths = {epochs.buckets[i].layout.max_length for i in inside}
    common_length = max_lengths.pop() if len(max_lengths) == 1 else None
    # The streams that ever have a batch, and for each number of a stream its place among them.
    used = [*full, *([] if streams.all_full and full else [streams.rest])]
    places = np.zeros(streams.rest + 1, np.int64)
    places[used] = np.arange(len(used))

    # An operation less per batch: the streams arrange what they read, unless it is still to be cut.
    arrange = (lambda values: values) if ragged else epochs.decoder.structure

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order, counts = tf.numpy_function(
            lambda e: (
                places[streams.order(int(e))],
                np.array([streams.num_chunks(int(e), s) for s in used], np.int64),
            ),
            [epoch],
            (tf.int64, tf.int64),
            stateful=False,
        )
        order.set_shape((None,))
        counts.set_shape((len(used),))
        parts = [
            _chunks(streams, epoch, counts[k], arrange, stream)
            if stream != streams.rest
            else _rest(streams, epoch, counts[k], arrange, common_length)
            for k, stream in enumerate(used)
        ]
        if len(parts) == 1:
            return parts[0]
        choices = tf.data.Dataset.from_tensor_slices(order)
        return tf.data.Dataset.choose_from_datasets(parts, choices, stop_on_empty_dataset=False)

    def without_padding(values: dict[str, tf.Tensor]) -> Any:
        return epochs.decoder.structure(_without_padding(streams, values))

    settings = tf.data.Options()
    settings.deterministic = True
    # A checkpoint of an iterator then holds where it is, not the batches that it has read ahead.
    settings.experimental_symbolic_checkpoint = True
    # Replicas share the work by `replica`; sharding the steps once more would lose rows.
    settings.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    steps_left = len(epochs) - epochs.options.start_step
    batches = tf.data.Dataset.range(*streams.epoch_range).flat_map(read_epoch)
    return (
        (batches.map(without_padding) if ragged else batches)
        .apply(tf.data.experimental.assert_cardinality(steps_left))
        .prefetch(_PREFETCHED_BATCHES)
        .with_options(settings)
    )


def _chunks(
    streams: BatchStreams, epoch: tf.Tensor, count: tf.Tensor, arrange: _Arrange, bucket: int
) -> tf.data.Dataset:
    """The full batches of a bucket in an epoch."""
    size, steps = streams.epochs.sizes[bucket], streams.epochs.buckets[bucket].layout.max_length

    def read(epoch: np.ndarray, chunk: np.ndarray) -> list[np.ndarray]:
        return streams.read(int(epoch), bucket, int(chunk))

    def read_chunk(chunk: tf.Tensor) -> Any:
        return arrange(_call(streams, read, [epoch, chunk], steps, leading=(None, size)))

    return tf.data.Dataset.range(count).map(read_chunk).unbatch()


def _rest(
    streams: BatchStreams,
    epoch: tf.Tensor,
    count: tf.Tensor,
    arrange: _Arrange,
    steps: int | None,
) -> tf.data.Dataset:
    """The batches of an epoch that are not full, of all buckets."""

    def read(epoch: np.ndarray, number: np.ndarray) -> list[np.ndarray]:
        return streams.read_rest(int(epoch), int(number))

    def read_one(number: tf.Tensor) -> Any:
        return arrange(_call(streams, read, [epoch, number], steps, leading=(None,)))

    return tf.data.Dataset.range(count).map(read_one)


def _call(
    streams: BatchStreams,
    read: Callable[..., list[np.ndarray]],
    arguments: Sequence[tf.Tensor],
    steps: int | None,
    *,
    leading: tuple[int | None, ...],
) -> dict[str, tf.Tensor]:
    specs = streams.epochs.decoder.specs(steps)
    dtypes = [tf.dtypes.as_dtype(dtype) for dtype, _ in specs.values()]
    arrays = tf.numpy_function(read, arguments, dtypes, stateful=False)
    for array, (_, shape) in zip(arrays, specs.values(), strict=True):
        array.set_shape((*leading, *shape))
    return dict(zip(specs, arrays, strict=True))


def _without_padding(streams: BatchStreams, values: dict[str, tf.Tensor]) -> dict[str, Any]:
    """Sequences and whatever else has a step axis as RaggedTensors."""
    specs = streams.epochs.decoder.specs(-1)
    # Any, because TensorFlow's stubs do not know all of it.
    ragged: Any = tf.ragged
    slots = tf.sequence_mask(values[LENGTH], tf.shape(values[MASK])[1])
    if streams.epochs.padding == "left":
        slots = slots[:, ::-1]
    return {
        name: ragged.boolean_mask(value, slots)
        if name == MASK or -1 in specs[name][1][:1]
        else value
        for name, value in values.items()
    }
