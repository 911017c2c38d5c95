"""TensorFlow's fused LSTM operations over a rectangle of steps, with gradients that are right.

`BlockLSTMV2` runs the whole recurrence in one operation. What must be known about it:

- its registered gradient is that of `BlockLSTM`, whose gates lie otherwise: never differentiate it;
- its gates lie as in Keras: input, forget, candidate, output. Those of `LSTMBlockCellGrad`, used in
  the loop below, lie as input, candidate, forget, output;
- `seq_len_max` outside of [0, T] ends the process, and outputs past it are uninitialised memory:
  here it is always T, and a shorter row is the caller's business;
- it knows float32 only (and float16, too coarse for sums over time).

Its gradient comes in two forms. `BlockLSTMGradV2` is one operation too, but adds the gradient of
the weights step by step, as products of B rows. The loop below leaves only what must be sequential,
one product with the recurrent weights per step, and computes the gradients of inputs and weights
after it as products over all steps. The operation wins where a step is little work:

    (B, T, D, H)          operation  loop     time of the backward pass, one thread, loop = 1
    (32,  50, 16,  64)    0.6        1
    (64, 128, 32, 128)    1.1        1
    (64, 400, 64, 256)    2.9        1
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

# From so many units on the loop wins; see above.
_LOOP_UNITS = 112


class Weights(NamedTuple):
    """Weights with gates as in Keras: input, forget, candidate, output."""

    kernel: tf.Tensor  # (D, 4·H)
    recurrent: tf.Tensor  # (H, 4·H)
    bias: tf.Tensor  # (4·H,)


class Block(NamedTuple):
    """All that a rectangle of steps computed; (T, B, H) each, and what it started from."""

    inputs: tf.Tensor  # (T, B, D)
    h_before: tf.Tensor  # (B, H)
    c_before: tf.Tensor  # (B, H)
    i: tf.Tensor
    c: tf.Tensor
    f: tf.Tensor
    o: tf.Tensor
    candidate: tf.Tensor
    tanh_c: tf.Tensor
    h: tf.Tensor

    @property
    def last(self) -> tuple[tf.Tensor, tf.Tensor]:
        """State after the last step, (B, H) each; that before the first where there is no step."""
        # Concatenating and taking the last also serves a rectangle of no steps, without a branch.
        h = tf.concat([self.h_before[tf.newaxis], self.h[-1:]], axis=0)[-1]
        c = tf.concat([self.c_before[tf.newaxis], self.c[-1:]], axis=0)[-1]
        return h, c


class BlockGradient(NamedTuple):
    """Gradients of a loss by what went into a rectangle of steps."""

    inputs: tf.Tensor  # (T, B, D)
    h_before: tf.Tensor  # (B, H)
    c_before: tf.Tensor  # (B, H)
    weights: Weights


def block_forward(
    inputs: tf.Tensor, weights: Weights, h_before: tf.Tensor, c_before: tf.Tensor
) -> Block:
    """Runs T steps over B rows.

    Args:
        inputs: (T, B, D) float32.
        weights: see `Weights`.
        h_before, c_before: (B, H).
    """
    units: Any = weights.recurrent.shape[0]
    peephole = tf.zeros([units], inputs.dtype)
    values = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.shape(inputs, out_type=tf.int64)[0],
        x=inputs,
        cs_prev=c_before,
        h_prev=h_before,
        w=tf.concat([weights.kernel, weights.recurrent], axis=0),
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=weights.bias,
        use_peephole=False,
        cell_clip=0.0,
    )
    return Block(inputs, h_before, c_before, *values)


def block_backward(
    block: Block,
    weights: Weights,
    h_gradient: tf.Tensor,
    c_gradient: tf.Tensor | None,
    h_after: tf.Tensor,
    c_after: tf.Tensor,
) -> BlockGradient:
    """Gradients through T steps.

    Args:
        block: of the forward pass.
        weights: of the forward pass.
        h_gradient: (T, B, H), gradient by the output of each step.
        c_gradient: (T, B, H), gradient by the cell of each step; None for none.
        h_after, c_after: (B, H), gradients by the state that the next steps started from.
    """
    units: Any = weights.recurrent.shape[0]
    backward = _backward_loop if units >= _LOOP_UNITS else _backward_operation
    return backward(block, weights, h_gradient, c_gradient, h_after, c_after)


def _backward_operation(
    block: Block,
    weights: Weights,
    h_gradient: tf.Tensor,
    c_gradient: tf.Tensor | None,
    h_after: tf.Tensor,
    c_after: tf.Tensor,
) -> BlockGradient:
    width: Any = weights.kernel.shape[0]
    units: Any = weights.recurrent.shape[0]
    peephole = tf.zeros([units], block.inputs.dtype)
    if c_gradient is None:
        c_gradient = tf.zeros_like(h_gradient)
    gradients = tf.raw_ops.BlockLSTMGradV2(
        seq_len_max=tf.shape(block.inputs, out_type=tf.int64)[0],
        x=block.inputs,
        cs_prev=block.c_before,
        h_prev=block.h_before,
        w=tf.concat([weights.kernel, weights.recurrent], axis=0),
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=weights.bias,
        i=block.i,
        cs=block.c,
        f=block.f,
        o=block.o,
        ci=block.candidate,
        co=block.tanh_c,
        h=block.h,
        cs_grad=_add_to_last_step(c_gradient, c_after),
        h_grad=_add_to_last_step(h_gradient, h_after),
        use_peephole=False,
    )
    some = tf.shape(block.inputs)[0] > 0
    kernel, recurrent = tf.split(gradients.w_grad, [width, units], axis=0)
    return BlockGradient(
        inputs=gradients.x_grad,
        # Where there is no step, the operation leaves these as it found them.
        h_before=tf.where(some, gradients.h_prev_grad, h_after),
        c_before=tf.where(some, gradients.cs_prev_grad, c_after),
        weights=Weights(
            tf.where(some, kernel, tf.zeros_like(kernel)),
            tf.where(some, recurrent, tf.zeros_like(recurrent)),
            tf.where(some, gradients.b_grad, tf.zeros_like(gradients.b_grad)),
        ),
    )


def _backward_loop(
    block: Block,
    weights: Weights,
    h_gradient: tf.Tensor,
    c_gradient: tf.Tensor | None,
    h_after: tf.Tensor,
    c_after: tf.Tensor,
) -> BlockGradient:
    width: Any = weights.kernel.shape[0]
    units: Any = weights.recurrent.shape[0]
    dtype = block.inputs.dtype
    total, batch = tf.unstack(tf.shape(block.h)[:2])
    peephole = tf.zeros([units], dtype)
    nothing = tf.zeros([batch, 0], dtype)  # the operation looks at the shapes of its inputs only
    # Transposed once: a product with a transposed matrix takes twice as long, every time.
    transposed = tf.transpose(_exchange_gates(weights.recurrent))
    c_before = tf.concat([block.c_before[tf.newaxis], block.c[:-1]], axis=0)[:total]

    def body(t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, written: tf.TensorArray):
        t -= 1
        dc, gates, *_ = tf.raw_ops.LSTMBlockCellGrad(
            x=nothing,
            cs_prev=c_before[t],
            h_prev=dh,
            w=weights.recurrent,
            wci=peephole,
            wcf=peephole,
            wco=peephole,
            b=weights.bias,
            i=block.i[t],
            cs=block.c[t],
            f=block.f[t],
            o=block.o[t],
            ci=block.candidate[t],
            co=block.tanh_c[t],
            cs_grad=dc if c_gradient is None else dc + c_gradient[t],
            h_grad=dh + h_gradient[t],
            use_peephole=False,
        )
        return t, tf.matmul(gates, transposed), dc, written.write(t, gates)

    # One more element, without rows: a list of no elements cannot be concatenated.
    written = tf.TensorArray(
        dtype, size=total + 1, element_shape=[None, 4 * units], infer_shape=False
    ).write(total, tf.zeros([0, 4 * units], dtype))
    _, h_before, c_first, written = tf.while_loop(
        lambda t, *_: t > 0,
        body,
        (total, h_after, c_after, written),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, units]),
            tf.TensorShape([None, units]),
            None,
        ),
        parallel_iterations=1,
    )
    gates = tf.reshape(written.concat(), [-1, 4 * units])  # (T·B, 4·H)
    kernel = _exchange_gates(weights.kernel)
    inputs = tf.reshape(block.inputs, [-1, width])
    outputs = tf.reshape(block.h, [-1, units])
    later = tf.matmul(outputs[: tf.maximum(total - 1, 0) * batch], gates[batch:], transpose_a=True)
    first = tf.matmul(block.h_before[: total * batch], gates[:batch], transpose_a=True)
    return BlockGradient(
        inputs=tf.reshape(tf.matmul(gates, kernel, transpose_b=True), [total, batch, width]),
        h_before=h_before,
        c_before=c_first,
        weights=Weights(
            _exchange_gates(tf.matmul(inputs, gates, transpose_a=True)),
            _exchange_gates(later + first),
            _exchange_gates(tf.reduce_sum(gates, axis=0)),
        ),
    )


def _add_to_last_step(values: tf.Tensor, addend: tf.Tensor) -> tf.Tensor:
    return tf.concat([values[:-1], values[-1:] + addend], axis=0)


def _exchange_gates(weights: tf.Tensor) -> tf.Tensor:
    """Swaps forget gate and candidate."""
    i, second, third, o = tf.split(weights, 4, axis=-1)
    return tf.concat([i, third, second, o], axis=-1)
