"""A loop over time with exactly the rows that still run.

Rows are sorted, longest first; at step t the first n(t) of them run:

    row    time ──▶
    a      0 1 2 3 4 5 6        n(t) = 4 4 3 3 2 1 1
    b      0 1 2 3 4
    c      0 1 2 3              chunks of time, here of four steps, are unrolled in the loop's body
    d      0 1

A step is a product for each gate, of the inputs, a one and the state of its rows with the weights,
that of the one being the bias, and single operations on the results. Those products are done by
oneDNN, at twice the rate of the ones inside of TensorFlow's fused LSTM operations; from some 100
units on they are most of the work, and the loop is faster than they are. Gates come out apart, so
that nothing has to split them. TensorFlow leaves a product that fits the second cache to one
thread, so that the loops of two directions run beside each other; it shares a batch of products, or
one for all gates of a wide layer, and threads then wait for each other at every step. Nothing is
computed for a masked step, nor is anything but the real steps ever laid out in another order: the
inputs of a chunk are gathered from the batch as it is, and outputs are put in their places once.

Backward, only what must be sequential runs step by step: one product with the recurrent weights.
Gradients of inputs and weights are products over all steps of a chunk, added up chunk by chunk, so
that the gradients of the gates of all steps never stand in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from lengthwise.model.kernels.direction import Direction
from lengthwise.model.kernels.first_order import first_order_only
from lengthwise.model.kernels.steps import RealSteps

CHUNK = 8


class _Order(NamedTuple):
    """In which order steps are computed."""

    rows: tf.Tensor  # (B,) place -> row
    places: tf.Tensor  # (B,) row -> place
    counts: tf.Tensor  # (chunks·CHUNK + 1,) rows that run at each step; 0 at the end
    offsets: tf.Tensor  # (chunks·CHUNK + 1,) steps of all rows before this one
    chunks: tf.Tensor  # ()


class _Way(NamedTuple):
    """The order of one direction."""

    slots: tf.Tensor  # (B, T) number of a step in the order of computing; N where masked
    positions: tf.Tensor  # (N,) position b·T + t, in the order of computing


class _Results(NamedTuple):
    """What one direction computed, by place."""

    outputs: tf.TensorArray  # h of each step
    last_h: tf.Tensor  # (B, H)
    last_c: tf.Tensor  # (B, H)
    gates: tf.TensorArray  # (4, n, H) of each step: tanh of i / 2, f / 2, o / 2 and candidate
    cells: tf.TensorArray  # (n, H): c of each step; then c and h before each chunk


def shrinking_lstms(
    directions: Sequence[Direction],
    steps: RealSteps,
    backwards: Sequence[bool],
    *,
    sequences: bool,
    states: bool,
    training: bool = True,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Directions of an LSTM over the real steps of a batch; see `packed_lstms`.

    Each direction is a loop of its own: two threads in one loop would wait for each other.
    """
    order = _find_order(steps)
    ways = [_find_way(steps, order, backward) for backward in backwards]
    last = states or not sequences
    # Where the outputs of each direction lie in those of the layer, (B·T·directions, H).
    spots = [way.positions * len(ways) + d for d, way in enumerate(ways)]

    def run(flat: Sequence[Any], *, keep: bool) -> list[_Results]:
        return [
            _run(direction, order, way, keep=keep, sequences=sequences, last=last)
            for direction, way in zip(_regroup(flat), ways, strict=True)
        ]

    @tf.custom_gradient
    def differentiable(*flat: Any) -> Any:
        ran = run(flat, keep=training)
        if sequences:
            outputs = _stitch([one.outputs.concat() for one in ran], spots, steps)
        else:
            units = ran[0].last_h.shape[1]
            outputs = tf.zeros([tf.shape(steps.mask)[0], 0, len(ways), units], flat[0].dtype)
        ends = [tf.gather(end, order.places) for one in ran for end in (one.last_h, one.last_c)]

        @first_order_only("packed", *flat)
        def gradients(outputs_up: Any, *last_up: Any) -> Any:
            found = []
            kept = ran if training else run(flat, keep=True)
            for d, direction in enumerate(_regroup(flat)):
                found += _gradients(
                    direction,
                    steps,
                    order,
                    ways[d],
                    kept[d],
                    (_flat(outputs_up), spots[d]) if sequences else None,
                    # What nobody uses may have no gradient, but is none to be believed either.
                    *(up if last else tf.zeros_like(up) for up in last_up[2 * d : 2 * d + 2]),
                )
            return found

        return (outputs, *ends), gradients

    flat = [tf.convert_to_tensor(value) for direction in directions for value in direction]
    outputs, *ends = differentiable(*flat)
    return outputs, ends


