"""A loop over time with exactly the rows that still run.

Rows are sorted, longest first; at step t the first n(t) of them run:

    row    time ──▶
    a      0 1 2 3 4 5 6        n(t) = 4 4 3 3 2 1 1
    b      0 1 2 3 4
    c      0 1 2 3              chunks of time, here of four steps, are unrolled in the loop's body
    d      0 1

A step is one product of the inputs and the state of its rows with all weights, and single
operations on the result. That product is done by oneDNN, at twice the rate of the one inside of
TensorFlow's fused LSTM operations; from some 100 units on it is most of the work, and the loop is
faster than they are. Nothing is computed for a masked step, nor is anything but the real steps ever
laid out in another order: the inputs of a chunk are gathered from the batch as it is.

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
_KEPT = 6  # i, f, o, candidate, c and h
# Rows of weights that lie a multiple of 4 KiB apart share lines of the cache; with a few columns
# more a product with them takes 10 % less time.
_BAD_STRIDE = 1024
_SPARE_COLUMNS = 16


class _Order(NamedTuple):
    """In which order steps are computed."""

    rows: tf.Tensor  # (B,) place -> row
    places: tf.Tensor  # (B,) row -> place
    counts: tf.Tensor  # (chunks·CHUNK + 1,) rows that run at each step; 0 at the end
    offsets: tf.Tensor  # (chunks·CHUNK + 1,) steps of all rows before this one
    chunks: tf.Tensor  # ()


class _Way(NamedTuple):
    """The order of one direction."""

    time: tf.Tensor  # (B, T) at which step of the recurrence a step is computed
    slots: tf.Tensor  # (B, T) number of a step in the order of computing; N where masked
    positions: tf.Tensor  # (N,) position b·T + t, in the order of computing


class _Results(NamedTuple):
    outputs: Any  # (n, H): h of all steps, by step and direction; then one row of zeros
    last_h: list[tf.Tensor]  # (B, H) of each direction, by place
    last_c: list[tf.Tensor]
    kept: Any  # (n, H), `_KEPT` for each step and direction; then c and h before the first step


def shrinking_lstms(
    directions: Sequence[Direction],
    steps: RealSteps,
    backwards: Sequence[bool],
    *,
    sequences: bool,
    states: bool,
    training: bool = True,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Directions of an LSTM over the real steps of a batch; see `packed_lstms`."""
    order = _find_order(steps)
    ways = [_find_way(steps, order, backward) for backward in backwards]
    count, last = len(ways), states or not sequences

    def regroup(flat: Sequence[Any]) -> list[Direction]:
        return [Direction(*flat[6 * d : 6 * d + 6]) for d in range(count)]

    def run(given: list[Direction], *, keep: bool) -> _Results:
        return _run(given, order, ways, keep=keep, sequences=sequences, last=last)

    @tf.custom_gradient
    def differentiable(*flat: Any) -> Any:
        given = regroup(flat)
        ran = run(given, keep=training)
        if sequences:
            outputs = tf.gather(ran.outputs.concat(), _joint_slots(steps, order, ways))
        else:
            outputs = tf.zeros([tf.shape(steps.mask)[0], 0, count, _units(given)], flat[0].dtype)
        ends = [
            tf.gather(value, order.places)
            for pair in zip(ran.last_h, ran.last_c, strict=True)
            for value in pair
        ]

        @first_order_only("packed")
        def gradients(outputs_up: Any, *last_up: Any) -> Any:
            kept = ran.kept if training else run(given, keep=True).kept
            found = _gradients(
                given,
                steps,
                order,
                ways,
                kept,
                outputs_up if sequences else None,
                # What nobody uses may have no gradient, but is none to be believed either.
                [up if last else tf.zeros_like(up) for up in last_up],
            )
            return [value for direction in found for value in direction]

        return (outputs, *ends), gradients

    flat = [tf.convert_to_tensor(value) for direction in directions for value in direction]
    outputs, *ends = differentiable(*flat)
    return outputs, ends


