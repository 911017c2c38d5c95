"""The packed kernel: rows sorted by length, and a batch that shrinks as rows end.

Rows are sorted, longest first, and cut into `segments` groups of equal size. Time is cut where a
group ends, so that each segment of time is a rectangle of steps of the rows still running:

    row    time ──▶
    a      0 0 0 0 1 1 1 2 2 3 3       segment 0: 4 steps × 8 rows
    b      0 0 0 0 1 1 1 2 2 3 .       segment 1: 3 steps × 6 rows
    c      0 0 0 0 1 1 1 2 2           segment 2: 2 steps × 4 rows
    d      0 0 0 0 1 1 1 2 .           segment 3: 2 steps × 2 rows
    e      0 0 0 0 1 1 1
    f      0 0 0 0 1 . .               the dots are computed too, and drop out: at most one group
    g      0 0 0 0                     per segment holds them
    h      0 0 . .

Where lengths are equal, all segments but one have no steps, so nothing is lost near density 1.
Each rectangle is one fused operation (`block_lstm.py`). Masked steps are never read: one gather
takes the steps from the batch as it is, compacts rows to the left, sorts them, turns time to the
front and, for the backward direction, around; another brings the outputs back.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.block_lstm import (
    Weights,
    block_backward,
    block_forward,
    exchange_gates,
)
from lengthwise.model.kernels.first_order import first_order_only
from lengthwise.model.kernels.steps import (
    Layout,
    RealSteps,
    last_slots,
    step_slots,
    step_sources,
)

SEGMENTS = 8


def packed_lstm(
    inputs: tf.Tensor,
    steps: RealSteps,
    weights: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    state: tuple[tf.Tensor, tf.Tensor],
    *,
    backward: bool,
    sequences: bool,
    states: bool,
    segments: int = SEGMENTS,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One direction of an LSTM over the real steps of a batch.

    Args:
        inputs: (B, T, D) float32; masked steps may hold anything.
        steps: the real steps.
        weights: kernel (D, 4·H), recurrent kernel (H, 4·H) and bias (4·H,) as in Keras.
        state: h and c before the first step, (B, H) each.
        backward: run from the last real step to the first.
        sequences: whether the outputs of all steps are wanted.
        states: whether the last c is wanted.
        segments: how often the batch may shrink.

    Returns:
        Outputs (B, T, H) in the order of `inputs`, 0 at masked steps, or (B, 0, H) if not wanted;
        last h (B, H); last c (B, H), without a gradient if not wanted. For a row without any real
        step these are the state that it was given.

    Raises:
        NotImplementedError: when it is differentiated twice.
    """
    batch, total = tf.unstack(tf.shape(inputs)[:2])
    width, units = inputs.shape[2], state[0].shape[1]
    rows = tf.argsort(steps.lengths, direction="DESCENDING", stable=True)
    starts, counts = _segments(tf.gather(steps.lengths, rows), segments)
    layout = Layout(rows, _offsets(starts, counts))
    slots = step_slots(steps, layout, backward=backward) if sequences else None
    last = last_slots(steps, layout)
    real_rows = (steps.lengths > 0)[:, tf.newaxis]

    def sources(k: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        time = tf.range(starts[k], starts[k + 1])
        here = rows[: counts[k]]
        return time, here, step_sources(steps, time, here, backward=backward)

    @tf.custom_gradient
    def run(x: Any, kernel: Any, recurrent: Any, bias: Any, h: Any, c: Any) -> Any:
        gates = Weights(*map(exchange_gates, (kernel, recurrent, bias)))
        flat = tf.reshape(x, [-1, width])
        h_now, c_now = tf.gather(h, rows), tf.gather(c, rows)
        blocks = []
        for k in range(segments):
            block = block_forward(
                tf.gather(flat, sources(k)[2]), gates, h_now[: counts[k]], c_now[: counts[k]]
            )
            blocks.append(block)
            h_now, c_now = block.last
        nothing = tf.zeros([1, units], x.dtype)
        h_slots = tf.concat([*(tf.reshape(b.h, [-1, units]) for b in blocks), nothing], axis=0)
        c_slots = tf.concat([*(tf.reshape(b.c, [-1, units]) for b in blocks), nothing], axis=0)
        h_last = tf.where(real_rows, tf.gather(h_slots, last), h)
        c_last = tf.where(real_rows, tf.gather(c_slots, last), c)
        if sequences:
            outputs = tf.gather(h_slots, slots)
        else:
            outputs = tf.zeros([batch, 0, units], x.dtype)

        @first_order_only("packed")
        def gradients(outputs_up: Any, h_up: Any, c_up: Any) -> Any:
            zero = tf.zeros([1, units], x.dtype)
            outputs_up = tf.concat([tf.reshape(outputs_up, [-1, units]), zero], axis=0)
            h_rows, c_rows = tf.concat([h_up, zero], axis=0), tf.concat([c_up, zero], axis=0)
            dh = dc = tf.zeros([0, units], x.dtype)
            parts: list[Any] = []
            for k in reversed(range(segments)):
                time, here, source = sources(k)
                lengths = tf.gather(steps.lengths, here)
                ends = tf.where(time[:, tf.newaxis] == lengths - 1, here, batch)  # (n, m)
                h_gradient = tf.gather(h_rows, ends)
                if sequences:
                    real = time[:, tf.newaxis] < lengths
                    h_gradient += tf.gather(outputs_up, tf.where(real, source, batch * total))
                grown = counts[k] - tf.shape(dh)[0]
                found = block_backward(
                    blocks[k],
                    gates,
                    h_gradient,
                    tf.gather(c_rows, ends) if states else None,
                    tf.pad(dh, [[0, grown], [0, 0]]),
                    tf.pad(dc, [[0, grown], [0, 0]]),
                )
                dh, dc = found.h_before, found.c_before
                parts.insert(0, found)
            dx = tf.concat(
                [*(tf.reshape(p.inputs, [-1, width]) for p in parts), tf.zeros([1, width], x.dtype)],
                axis=0,
            )
            back = step_slots(steps, layout, backward=backward) if slots is None else slots
            place = tf.math.invert_permutation(rows)
            return (
                tf.gather(dx, back),
                *(
                    exchange_gates(tf.add_n([p.weights[i] for p in parts]))
                    for i in range(len(Weights._fields))
                ),
                tf.where(real_rows, tf.gather(dh, place), h_up),
                tf.where(real_rows, tf.gather(dc, place), c_up if states else tf.zeros_like(c_up)),
            )

        return (outputs, h_last, c_last), gradients

    return run(inputs, *weights, *state)


def _segments(lengths: tf.Tensor, segments: int) -> tuple[list[Any], list[Any]]:
    """Starts of the segments of time and their end, and how many rows run in each.

    Args:
        lengths: (B,) int32, descending.
    """
    batch = tf.shape(lengths)[0]
    group = tf.maximum((batch + segments - 1) // segments, 1)
    # A group that has no rows ends before it starts.
    longest = tf.pad(lengths, [[0, segments * group - batch]])[::group]
    ends = [longest[segments - 1 - k] for k in range(segments)]
    counts = [tf.minimum(batch, group * (segments - k)) for k in range(segments)]
    return [tf.zeros([], tf.int32), *ends], counts


def _offsets(starts: list[Any], counts: list[Any]) -> tf.Tensor:
    lengths = [end - start for start, end in zip(starts, starts[1:], strict=False)]
    rows = tf.repeat(tf.stack(counts), tf.stack(lengths))  # (longest,): rows at each step
    return tf.concat([[0], tf.cumsum(rows)], axis=0)