def _regroup(flat: Sequence[Any]) -> list[Direction]:
    count = len(Direction._fields)
    return [Direction(*flat[k : k + count]) for k in range(0, len(flat), count)]


def _run(
    direction: Direction, order: _Order, way: _Way, *, keep: bool, sequences: bool, last: bool
) -> _Results:
    units: Any = direction.recurrent.shape[0]
    dtype = direction.inputs.dtype
    total = order.chunks * CHUNK
    flat = _flat(direction.inputs)
    weights = _by_gate(direction)
    sizes = _sizes(order.counts, units)  # (chunks·CHUNK + 1, 2)
    rest = tf.stack([order.counts[0], 0])

    def body(
        q: Any, h: Any, c: Any, last_h: Any, last_c: Any, outputs: Any, gates: Any, cells: Any
    ) -> Any:
        start = q * CHUNK
        first, end = order.offsets[start], order.offsets[start + CHUNK]
        size = tf.unstack(sizes[start : start + CHUNK + 1], CHUNK + 1)
        inputs = tf.gather(flat, way.positions[first:end])
        inputs = tf.concat([inputs, tf.ones([end - first, 1], dtype)], axis=1)
        inputs = tf.split(inputs, order.counts[start : start + CHUNK], num=CHUNK)
        ended_h, ended_c = [last_h], [last_c]
        if keep:
            cells = cells.write(total + 2 * q, c).write(total + 2 * q + 1, h)
        for j in range(CHUNK):
            t = start + j
            h, c = tf.slice(h, [0, 0], size[j]), tf.slice(c, [0, 0], size[j])
            joined = tf.concat([inputs[j], h], axis=1)
            values = [tf.tanh(tf.matmul(joined, gate)) for gate in weights]
            i, f, o = (0.5 * value + 0.5 for value in values[:3])
            candidate = values[3]
            c = f * c + i * candidate
            h = o * tf.tanh(c)
            if sequences:
                outputs = outputs.write(t, h)
            if keep:
                gates = gates.write(t, tf.stack(values))
                cells = cells.write(t, c)
            if last:
                after = size[j + 1] * [1, 0]
                ended_h.append(tf.slice(h, after, [-1, units]))
                ended_c.append(tf.slice(c, after, [-1, units]))
        if last:  # The later a row ended, the lower is its place.
            last_h = tf.concat(ended_h[::-1], axis=0)
            last_c = tf.concat(ended_c[::-1], axis=0)
        return q + 1, h, c, last_h, last_c, outputs, gates, cells

    def array(size: Any, *shape: int | None) -> tf.TensorArray:
        return tf.TensorArray(dtype, size=size, element_shape=shape, infer_shape=False)

    h, c = tf.gather(direction.h, order.rows), tf.gather(direction.c, order.rows)
    # Rows without any real step keep the state that they were given.
    last_h, last_c = (tf.slice(x, rest, [-1, units]) if last else x for x in (h, c))
    outputs = array(total + 1 if sequences else 0, None, units)
    if sequences:  # No list to be joined is empty.
        outputs = outputs.write(total, tf.zeros([0, units], dtype))
    gates = array(total if keep else 0, 4, None, units)
    cells = array(total + 2 * order.chunks if keep else 0, None, units)
    unknown = tf.TensorShape([None, units])
    _, _, _, *results = tf.while_loop(
        lambda q, *_: q < order.chunks,
        body,
        (0, h, c, last_h, last_c, outputs, gates, cells),
        shape_invariants=(tf.TensorShape([]), *[unknown] * 4, *[None] * 3),
        parallel_iterations=1,
    )
    last_h, last_c, outputs, gates, cells = results
    return _Results(outputs, last_h, last_c, gates, cells)