def _run(
    directions: list[Direction],
    order: _Order,
    ways: list[_Way],
    *,
    keep: bool,
    sequences: bool,
    last: bool,
) -> _Results:
    count, units = len(directions), _units(directions)
    dtype = directions[0].inputs.dtype
    total = order.chunks * CHUNK
    flat = [_flat(d.inputs) for d in directions]
    weights = [_spare(tf.concat([d.kernel, d.recurrent], axis=0)) for d in directions]
    biases = [_spare(d.bias) for d in directions]
    sizes = _sizes(order.counts, units)  # (chunks·CHUNK + 1, 2)
    rest = tf.stack([order.counts[0], 0])

    def body(q: Any, hs: Any, cs: Any, last_h: Any, last_c: Any, outputs: Any, kept: Any) -> Any:
        hs, cs, last_h, last_c = list(hs), list(cs), list(last_h), list(last_c)
        start = q * CHUNK
        first, end = order.offsets[start], order.offsets[start + CHUNK]
        counts = order.counts[start : start + CHUNK]
        size = tf.unstack(sizes[start : start + CHUNK + 1], CHUNK + 1)
        for d in range(count):
            inputs = tf.gather(flat[d], ways[d].positions[first:end])
            inputs = tf.split(inputs, counts, num=CHUNK)
            h, c = hs[d], cs[d]
            ended_h, ended_c = [last_h[d]], [last_c[d]]
            for j in range(CHUNK):
                number = (start + j) * count + d
                h, c = tf.slice(h, [0, 0], size[j]), tf.slice(c, [0, 0], size[j])
                joined = tf.concat([inputs[j], h], axis=1)
                gates = tf.nn.bias_add(tf.matmul(joined, weights[d]), biases[d])
                i, f, candidate, o = _split_gates(gates, units)
                i, f, o = tf.sigmoid(i), tf.sigmoid(f), tf.sigmoid(o)
                candidate = tf.tanh(candidate)
                c = f * c + i * candidate
                h = o * tf.tanh(c)
                if sequences:
                    outputs = outputs.write(number, h)
                if keep:
                    for k, value in enumerate((i, f, o, candidate, c, h)):
                        kept = kept.write(number * _KEPT + k, value)
                if last:
                    after = size[j + 1] * [1, 0]
                    ended_h.append(tf.slice(h, after, [-1, units]))
                    ended_c.append(tf.slice(c, after, [-1, units]))
            hs[d], cs[d] = h, c
            if last:  # The later a row ended, the lower is its place.
                last_h[d] = tf.concat(ended_h[::-1], axis=0)
                last_c[d] = tf.concat(ended_c[::-1], axis=0)
        return q + 1, hs, cs, last_h, last_c, outputs, kept

    def array(size: Any) -> tf.TensorArray:
        return tf.TensorArray(dtype, size=size, element_shape=[None, units], infer_shape=False)

    hs = [tf.gather(d.h, order.rows) for d in directions]
    cs = [tf.gather(d.c, order.rows) for d in directions]
    # Rows without any real step keep the state that they were given.
    last_h = [tf.slice(h, rest, [-1, units]) if last else h for h in hs]
    last_c = [tf.slice(c, rest, [-1, units]) if last else c for c in cs]
    outputs = array(total * count + 1 if sequences else 0)
    if sequences:
        outputs = outputs.write(total * count, tf.zeros([1, units], dtype))
    kept = array((total * _KEPT + 2) * count if keep else 0)
    if keep:
        for d in range(count):
            kept = kept.write((total * _KEPT) * count + 2 * d, cs[d])
            kept = kept.write((total * _KEPT) * count + 2 * d + 1, hs[d])
    unknown = [tf.TensorShape([None, units])] * count
    _, _, _, last_h, last_c, outputs, kept = tf.while_loop(
        lambda q, *_: q < order.chunks,
        body,
        (0, hs, cs, last_h, last_c, outputs, kept),
        shape_invariants=(tf.TensorShape([]), *[unknown] * 4, None, None),
        parallel_iterations=1,
    )
    return _Results(outputs, last_h, last_c, kept)


