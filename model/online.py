"""Buckets on the fly, for data that was not built: slower than a dataset, but no build before.

Both functions take a dataset of single rows and give batches as `read_dataset` does, with "mask"
and "length" among the features. A max_length is inclusive, as everywhere in Lengthwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lengthwise.dataset import UsageError
from lengthwise.dataset.schema import LENGTH, MASK

OVERLONG = ("error", "drop")
# Any, because TensorFlow's stubs do not know it.
_stateless_shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore


def bucket_by_sequence_length(
    rows: tf.data.Dataset,
    element_length_func: Callable[..., tf.Tensor],
    max_lengths: Sequence[int],
    bucket_batch_sizes: Sequence[int],
    *,
    drop_remainder: bool = False,
    overlong: str = "error",
) -> tf.data.Dataset:
    """`tf.data.Dataset.bucket_by_sequence_length` with inclusive max_lengths, masks and static T.

    TensorFlow's `bucket_boundaries` are exclusive: a boundary of 10 takes lengths up to 9, and with
    `pad_to_bucket_boundary` pads them to 9; a bucket more, without a bound, takes the rest. Here a
    max_length of 10 takes lengths up to 10 and pads to 10, and there is no bucket for the rest.

    Args:
        rows: elements are features, or `(features, …)`, where features is a dict of tensors. A
            tensor whose first axis is unknown is a sequence and is padded.
        element_length_func: length of an element, called as TensorFlow calls it.
        max_lengths: of the buckets, ascending.
        bucket_batch_sizes: rows of a batch of each bucket.
        drop_remainder: leave out batches that the end of the data does not fill.
        overlong: "error" stops at a row longer than the last max_length, "drop" leaves it out.

    Returns:
        Batches in the order in which they fill up, "mask" (B, T) bool and "length" (B,) int32 among
        the features.

    Raises:
        UsageError: max_lengths that do not ascend, or other arguments that cannot mean anything.

    Source: https://www.tensorflow.org/api_docs/python/tf/data/Dataset#bucket_by_sequence_length
    """
    _check(max_lengths, bucket_batch_sizes, overlong)
    longest = max_lengths[-1]
    rows = rows.map(lambda *row: _with_mask(row, element_length_func(*row)))
    rows = _without_overlong(rows, longest, overlong)
    return rows.bucket_by_sequence_length(
        lambda *row: _features(row)[LENGTH],
        [max_length + 1 for max_length in max_lengths],
        # TensorFlow asks for a batch size of the bucket without a bound; nothing gets there.
        [*bucket_batch_sizes, 1],
        pad_to_bucket_boundary=True,
        drop_remainder=drop_remainder,
    )


def sort_by_length_in_pools(
    rows: tf.data.Dataset,
    element_length_func: Callable[..., tf.Tensor],
    max_lengths: Sequence[int],
    batch_size: int,
    *,
    pool_batches: int = 64,
    seed: int | None = 0,
    overlong: str = "error",
) -> tf.data.Dataset:
    """Sorts pools of rows by length and cuts them into batches: less padding than by buckets.

    A batch is padded to the smallest max_length that holds its longest row, so there are as many
    shapes as max_lengths. A pool of rows is held in memory.

    Args:
        rows: see `bucket_by_sequence_length`.
        element_length_func: length of an element.
        max_lengths: lengths to pad to, ascending.
        batch_size: rows of a batch; fewer in the last batch of all.
        pool_batches: batches of a pool.
        seed: of the order of a pool's batches; None leaves them sorted.
        overlong: "error" or "drop".

    Raises:
        UsageError: arguments that cannot mean anything.
    """
    _check(max_lengths, [batch_size] * len(max_lengths), overlong)
    if pool_batches < 1:
        raise UsageError(f"pool_batches must be a positive integer, not {pool_batches!r}")
    limits = tf.constant(list(max_lengths), tf.int32)
    rows = rows.map(lambda *row: _with_mask(row, element_length_func(*row)))
    rows = _without_overlong(rows, max_lengths[-1], overlong)

    def cut(number: tf.Tensor, *pool: Any) -> tf.data.Dataset:
        lengths = _features(pool)[LENGTH]
        order = tf.argsort(lengths, stable=True)
        # The first batch is the short one, so that it holds the rows that cost the least.
        size = tf.size(order)
        batches = -(-size // batch_size)
        starts = tf.maximum(0, size - batch_size * (batches - tf.range(batches)))
        stops = size - batch_size * (batches - 1 - tf.range(batches))
        if seed is not None:
            shuffled = _stateless_shuffle(tf.range(batches), [seed, tf.cast(number, tf.int32)])
            starts, stops = tf.gather(starts, shuffled), tf.gather(stops, shuffled)

        def batch(start: tf.Tensor, stop: tf.Tensor) -> Any:
            chosen = order[start:stop]
            longest = tf.reduce_max(tf.gather(lengths, chosen))
            steps = limits[tf.searchsorted(limits, longest[None])[0]]
            return tf.nest.map_structure(
                lambda values: _padded(tf.gather(values, chosen), steps), pool
            )

        return tf.data.Dataset.from_tensor_slices((starts, stops)).map(batch)

    # Any, because TensorFlow's stubs take an element for one argument.
    pools: Any = rows.ragged_batch(batch_size * pool_batches).enumerate()
    if isinstance(rows.element_spec, tuple):
        return pools.flat_map(lambda number, pool: cut(number, *pool))
    return pools.flat_map(lambda number, pool: cut(number, pool)).map(lambda *row: row[0])


def _check(max_lengths: Sequence[int], sizes: Sequence[int], overlong: str) -> None:
    if not max_lengths or list(max_lengths) != sorted(set(max_lengths)) or max_lengths[0] < 1:
        raise UsageError(f"max_lengths must be positive and ascend, not {list(max_lengths)}")
    if len(sizes) != len(max_lengths) or min(sizes) < 1:
        raise UsageError(f"{len(max_lengths)} buckets need as many batch sizes, not {list(sizes)}")
    if overlong not in OVERLONG:
        raise UsageError(f"overlong must be one of {', '.join(OVERLONG)}, not {overlong!r}")


def _features(row: tuple[Any, ...]) -> Any:
    return row[0]


def _with_mask(row: tuple[Any, ...], length: tf.Tensor) -> Any:
    features, *others = row
    if not isinstance(features, Mapping):
        raise UsageError("elements must be features, or (features, …), with features as a dict")
    length = tf.cast(length, tf.int32)
    mask = features[MASK] if MASK in features else tf.ones([length], tf.bool)
    features = {**features, MASK: mask, LENGTH: length}
    return (features, *others) if others else features


def _without_overlong(rows: tf.data.Dataset, longest: int, overlong: str) -> tf.data.Dataset:
    if overlong == "drop":
        return rows.filter(lambda *row: _features(row)[LENGTH] <= longest)

    def check(*row: Any) -> Any:
        length = _features(row)[LENGTH]
        message = f"a row is longer than the last max_length, {longest}"
        with tf.control_dependencies([tf.debugging.assert_less_equal(length, longest, message)]):
            checked = {**_features(row), LENGTH: tf.identity(length)}
        return (checked, *row[1:]) if row[1:] else checked

    return rows.map(check)


def _padded(values: Any, steps: tf.Tensor) -> tf.Tensor:
    if not isinstance(values, tf.RaggedTensor):
        return values
    padded = values.to_tensor()  # (n, longest, …)
    missing = [[0, 0], [0, steps - tf.shape(padded)[1]], *([[0, 0]] * (padded.shape.rank - 2))]
    return tf.pad(padded, missing)