def _gradients(
    direction: Direction,
    steps: RealSteps,
    order: _Order,
    way: _Way,
    kept: _Results,
    outputs_up: tuple[tf.Tensor, tf.Tensor] | None,
    h_up: tf.Tensor,
    c_up: tf.Tensor,
) -> Direction:
    width: Any = direction.inputs.shape[2]
    units: Any = direction.recurrent.shape[0]
    dtype = direction.inputs.dtype
    total = order.chunks * CHUNK
    # Transposed once: a product with a transposed matrix takes longer, every time.
    kernel, recurrent = tf.transpose(direction.kernel), tf.transpose(direction.recurrent)
    flat = _flat(direction.inputs)
    sizes = _sizes(order.counts, units)
    growths = _sizes(order.counts[:-1] - order.counts[1:], units)
    h_up, c_up = tf.gather(h_up, order.rows), tf.gather(c_up, order.rows)

    def body(q: Any, dh: Any, dc: Any, dx: Any, dw: Any, db: Any) -> Any:
        q -= 1
        start = q * CHUNK
        first, end = order.offsets[start], order.offsets[start + CHUNK]
        here = way.positions[first:end]
        size = tf.unstack(sizes[start : start + CHUNK + 1], CHUNK + 1)
        growth = tf.unstack(growths[start : start + CHUNK], CHUNK)
        ups: Any = [None] * CHUNK
        if outputs_up is not None:
            up, spots = outputs_up
            counts = order.counts[start : start + CHUNK]
            ups = tf.split(tf.gather(up, spots[first:end]), counts, num=CHUNK)
        c = [kept.cells.read(t) for t in (total + 2 * q, *(start + j for j in range(CHUNK)))]
        h_before = [tf.slice(kept.cells.read(total + 2 * q + 1), [0, 0], size[0])]
        chunk = []
        for j in reversed(range(CHUNK)):
            # Rows that ended at this step come in.
            after = size[j + 1] * [1, 0]
            dh = tf.concat([dh, tf.slice(h_up, after, growth[j])], axis=0)
            dc = tf.concat([dc, tf.slice(c_up, after, growth[j])], axis=0)
            if outputs_up is not None:
                dh += ups[j]
            i, f, o, candidate = _open(kept.gates.read(start + j))
            tanh_c = tf.tanh(c[j + 1])
            if j + 1 < CHUNK:
                h_before.insert(1, tf.slice(o * tanh_c, [0, 0], size[j + 1]))
            dc += _through_tanh(tanh_c, dh * o)
            gates = [
                _through_sigmoid(i, dc * candidate),
                _through_sigmoid(f, dc * tf.slice(c[j], [0, 0], size[j])),
                _through_tanh(candidate, dc * i),
                _through_sigmoid(o, dh * tanh_c),
            ]
            chunk.insert(0, tf.concat(gates, axis=1))
            dh, dc = tf.matmul(chunk[0], recurrent), dc * f
        gates = tf.concat(chunk, axis=0)
        joined = tf.concat([tf.gather(flat, here), tf.concat(h_before, axis=0)], axis=1)
        dx = dx.write(q, tf.matmul(gates, kernel))
        dw += tf.matmul(joined, gates, transpose_a=True)
        db += tf.reduce_sum(gates, axis=0)
        return q, dh, dc, dx, dw, db

    nothing = tf.zeros([0, units], dtype)
    # One more element, a row of zeros, is what masked steps get.
    dx = tf.TensorArray(
        dtype, size=order.chunks + 1, element_shape=[None, width], infer_shape=False
    ).write(order.chunks, tf.zeros([1, width], dtype))
    unknown = tf.TensorShape([None, units])
    known = [tf.TensorShape([width + units, 4 * units]), tf.TensorShape([4 * units])]
    _, dh, dc, dx, dw, db = tf.while_loop(
        lambda q, *_: q > 0,
        body,
        (order.chunks, nothing, nothing, dx, *(tf.zeros(shape, dtype) for shape in known)),
        shape_invariants=(tf.TensorShape([]), unknown, unknown, None, *known),
        parallel_iterations=1,
    )
    # Rows without any real step never ran: their state went through.
    rest = tf.stack([order.counts[0], 0])
    dh = tf.concat([dh, tf.slice(h_up, rest, [-1, units])], axis=0)
    dc = tf.concat([dc, tf.slice(c_up, rest, [-1, units])], axis=0)
    return Direction(
        inputs=tf.gather(dx.concat(), way.slots),
        kernel=dw[:width],
        recurrent=dw[width:],
        bias=db,
        h=tf.gather(dh, order.places),
        c=tf.gather(dc, order.places),
    )


