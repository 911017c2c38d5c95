"""Fused operations over rectangles of steps: the batch shrinks a few times as rows end.

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
front and, for the backward direction, around; another brings the outputs back. Sorting and turning
need these gathers anyway, so a mask that is compact already costs no more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.block_lstm import (
    Block,
    Weights,
    block_backward,
    block_forward,
)
from lengthwise.model.kernels.direction import Direction
from lengthwise.model.kernels.first_order import first_order_only
from lengthwise.model.kernels.steps import (
    Layout,
    RealSteps,
    last_slots,
    step_slots,
    step_sources,
)

# A segment costs some 50 µs, whatever is in it.
SEGMENTS = 4


def segmented_lstm(
    direction: Direction,
    steps: RealSteps,
    *,
    backward: bool,
    sequences: bool,
    states: bool,
    segments: int = SEGMENTS,
    name: str = "packed",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One direction of an LSTM over the real steps of a batch.

    Args:
        direction: of float32.
        steps: the real steps.
        backward: run from the last real step to the first.
        sequences: whether the outputs of all steps are wanted.
        states: whether the last states are wanted; last h always is where `sequences` is False.
        segments: how often the batch may shrink; 1 for one segment that all rows run through.
        name: of the kernel, for messages.

    Returns:
        Outputs (B, T, H) in the order of the inputs, 0 at masked steps, or (B, 0, H) if not wanted;
        last h (B, H), without a gradient if just the outputs of all steps are wanted; last c (B, H)
        or something else if not wanted. For a row without any real step these are the state that it
        was given.

    Raises:
        NotImplementedError: when it is differentiated twice.
    """
    batch = tf.shape(direction.inputs)[0]
    width: Any = direction.inputs.shape[2]
    units: Any = direction.recurrent.shape[0]
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

    def run_blocks(x: Any, gates: Weights, h: Any, c: Any) -> list[Block]:
        flat = tf.reshape(x, [-1, width])
        h_now, c_now = tf.gather(h, rows), tf.gather(c, rows)
        blocks = []
        for k in range(len(counts)):
            block = block_forward(
                tf.gather(flat, sources(k)[2]), gates, h_now[: counts[k]], c_now[: counts[k]]
            )
            blocks.append(block)
            h_now, c_now = block.last
        return blocks

    def collect(blocks: list[Block], h: Any, c: Any) -> tuple[Any, Any, Any]:
        nothing = tf.zeros([1, units], h.dtype)
        h_slots = tf.concat([*(tf.reshape(b.h, [-1, units]) for b in blocks), nothing], axis=0)
        outputs = tf.gather(h_slots, slots) if sequences else tf.zeros([batch, 0, units], h.dtype)
        if states:
            c_slots = tf.concat([*(tf.reshape(b.c, [-1, units]) for b in blocks), nothing], axis=0)
            c = tf.where(real_rows, tf.gather(c_slots, last), c)
        return outputs, tf.where(real_rows, tf.gather(h_slots, last), h), c

    @tf.custom_gradient
    def run(x: Any, kernel: Any, recurrent: Any, bias: Any, h: Any, c: Any) -> Any:
        gates = Weights(kernel, recurrent, bias)
        blocks = run_blocks(x, gates, h, c)
        results = collect(blocks, h, c)

        @first_order_only(name, x, kernel, recurrent, bias, h, c)
        def gradients(outputs_up: Any, h_up: Any, c_up: Any) -> Any:
            zero = tf.zeros([1, units], x.dtype)
            outputs_up = tf.reshape(outputs_up, [-1, units])
            h_rows, c_rows = tf.concat([h_up, zero], axis=0), tf.concat([c_up, zero], axis=0)
            dh = dc = tf.zeros([0, units], x.dtype)
            parts: list[Any] = []
            for k in reversed(range(len(counts))):
                time, here, source = sources(k)
                lengths = tf.gather(steps.lengths, here)
                h_gradient: Any = None
                c_gradient = None
                if sequences:
                    real = (time[:, tf.newaxis] < lengths)[:, :, tf.newaxis]
                    h_gradient = tf.gather(outputs_up, source)
                    h_gradient = tf.where(real, h_gradient, tf.zeros([], x.dtype))
                if states or not sequences:
                    ends = tf.where(time[:, tf.newaxis] == lengths - 1, here, batch)  # (n, m)
                    at_end = tf.gather(h_rows, ends)
                    h_gradient = at_end if h_gradient is None else h_gradient + at_end
                    c_gradient = tf.gather(c_rows, ends) if states else None
                grown = counts[k] - tf.shape(dh)[0]
                found = block_backward(
                    blocks[k],
                    gates,
                    h_gradient,
                    c_gradient,
                    tf.pad(dh, [[0, grown], [0, 0]]),
                    tf.pad(dc, [[0, grown], [0, 0]]),
                )
                dh, dc = found.h_before, found.c_before
                parts.insert(0, found)
            dx = tf.concat(
                [
                    *(tf.reshape(p.inputs, [-1, width]) for p in parts),
                    tf.zeros([1, width], x.dtype),
                ],
                axis=0,
            )
            back = step_slots(steps, layout, backward=backward) if slots is None else slots
            place = tf.math.invert_permutation(rows)
            # Rows without any real step never ran.
            rest = tf.zeros([batch - tf.shape(dh)[0], units], x.dtype)
            dh, dc = tf.concat([dh, rest], axis=0), tf.concat([dc, rest], axis=0)
            return (
                tf.gather(dx, back),
                *(tf.add_n([p.weights[i] for p in parts]) for i in range(len(Weights._fields))),
                tf.where(real_rows, tf.gather(dh, place), h_up),
                tf.where(real_rows, tf.gather(dc, place), c_up if states else tf.zeros_like(c_up)),
            )

        return results, gradients

    return run(*map(tf.convert_to_tensor, direction))


def _segments(lengths: tf.Tensor, segments: int) -> tuple[list[Any], list[Any]]:
    """Starts of the segments of time and their end, and how many rows run in each.

    Args:
        lengths: (B,) int32, descending.
        segments: how many groups of rows; 1 for one segment that all rows run through.
    """
    batch = tf.shape(lengths)[0]
    group = tf.maximum((batch + segments - 1) // segments, 1)
    missing = tf.zeros([segments * group - batch], tf.int32)
    ends = tf.concat([lengths, missing], axis=0)[::group]  # (segments,), the longest first
    if segments == 1:
        return [tf.zeros([], tf.int32), ends[0]], [batch]
    starts = [tf.zeros([], tf.int32), *(ends[segments - 1 - k] for k in range(segments))]
    counts = [tf.reduce_sum(tf.cast(lengths > start, tf.int32)) for start in starts[:-1]]
    return starts, counts


def _offsets(starts: list[Any], counts: list[Any]) -> tf.Tensor:
    lengths = [end - start for start, end in pairwise(starts)]
    rows = tf.repeat(tf.stack(counts), tf.stack(lengths))  # (longest,): rows at each step
    return tf.concat([[0], tf.cumsum(rows)], axis=0)
