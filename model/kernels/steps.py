"""Where the real steps of a padded batch lie, and where a kernel puts them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class RealSteps(NamedTuple):
    """The real steps of a batch, whatever the form of its mask.

        mask       . x x . x      ranks      0 0 1 2 2
                   x x . . .                 0 1 2 2 2
        positions  1 2 4 5 6      lengths    3 2        starts  0 3

    Real step k of row b stands at flat position `positions[starts[b] + k]` of the batch.
    """

    mask: tf.Tensor  # (B, T) bool
    lengths: tf.Tensor  # (B,) int32: real steps of each row
    positions: tf.Tensor  # (N,) int32: b·T + t of the real steps, row by row
    starts: tf.Tensor  # (B,) int32: where in `positions` a row starts
    ranks: tf.Tensor  # (B, T) int32: real steps of the row before this one


class Layout(NamedTuple):
    """Slots of a kernel: time-major, `step_rows[t]` rows at step t, all in one flat list."""

    rows: tf.Tensor  # (B,) int32: place -> row of the batch
    offsets: tf.Tensor  # (longest + 1,) int32: first slot of each step, and the number of slots


def real_steps(mask: tf.Tensor) -> RealSteps:
    """Finds the real steps of a batch.

    Args:
        mask: (B, T) bool, True at real steps.

    Example:
        >>> steps = real_steps(tf.constant([[False, True, True], [True, False, False]]))
        >>> steps.positions.numpy().tolist(), steps.starts.numpy().tolist()
        ([1, 2, 3], [0, 2])
    """
    real = tf.cast(mask, tf.int32)
    lengths = tf.reduce_sum(real, axis=1)
    positions = tf.where(tf.reshape(mask, [-1]))[:, 0]
    return RealSteps(
        mask=mask,
        lengths=lengths,
        positions=tf.cast(positions, tf.int32),
        starts=tf.cumsum(lengths, exclusive=True),
        ranks=tf.cumsum(real, axis=1, exclusive=True),
    )


def step_sources(
    steps: RealSteps, time: tf.Tensor, rows: tf.Tensor, *, backward: bool
) -> tf.Tensor:
    """Flat positions that the slots (time, row) read; those past a row's end read a real step.

    A slot past the end must hold something finite, because 0·NaN is NaN: it repeats the last real
    step of its row, or any of the batch where its row has none. There must be one.

    Args:
        steps: the real steps of a batch.
        time: (n,) int32, steps of the recurrence.
        rows: (m,) int32, rows of the batch.
        backward: whether time runs from the last real step of a row to its first.

    Returns:
        (n, m) int32.
    """
    lengths = tf.gather(steps.lengths, rows)
    k = tf.minimum(time[:, tf.newaxis], lengths - 1)  # (n, m)
    if backward:
        k = lengths - 1 - k
    number = tf.gather(steps.starts, rows) + k
    last = tf.shape(steps.positions)[0] - 1
    return tf.gather(steps.positions, tf.clip_by_value(number, 0, last))


def step_slots(steps: RealSteps, layout: Layout, *, backward: bool) -> tf.Tensor:
    """Slots that the steps of a batch were given; masked ones the slot after the last.

    Returns:
        (B, T) int32.
    """
    time = steps.lengths[:, tf.newaxis] - 1 - steps.ranks if backward else steps.ranks
    place = tf.math.invert_permutation(layout.rows)
    first = tf.gather(layout.offsets, tf.maximum(time, 0))
    return tf.where(steps.mask, first + place[:, tf.newaxis], layout.offsets[-1])


def last_slots(steps: RealSteps, layout: Layout) -> tf.Tensor:
    """Slot of the last step of each row, (B,) int32; the slot after the last for an empty row."""
    place = tf.math.invert_permutation(layout.rows)
    first = tf.gather(layout.offsets, tf.maximum(steps.lengths - 1, 0))
    return tf.where(steps.lengths > 0, first + place, layout.offsets[-1])