def _find_order(steps: RealSteps) -> _Order:
    rows = tf.argsort(steps.lengths, direction="DESCENDING", stable=True)
    lengths = tf.gather(steps.lengths, rows)
    chunks = (tf.reduce_max(tf.concat([[0], lengths], axis=0)) + CHUNK - 1) // CHUNK
    time = tf.range(chunks * CHUNK + 1)
    counts = tf.reduce_sum(tf.cast(time[:, tf.newaxis] < lengths, tf.int32), axis=1)
    return _Order(
        rows=rows,
        places=tf.math.invert_permutation(rows),
        counts=counts,
        offsets=tf.cumsum(counts, exclusive=True),
        chunks=chunks,
    )


def _find_way(steps: RealSteps, order: _Order, backward: bool) -> _Way:
    time = steps.lengths[:, tf.newaxis] - 1 - steps.ranks if backward else steps.ranks
    first = tf.gather(order.offsets, tf.maximum(time, 0))
    slots = tf.where(steps.mask, first + order.places[:, tf.newaxis], order.offsets[-1])
    real = tf.gather(tf.reshape(slots, [-1]), steps.positions)
    positions = tf.gather(steps.positions, tf.math.invert_permutation(real))
    return _Way(slots, positions)


def _stitch(
    outputs: Sequence[tf.Tensor], spots: Sequence[tf.Tensor], steps: RealSteps
) -> tf.Tensor:
    """Puts outputs (N, H) of each direction at their spots.

    Returns:
        (B, T, directions, H); 0 at masked steps.
    """
    count = len(outputs)
    units: Any = outputs[0].shape[1]
    masked = tf.cast(tf.where(tf.logical_not(tf.reshape(steps.mask, [-1])))[:, 0], tf.int32)
    masked = tf.reshape(masked[:, tf.newaxis] * count + tf.range(count), [-1])
    placed = tf.raw_ops.ParallelDynamicStitch(
        indices=[*spots, masked],
        data=[*outputs, tf.zeros([tf.size(masked), units], outputs[0].dtype)],
    )
    return tf.reshape(placed, tf.concat([tf.shape(steps.mask), [count, units]], axis=0))


def _by_gate(direction: Direction) -> list[tf.Tensor]:
    """Weights of input, forget, output and candidate, (D + 1 + H, H) each, the bias in row D.

    Those of the sigmoids are halved: sigmoid(x) = 0.5·tanh(x / 2) + 0.5, and a tanh takes less time
    than a sigmoid.
    """
    kernel, recurrent, bias = direction.kernel, direction.recurrent, direction.bias
    weights = tf.concat([kernel, bias[tf.newaxis], recurrent], axis=0)
    i, f, candidate, o = tf.split(weights, 4, axis=1)
    return [0.5 * i, 0.5 * f, 0.5 * o, candidate]


def _open(gates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Values (n, H) of input, forget, output and candidate, from tanh (4, n, H) of the gates."""
    sigmoids, candidate = tf.split(gates, [3, 1])
    i, f, o = tf.unstack(0.5 * sigmoids + 0.5)
    return i, f, o, candidate[0]


def _sizes(counts: tf.Tensor, units: int) -> tf.Tensor:
    return tf.stack([counts, tf.fill(tf.shape(counts), units)], axis=1)


def _flat(inputs: tf.Tensor) -> tf.Tensor:
    return tf.reshape(inputs, [-1, inputs.shape[-1]])


def _through_sigmoid(value: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Gradient by what went into a sigmoid, from its value and the gradient by that."""
    return tf.raw_ops.SigmoidGrad(y=value, dy=gradient)


def _through_tanh(value: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.TanhGrad(y=value, dy=gradient)
