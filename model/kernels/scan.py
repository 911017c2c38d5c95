"""The scan kernel: a plain loop over the steps of the padded batch.

It computes at masked steps too and throws the result away, so it is the slowest. In return it is
made of simple operations only: it takes every floating dtype, XLA compiles it (for each T anew, in
one to two seconds), and its gradients can be differentiated as often as one likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.direction import Direction, run_each
from lengthwise.model.kernels.steps import RealSteps
from lengthwise.model.masking import zero_masked_steps


def scan_lstms(
    directions: Sequence[Direction],
    steps: RealSteps,
    backwards: Sequence[bool],
    *,
    sequences: bool,
    states: bool,
    training: bool = True,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Directions of an LSTM over the real steps of a batch; see `packed_lstms`."""
    del states  # they would change nothing here
    return run_each(
        scan_lstm, directions, backwards, steps=steps, sequences=sequences, training=training
    )


def scan_lstm(
    direction: Direction,
    steps: RealSteps,
    *,
    backward: bool,
    sequences: bool,
    training: bool = True,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One direction of an LSTM; arguments and results as of `segmented_lstm`."""
    inputs, kernel, recurrent, bias, *state = direction
    batch, total = tf.unstack(tf.shape(inputs)[:2])
    units: Any = recurrent.shape[0]
    time_major = tf.transpose(zero_masked_steps(inputs, steps.mask), [1, 0, 2])  # (T, B, D)
    mask = tf.transpose(steps.mask)[:, :, tf.newaxis]  # (T, B, 1)
    projected = None
    if training:  # One product of all inputs, so that its gradients are one too.
        projected = tf.matmul(tf.reshape(time_major, [-1, inputs.shape[2]]), kernel) + bias
        projected = tf.reshape(projected, [total, batch, 4 * units])

    def body(turn: Any, h: Any, c: Any, written: tf.TensorArray) -> Any:
        t = total - 1 - turn if backward else turn
        if projected is None:
            given = tf.matmul(tf.gather(time_major, t), kernel) + bias
        else:
            given = tf.gather(projected, t)
        gates = given + tf.matmul(h, recurrent)
        i, f, candidate, o = tf.split(gates, 4, axis=1)
        next_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
        next_h = tf.sigmoid(o) * tf.tanh(next_c)
        real = tf.gather(mask, t)
        if sequences:
            written = written.write(t, tf.where(real, next_h, tf.zeros([], next_h.dtype)))
        return turn + 1, tf.where(real, next_h, h), tf.where(real, next_c, c), written

    written = tf.TensorArray(
        inputs.dtype, size=total + 1 if sequences else 0, element_shape=[None, units]
    )
    if sequences:  # No list to be stacked is empty.
        written = written.write(total, tf.zeros([batch, units], inputs.dtype))
    _, h, c, written = tf.while_loop(
        lambda turn, *_: turn < total,
        body,
        (0, *state, written),
        maximum_iterations=total,
        parallel_iterations=1,
    )
    if sequences:
        outputs = tf.transpose(written.stack()[:total], [1, 0, 2])
    else:
        outputs = tf.zeros([batch, 0, units], inputs.dtype)
    return outputs, h, c
