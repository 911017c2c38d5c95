"""A loop over time with exactly the rows that still run: the packed kernel's way in inference.

Rows are sorted, longest first; at step t the first n(t) of them run. The products of all inputs
with the kernel are one product before the loop, over real steps only. Nothing is kept for a
gradient. The fused operation lets its threads wait for each other several times in each step, which
costs more than all else when they compete for cores; this loop does not. On a single thread, or
where a step is little work, the fused operation is faster.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.steps import Layout, RealSteps, step_slots, step_sources


def shrinking_lstm(
    inputs: tf.Tensor,
    steps: RealSteps,
    weights: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    state: tuple[tf.Tensor, tf.Tensor],
    *,
    backward: bool,
    sequences: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One direction of an LSTM; arguments and results as of `packed_lstm`, without gradients."""
    kernel, recurrent, bias = weights
    batch = tf.shape(inputs)[0]
    units: Any = recurrent.shape[0]
    rows = tf.argsort(steps.lengths, direction="DESCENDING", stable=True)
    lengths = tf.gather(steps.lengths, rows)
    time = tf.range(tf.reduce_max(tf.concat([[0], lengths], axis=0)))
    running = time[:, tf.newaxis] < lengths  # (longest, B)
    counts = tf.reduce_sum(tf.cast(running, tf.int32), axis=1)
    offsets = tf.concat([[0], tf.cumsum(counts)], axis=0)

    numbers = tf.where(tf.reshape(running, [-1]))[:, 0]  # slots of the rectangle that run
    source = tf.reshape(step_sources(steps, time, rows, backward=backward), [-1])
    real = tf.gather(tf.reshape(inputs, [-1, inputs.shape[2]]), tf.gather(source, numbers))
    # Gates as input, forget, output, candidate: one sigmoid over three of them.
    kernel, recurrent, bias = map(_sigmoids_first, (kernel, recurrent, bias))
    projected = tf.nn.bias_add(tf.matmul(real, kernel), bias)  # (N, 4·H)

    def body(t: Any, h: Any, c: Any, written: tf.TensorArray) -> Any:
        first, end = offsets[t], offsets[t + 1]
        n = end - first
        gates = projected[first:end] + tf.matmul(h[:n], recurrent)
        i, f, o = tf.split(tf.sigmoid(gates[:, : 3 * units]), 3, axis=1)
        next_c = f * c[:n] + i * tf.tanh(gates[:, 3 * units :])
        next_h = o * tf.tanh(next_c)
        if sequences:
            written = written.write(t, next_h)
        # Rows that have ended keep their last state.
        h, c = tf.concat([next_h, h[n:]], axis=0), tf.concat([next_c, c[n:]], axis=0)
        return t + 1, h, c, written

    longest = tf.size(time)
    # One more element, of zeros, is what masked steps read; nor can nothing be concatenated.
    written = tf.TensorArray(
        inputs.dtype, size=longest + 1, element_shape=[None, units], infer_shape=False
    ).write(longest, tf.zeros([1, units], inputs.dtype))
    unknown = tf.TensorShape([None, units])
    _, h, c, written = tf.while_loop(
        lambda t, *_: t < longest,
        body,
        (0, tf.gather(state[0], rows), tf.gather(state[1], rows), written),
        shape_invariants=(tf.TensorShape([]), unknown, unknown, None),
        parallel_iterations=1,
    )
    place = tf.math.invert_permutation(rows)
    if sequences:
        slots = step_slots(steps, Layout(rows, offsets), backward=backward)
        outputs = tf.gather(written.concat(), slots)
    else:
        outputs = tf.zeros([batch, 0, units], inputs.dtype)
    return outputs, tf.gather(h, place), tf.gather(c, place)


def _sigmoids_first(weights: tf.Tensor) -> tf.Tensor:
    i, f, candidate, o = tf.split(weights, 4, axis=-1)
    return tf.concat([i, f, o, candidate], axis=-1)