def _gradients(
    directions: list[Direction],
    steps: RealSteps,
    order: _Order,
    ways: list[_Way],
    kept: Any,
    outputs_up: tf.Tensor | None,
    last_up: Sequence[tf.Tensor],
) -> list[Direction]:
    count, units = len(directions), _units(directions)
    width: Any = directions[0].inputs.shape[2]
    dtype = directions[0].inputs.dtype
    total = order.chunks * CHUNK
    # Transposed once: a product with a transposed matrix takes longer, every time.
    kernels = [tf.transpose(d.kernel) for d in directions]
    recurrents = [tf.transpose(d.recurrent) for d in directions]
    flat = [_flat(d.inputs) for d in directions]
    sizes = _sizes(order.counts, units)
    growths = _sizes(order.counts[:-1] - order.counts[1:], units)
    up = None if outputs_up is None else tf.reshape(outputs_up, [-1, units])
    h_up = [tf.gather(last_up[2 * d], order.rows) for d in range(count)]
    c_up = [tf.gather(last_up[2 * d + 1], order.rows) for d in range(count)]

    def body(q: Any, dhs: Any, dcs: Any, dxs: Any, dws: Any, dbs: Any) -> Any:
        q -= 1
        dhs, dcs, dxs, dws, dbs = list(dhs), list(dcs), list(dxs), list(dws), list(dbs)
        start = q * CHUNK
        first, end = order.offsets[start], order.offsets[start + CHUNK]
        counts = order.counts[start : start + CHUNK]
        size = tf.unstack(sizes[start : start + CHUNK + 1], CHUNK + 1)
        growth = tf.unstack(growths[start : start + CHUNK], CHUNK)
        for d in range(count):
            here = ways[d].positions[first:end]
            ups: Any = [None] * CHUNK
            if up is not None:
                ups = tf.split(tf.gather(up, here * count + d), counts, num=CHUNK)
            numbers = [((start + j) * count + d) * _KEPT for j in range(CHUNK)]
            cells = [[kept.read(n + k) for k in range(_KEPT)] for n in numbers]
            initial = total * count * _KEPT + 2 * d
            before = numbers[0] - count * _KEPT
            c_before = kept.read(tf.where(q > 0, before + 4, initial))
            h_before = kept.read(tf.where(q > 0, before + 5, initial + 1))
            c_before = [c_before, *(values[4] for values in cells)]
            h_before = [h_before, *(values[5] for values in cells)]
            h_before = [tf.slice(h_before[j], [0, 0], size[j]) for j in range(CHUNK)]
            dh, dc = dhs[d], dcs[d]
            chunk = []
            for j in reversed(range(CHUNK)):
                # Rows that ended at this step come in.
                after = size[j + 1] * [1, 0]
                dh = tf.concat([dh, tf.slice(h_up[d], after, growth[j])], axis=0)
                dc = tf.concat([dc, tf.slice(c_up[d], after, growth[j])], axis=0)
                if up is not None:
                    dh += ups[j]
                i, f, o, candidate, c, _ = cells[j]
                tanh_c = tf.tanh(c)
                dc += _through_tanh(tanh_c, dh * o)
                gates = [
                    _through_sigmoid(i, dc * candidate),
                    _through_sigmoid(f, dc * tf.slice(c_before[j], [0, 0], size[j])),
                    _through_tanh(candidate, dc * i),
                    _through_sigmoid(o, dh * tanh_c),
                ]
                chunk.insert(0, tf.concat(gates, axis=1))
                dh, dc = tf.matmul(chunk[0], recurrents[d]), dc * f
            dhs[d], dcs[d] = dh, dc
            gates = tf.concat(chunk, axis=0)
            joined = tf.concat([tf.gather(flat[d], here), tf.concat(h_before, axis=0)], axis=1)
            dxs[d] = dxs[d].write(q, tf.matmul(gates, kernels[d]))
            dws[d] += tf.matmul(joined, gates, transpose_a=True)
            dbs[d] += tf.reduce_sum(gates, axis=0)
        return q, dhs, dcs, dxs, dws, dbs

    nothing = [tf.zeros([0, units], dtype)] * count
    # One more element, a row of zeros, is what masked steps get.
    dxs = [
        tf.TensorArray(
            dtype, size=order.chunks + 1, element_shape=[None, width], infer_shape=False
        ).write(order.chunks, tf.zeros([1, width], dtype))
        for _ in directions
    ]
    unknown = [tf.TensorShape([None, units])] * count
    known = tf.TensorShape([width + units, 4 * units])
    _, dhs, dcs, dxs, dws, dbs = tf.while_loop(
        lambda q, *_: q > 0,
        body,
        (
            order.chunks,
            nothing,
            nothing,
            dxs,
            [tf.zeros(known, dtype)] * count,
            [tf.zeros([4 * units], dtype)] * count,
        ),
        shape_invariants=(
            tf.TensorShape([]),
            unknown,
            unknown,
            [None] * count,
            [known] * count,
            [tf.TensorShape([4 * units])] * count,
        ),
        parallel_iterations=1,
    )
    found = []
    for d in range(count):
        kernel, recurrent = tf.split(dws[d], [width, units], axis=0)
        # Rows without any real step never ran: their state went through.
        rest = tf.stack([order.counts[0], 0])
        dh = tf.concat([dhs[d], tf.slice(h_up[d], rest, [-1, units])], axis=0)
        dc = tf.concat([dcs[d], tf.slice(c_up[d], rest, [-1, units])], axis=0)
        found.append(
            Direction(
                inputs=tf.gather(dxs[d].concat(), ways[d].slots),
                kernel=kernel,
                recurrent=recurrent,
                bias=dbs[d],
                h=tf.gather(dh, order.places),
                c=tf.gather(dc, order.places),
            )
        )
    return found


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
    time = tf.maximum(time, 0)
    first = tf.gather(order.offsets, time)
    slots = tf.where(steps.mask, first + order.places[:, tf.newaxis], order.offsets[-1])
    real = tf.gather(tf.reshape(slots, [-1]), steps.positions)
    positions = tf.gather(steps.positions, tf.math.invert_permutation(real))
    return _Way(time, slots, positions)


