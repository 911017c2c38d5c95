"""Datasets as tf.data: whole-bucket batches in an order that is known beforehand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import Manifest
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.model.batching import BatchSize
from lengthwise.model.epochs import Epochs
from lengthwise.model.python_calls import call_from_tensorflow
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.streams import BatchStreams

_PREFETCHED_BATCHES = 8


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
    used = streams.used
    # For each number of a stream its place among those that ever have a batch.
    places = np.zeros(streams.rest + 1, np.int64)
    places[used] = np.arange(len(used))
    # An operation less per batch: the streams arrange what they read, unless it is still to be cut.
    arrange = (lambda values: values) if ragged else epochs.decoder.structure
    dtypes, shapes = _dtypes_and_shapes(streams)
    batch_spec = arrange({name: tf.TensorSpec(shapes[name], dtypes[name]) for name in dtypes})

    def read_chunk(chunk: tf.Tensor, epoch: tf.Tensor, stream: tf.Tensor) -> list[tf.Tensor]:
        arrays = tf.numpy_function(
            call_from_tensorflow(streams.read),
            [epoch, stream, chunk],
            list(dtypes.values()),
            stateful=False,
        )
        return tf.nest.flatten(arrange(dict(zip(dtypes, arrays, strict=True))))

    def read_order(block: tf.Tensor, epoch: tf.Tensor) -> list[tf.Tensor]:
        def order(epoch: int, block: int) -> np.ndarray:
            return places[streams.order(epoch, block)]

        return [
            tf.numpy_function(call_from_tensorflow(order), [epoch, block], tf.int64, stateful=False)
        ]

    read, order = _traced(read_chunk, 3), _traced(read_order, 2)

    def extent(epoch: int) -> np.ndarray:
        return np.array([*streams.blocks(epoch), *streams.num_chunks(epoch)[used]], np.int64)

    def read_epoch(epoch: Any, extent: Any) -> tf.data.Dataset:
        start, stop, *chunks = tf.unstack(extent)
        parts = []
        for stream, count in zip(used, chunks, strict=True):
            others = [epoch, np.int64(stream)]
            cut = stream != streams.rest
            parts.append(_calls(read, np.int64(0), count, others, batch_spec, cut=cut))
        if len(parts) == 1:
            return parts[0]
        choices = _calls(order, start, stop, [epoch], tf.TensorSpec((), tf.int64), cut=True)
        return tf.data.Dataset.choose_from_datasets(parts, choices, stop_on_empty_dataset=False)

    @tf.autograph.experimental.do_not_convert
    def without_padding(values: dict[str, tf.Tensor]) -> Any:
        return epochs.decoder.structure(_without_padding(streams, values))

    settings = tf.data.Options()
    settings.deterministic = True
    # Chunks that are read in parallel take more memory and as much time: Python reads them.
    settings.experimental_optimization.map_parallelization = False
    # A checkpoint of an iterator then holds where it is, not the batches that it has read ahead.
    settings.experimental_symbolic_checkpoint = True
    # Replicas share the work by `replica`; sharding the steps once more would lose rows.
    settings.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    steps_left = len(epochs) - epochs.options.start_step
    first, end = streams.epoch_range
    if end - first == 1:
        # The function of `flat_map` takes time to trace.
        batches = read_epoch(np.int64(first), extent(first))
    else:
        # Of the first epoch there may be less left than of the others.
        left, whole = extent(first), extent(first + 1)
        batches = tf.data.Dataset.range(first, end).flat_map(
            tf.autograph.experimental.do_not_convert(
                lambda epoch: read_epoch(epoch, tf.where(epoch == first, left, whole))
            )
        )
    return (
        (batches.map(without_padding) if ragged else batches)
        .apply(tf.data.experimental.assert_cardinality(steps_left))
        .prefetch(_PREFETCHED_BATCHES)
        .with_options(settings)
    )


def _traced(function: Callable[..., Any], scalars: int) -> Any:
    specs = [tf.TensorSpec((), tf.int64)] * scalars
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def _calls(
    function: Any, start: Any, stop: Any, others: list[Any], spec: Any, *, cut: bool
) -> tf.data.Dataset:
    """What a traced function gives for each number of a range, cut into elements if asked for."""
    # As `range`, `map` and `unbatch` do it, but with one trace for all streams and without the
    # function that `unbatch` maps first; tracing is most of what comes before the first batch.
    specs = tf.nest.flatten(spec)
    output_types = [spec.dtype for spec in specs]
    elements = tf.raw_ops.RangeDataset(
        start=start,
        stop=stop,
        step=np.int64(1),
        output_types=[tf.int64],
        output_shapes=[()],
    )
    elements = tf.raw_ops.MapDataset(
        input_dataset=elements,
        other_arguments=others,
        f=function,
        output_types=output_types,
        output_shapes=[[*([None] if cut else []), *spec.shape] for spec in specs],
    )
    if cut:
        elements = tf.raw_ops.UnbatchDataset(
            input_dataset=elements,
            output_types=output_types,
            output_shapes=[spec.shape for spec in specs],
        )
    return tf.data.experimental.from_variant(elements, spec)


def _dtypes_and_shapes(
    streams: BatchStreams,
) -> tuple[dict[str, tf.DType], dict[str, list[int | None]]]:
    """Of the arrays of a batch: B and T as well, where they are the same in all batches."""
    epochs = streams.epochs
    sizes = {epochs.sizes[stream] if stream != streams.rest else None for stream in streams.used}
    max_lengths = {
        bucket.layout.max_length
        for bucket, rows in zip(epochs.buckets, epochs.records, strict=True)
        if rows
    }
    size = sizes.pop() if len(sizes) == 1 else None
    specs = epochs.decoder.specs(max_lengths.pop() if len(max_lengths) == 1 else None)
    dtypes = {name: tf.dtypes.as_dtype(dtype) for name, (dtype, _) in specs.items()}
    return dtypes, {name: [size, *shape] for name, (_, shape) in specs.items()}


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
