"""Masks over padded sequences: made from lengths, read in any dtype, compacted to the left."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class LeftCompaction(NamedTuple):
    """Where the real steps of each row go when the masked ones are moved behind them."""

    order: tf.Tensor  # (B, T) int32: compact step -> original step
    rank: tf.Tensor  # (B, T) int32: original step -> compact step; any valid step where masked
    lengths: tf.Tensor  # (B,) int32: real steps of each row


def mask_from_length(length: Any, max_length: Any = None) -> tf.Tensor:
    """Marks the first `length` steps of each row as real.

    Args:
        length: (B,) integers, steps of each row.
        max_length: padded number of steps T, scalar integer; the longest row by default.

    Returns:
        (B, T) bool, True at real steps.

    Example:
        >>> mask_from_length([1, 3], 4).numpy().tolist()
        [[True, False, False, False], [True, True, True, False]]
    """
    return tf.sequence_mask(length, max_length)


def as_bool_mask(mask: Any) -> tf.Tensor:
    """Reads a mask of bools, integers or floats; everything but zero is a real step.

    Args:
        mask: (B, T) bool, integer or float.

    Returns:
        (B, T) bool.

    Example:
        >>> as_bool_mask([[1.0, 0.0]]).numpy().tolist()
        [[True, False]]
    """
    mask = tf.convert_to_tensor(mask)
    return mask if mask.dtype == tf.bool else tf.not_equal(mask, tf.zeros((), mask.dtype))


def zero_masked_steps(values: Any, mask: tf.Tensor) -> tf.Tensor:
    """Puts zeros at masked steps, whatever they hold: NaN times zero would still be NaN.

    Args:
        values: (B, T, D) float.
        mask: (B, T) bool, True at real steps.

    Returns:
        (B, T, D), with the dtype of `values`.

    Example:
        >>> values = [[[2.0], [float("nan")]]]
        >>> zero_masked_steps(values, tf.constant([[True, False]])).numpy().tolist()
        [[[2.0], [0.0]]]
    """
    values = tf.convert_to_tensor(values)
    return tf.where(mask[:, :, tf.newaxis], values, tf.zeros((), values.dtype))


def left_compaction(mask: tf.Tensor) -> LeftCompaction:
    """Finds the permutation that moves each row's real steps to the left, in their order.

        mask    . x x . x      order  1 2 4 | 0 3     compact = gather(steps, order)
        steps   a b c d e      rank   0 0 1 1 2       steps   = gather(compact, rank), where real
        compact b c e | a d

    Args:
        mask: (B, T) bool, True at real steps.

    Returns:
        The permutation, its inverse on real steps, and the number of real steps of each row.

    Example:
        >>> moved = left_compaction(tf.constant([[False, True, True, False, True]]))
        >>> moved.order.numpy().tolist(), moved.rank.numpy().tolist()
        ([[1, 2, 4, 0, 3]], [[0, 0, 1, 1, 2]])
        >>> moved.lengths.numpy().tolist()
        [3]
    """
    total_steps = tf.shape(mask)[1]
    step = tf.range(total_steps)
    # All keys of a row differ, so the result does not rest on the sort being stable.
    order = tf.argsort(tf.where(mask, step, step + total_steps), axis=1)
    real_steps_so_far = tf.cumsum(tf.cast(mask, tf.int32), axis=1)
    return LeftCompaction(
        order=order,
        rank=tf.maximum(real_steps_so_far - 1, 0),
        lengths=tf.reduce_sum(tf.cast(mask, tf.int32), axis=1),
    )