def _joint_slots(steps: RealSteps, order: _Order, ways: list[_Way]) -> tf.Tensor:
    """Numbers of the steps where those of all directions lie in one list: (B, T, directions)."""
    count = len(ways)
    slots = []
    for d, way in enumerate(ways):
        others = (count - 1) * tf.gather(order.offsets, way.time)
        within = d * tf.gather(order.counts, way.time)
        slots.append(tf.where(steps.mask, way.slots + others + within, count * order.offsets[-1]))
    return tf.stack(slots, axis=-1)


def _spare(weights: tf.Tensor) -> tf.Tensor:
    """Weights (…, 4·H) of the gates with columns of zeros behind them, where these are of use."""
    width: Any = weights.shape[-1]
    if width % _BAD_STRIDE:
        return weights
    nothing = [[0, 0]] * (len(weights.shape) - 1)
    return tf.pad(weights, [*nothing, [0, _SPARE_COLUMNS]])


def _split_gates(gates: tf.Tensor, units: int) -> list[tf.Tensor]:
    width: Any = gates.shape[-1]
    spare = [width - 4 * units] if width > 4 * units else []
    parts: Any = tf.split(gates, [units] * 4 + spare, axis=1)
    return parts[:4]


def _sizes(counts: tf.Tensor, units: int) -> tf.Tensor:
    return tf.stack([counts, tf.fill(tf.shape(counts), units)], axis=1)


def _flat(inputs: tf.Tensor) -> tf.Tensor:
    return tf.reshape(inputs, [-1, inputs.shape[2]])


def _units(directions: Sequence[Direction]) -> Any:
    return directions[0].recurrent.shape[0]


def _through_sigmoid(value: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Gradient by what went into a sigmoid, from its value and the gradient by that."""
    return tf.raw_ops.SigmoidGrad(y=value, dy=gradient)


def _through_tanh(value: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.TanhGrad(y=value, dy=gradient)
