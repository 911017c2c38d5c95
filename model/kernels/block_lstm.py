"""TensorFlow's fused LSTM operations over a rectangle of steps, with gradients that are right.

`BlockLSTMV2` runs the whole recurrence in one operation. What must be known about it:

- its registered gradient is that of `BlockLSTM`, whose gates lie otherwise: never differentiate it;
- its gates lie as in Keras: input, forget, candidate, output;
- `seq_len_max` outside of [0, T] ends the process, and outputs past it are uninitialised memory:
  here it is always T, and a shorter row is the caller's business;
- it knows float32 only (and float16, too coarse for sums over time).

Its gradient is `BlockLSTMGradV2`, one operation too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


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


def _add_to_last_step(values: tf.Tensor, addend: tf.Tensor) -> tf.Tensor:
    return tf.concat([values[:-1], values[-1:] + addend], axis=0)
