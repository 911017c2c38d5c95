"""The directions of a masked LSTM: the weights of Keras layers, run by one of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.kernels import (
    Direction,
    RealSteps,
    choose_kernel,
    hybrid_lstms,
    packed_lstms,
    real_steps,
    scan_lstms,
)
from lengthwise.model.masking import left_compaction, zero_masked_steps

_KERNELS = {"packed": packed_lstms, "hybrid": hybrid_lstms, "scan": scan_lstms}


@dataclass(frozen=True)
class Wanted:
    """What of a recurrence is used: outputs of every step or the last one; the last c or not."""

    sequences: bool
    states: bool


def run_directions(
    lstms: Sequence[keras.layers.LSTM],
    inputs: tf.Tensor,
    mask: tf.Tensor | None,
    state: Sequence[tf.Tensor],
    *,
    wanted: Wanted,
    kernel: str,
    training: bool,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Runs directions with the same options over the same inputs.

    Args:
        lstms: of each direction; they hold weights and options of the cell, and `go_backwards`.
        inputs: (B, T, D); masked steps may hold anything.
        mask: (B, T) bool; None where every step is real.
        state: of each direction h and c before the first step, (B, H) each.
        wanted: what is used of the result.
        kernel: what was asked for; see `choose_kernel`.
        training: whether dropout applies.

    Returns:
        The outputs of all directions, (B, T, directions, H) in the order of `inputs` and 0 at
        masked steps, or of the last step (B, directions, H) and 0 for a row without any; and of
        each direction last h and last c (B, H), for a row without any real step the state that it
        was given.
    """
    cell = lstms[0].cell
    kernel = choose_kernel(
        kernel,
        units=lstms[0].units,
        dtype=lstms[0].compute_dtype,
        masked=mask is not None,
        plain=_is_plain(cell) and not (training and cell.recurrent_dropout),
    )
    pairs = list(zip(state[::2], state[1::2], strict=True))
    if kernel == "keras":
        found = [
            _run_keras(lstm, inputs, mask, pair, wanted, training)
            for lstm, pair in zip(lstms, pairs, strict=True)
        ]
        return tf.stack([f[0] for f in found], axis=-2), [s for f in found for s in f[1:]]

    if mask is None:
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool)
    steps = real_steps(mask)
    given = inputs.dtype
    # Sums over many steps lose too much in half precision.
    dtype = tf.float64 if given == tf.float64 else tf.float32
    directions = []
    for lstm, (h, c) in zip(lstms, pairs, strict=True):
        steps_in = inputs
        if training and cell.dropout:
            step = tf.zeros([tf.shape(inputs)[0], inputs.shape[2]], given)
            dropout: Any = lstm.cell.get_dropout_mask(step)
            steps_in = inputs * tf.convert_to_tensor(dropout)[:, tf.newaxis]
            lstm.cell.reset_dropout_mask()
        directions.append(
            Direction(
                tf.cast(steps_in, dtype),
                *_weights(lstm, dtype),
                tf.cast(h, dtype),
                tf.cast(c, dtype),
            )
        )
    outputs, states = _KERNELS[kernel](
        directions,
        steps,
        [bool(lstm.go_backwards) for lstm in lstms],
        sequences=wanted.sequences,
        states=wanted.states,
        training=training,
    )
    if not wanted.sequences:
        outputs = tf.stack([zero_empty_rows(h, steps) for h in states[::2]], axis=1)
    return tf.cast(outputs, given), [tf.cast(value, given) for value in states]


def zero_empty_rows(values: tf.Tensor, steps: RealSteps) -> tf.Tensor:
    """Puts zeros in place of the values (B, D) of rows without any real step."""
    return tf.where(steps.lengths[:, tf.newaxis] > 0, values, tf.zeros((), values.dtype))


def _is_plain(cell: Any) -> bool:
    return (
        cell.activation == keras.activations.tanh
        and cell.recurrent_activation == keras.activations.sigmoid
    )


def _weights(lstm: keras.layers.LSTM, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    cell = lstm.cell
    kernel = tf.cast(cell.kernel, dtype)
    recurrent = tf.cast(cell.recurrent_kernel, dtype)
    bias = tf.zeros([4 * lstm.units], dtype) if cell.bias is None else tf.cast(cell.bias, dtype)
    return kernel, recurrent, bias


def _run_keras(
    lstm: keras.layers.LSTM,
    inputs: tf.Tensor,
    mask: tf.Tensor | None,
    state: tuple[tf.Tensor, tf.Tensor],
    wanted: Wanted,
    training: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Keras's own LSTM, over rows compacted to the left: so cuDNN takes every mask.

    Gives outputs, h and c of one direction; see `run_directions`.
    """
    if inputs.shape[0] == 0:  # Keras's cell takes no empty batch: it is given a row, and drops it.
        inputs, h, c = (
            tf.concat([part, tf.zeros([1, *part.shape[1:]], part.dtype)], axis=0)
            for part in (inputs, *state)
        )
        outputs, h, c = _run_keras(lstm, inputs, None, (h, c), wanted, training)
        return outputs[:0], h[:0], c[:0]
    # Nor one without steps: it is given a masked one.
    total = tf.shape(inputs)[1]
    missing = [[0, 0], [0, tf.cast(total == 0, tf.int32)]]
    inputs = tf.pad(inputs, [*missing, [0, 0]])
    real_rows, compact, rank = total > 0, None, None
    if mask is not None:
        mask = tf.pad(mask, missing)
        order, rank, lengths = left_compaction(mask)
        inputs = tf.gather(zero_masked_steps(inputs, mask), order, batch_dims=1)  # (B, T, D)
        # cuDNN takes no length of 0: an empty row runs over one zero step; its result is dropped.
        compact = tf.sequence_mask(tf.maximum(lengths, 1), tf.shape(mask)[1])
        real_rows = lengths[:, tf.newaxis] > 0
    outputs, h, c = lstm(inputs, initial_state=list(state), mask=compact, training=training)
    if wanted.sequences:
        if lstm.go_backwards:  # Keras turns them around.
            outputs = tf.reverse(outputs, axis=[1])
        if mask is not None:
            outputs = zero_masked_steps(tf.gather(outputs, rank, batch_dims=1), mask)
        outputs = outputs[:, :total]
    else:
        outputs = tf.where(real_rows, outputs, tf.zeros((), outputs.dtype))
    return outputs, tf.where(real_rows, h, state[0]), tf.where(real_rows, c, state[1])
