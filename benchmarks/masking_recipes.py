"""The ways people mask a BiLSTM, each as a function, with what is to be said about it.

A recipe gets padded rows and says what a Keras `Bidirectional(LSTM)`, or what stands in its place,
makes of them: outputs of all steps and the last h of both directions. `recipes.py` measures it
against each sequence run alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.masked_rows import UNITS, WIDTH, Rows
from benchmarks.packed_sequence import run_packed
from lengthwise.model import MaskedBiLSTM

L = keras.layers
_RAGGED: Any = tf.RaggedTensor


@dataclass(frozen=True)
class Recipe:
    """A way to mask.

    Attributes:
        name: what people call it.
        rows: kind of the rows that it is measured on.
        run: what it computes: outputs (B, T, 2·H) and last h of both directions (B, 2·H).
        right: whether that is what each sequence alone gives.
        when: when it is right, or why it is not.
        ours: the line of Lengthwise that does it.
        needs: a package that Lengthwise does not install.
    """

    name: str
    rows: str
    run: Callable[[Rows], tuple[Any, Any]]
    right: bool
    when: str
    ours: str = "MaskedBiLSTM(units)(x, mask=mask)"
    needs: str | None = None


def _run(rows: Rows, inputs: Any, mask: Any = None) -> tuple[Any, Any]:
    outputs, forward, _, backward, _ = rows.bilstm(inputs, mask=mask)
    return outputs, tf.concat([forward, backward], axis=-1)


def _times_padding(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, rows.steps * (1 - rows.float_mask))


def _after_normalization(rows: Rows) -> tuple[Any, Any]:
    # The recipe is right if the real steps are those that the mask was meant for: undo it after.
    shifted = (rows.steps - 0.5) / 2.0
    masked = L.Masking(-1.0)(shifted)
    return _run(rows, masked * 2.0 + 0.5, masked._keras_mask)


def _two_maskings(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, L.Masking(-1.0)(L.Masking(0.0)(rows.steps)))


def _operation_after_masking(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, L.Masking(0.0)(rows.steps) * 1.0)


class _InferredMask(L.Layer):
    """Takes every step that is not 0 in all features for a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return tf.reduce_any(tf.not_equal(inputs, 0), axis=-1)


def _inferred(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, _InferredMask()(rows.steps))


def _outputs_times_mask(rows: Rows) -> tuple[Any, Any]:
    outputs, states = _run(rows, rows.steps)
    return outputs * rows.float_mask, states


def _last_column(rows: Rows) -> tuple[Any, Any]:
    outputs, _ = _run(rows, rows.steps, tf.constant(rows.mask))
    return outputs, outputs[:, -1]


def _unrolled(rows: Rows) -> tuple[Any, Any]:
    inner = L.LSTM(UNITS, return_sequences=True, return_state=True, unroll=True)
    layer = L.Bidirectional(inner)
    layer.build((None, 12, WIDTH))
    for theirs, ours in zip(layer.weights, rows.bilstm.weights, strict=True):
        theirs._value = ours._value  # the same variables, so that gradients can be compared
    outputs, forward, _, backward, _ = layer(rows.steps, mask=tf.constant(rows.mask))
    return outputs, tf.concat([forward, backward], axis=-1)


def _fixed_length(rows: Rows) -> tuple[Any, Any]:
    cut = rows.steps[:, :8]
    outputs, states = _run(rows, cut)
    return tf.pad(outputs, [[0, 0], [0, 4], [0, 0]]), states


def _cell_loop(how: str) -> Callable[[Rows], tuple[Any, Any]]:
    def run(rows: Rows) -> tuple[Any, Any]:
        sides, lasts = [], []
        for lstm, turn in ((rows.bilstm.forward_layer, 1), (rows.bilstm.backward_layer, -1)):
            h = c = tf.zeros((len(rows.mask), UNITS))
            outputs = {}
            for t in range(12)[::turn]:
                real = rows.mask[:, t : t + 1]
                x = rows.steps[:, t] * real if how == "zeroed" else rows.steps[:, t]
                _, (next_h, next_c) = lstm.cell(x, [h, c])
                if how == "carried":
                    next_h, next_c = tf.where(real, next_h, h), tf.where(real, next_c, c)
                if how == "reset":
                    next_h, next_c = next_h * real, next_c * real
                h, c = next_h, next_c
                outputs[t] = h
            sides.append(tf.stack([outputs[t] for t in range(12)], axis=1))
            lasts.append(h)
        return tf.concat(sides, axis=-1), tf.concat(lasts, axis=-1)

    return run


def _partly_observed_dropped(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, rows.steps, tf.constant(rows.mask & rows.observed.all(axis=-1)))


def _partly_observed_kept(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, rows.steps, tf.constant(rows.mask & rows.observed.any(axis=-1)))


def _imputed(rows: Rows) -> tuple[Any, Any]:
    # What is imputed is data; what matters here is that padding, imputed or not, stays masked.
    filled = np.where(rows.mask[:, :, np.newaxis], rows.steps, rows.steps.mean())
    return _run(rows, filled, tf.constant(rows.mask))


def _imputed_without_mask(rows: Rows) -> tuple[Any, Any]:
    return _run(rows, np.where(rows.mask[:, :, np.newaxis], rows.steps, rows.steps.mean()))


def _ragged(rows: Rows) -> tuple[Any, Any]:
    ragged = _RAGGED.from_tensor(rows.steps, lengths=rows.lengths)
    return _run(rows, ragged.to_tensor(), tf.sequence_mask(ragged.row_lengths()))


def _ragged_without_mask(rows: Rows) -> tuple[Any, Any]:
    ragged = _RAGGED.from_tensor(rows.steps, lengths=rows.lengths)
    return _run(rows, ragged.to_tensor())


def _ours(rows: Rows) -> tuple[Any, Any]:
    layer = MaskedBiLSTM(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, WIDTH))
    for mine, theirs in zip(layer.weights, rows.bilstm.weights, strict=True):
        mine._value = theirs._value
    outputs, forward, _, backward, _ = layer(rows.steps, mask=rows.mask)
    return outputs, tf.concat([forward, backward], axis=-1)


def _packed_sequence(rows: Rows) -> tuple[Any, Any]:
    weights = [weight.value for weight in rows.bilstm.trainable_variables]
    return run_packed(rows.steps, np.asarray(rows.lengths), weights)


_READ = "never: the backward direction starts in the padding, the forward one ends in it"
_LENGTH = "MaskedBiLSTM(units)(x, length=length)"
_TOKENS = "MaskedBiLSTM(units)(embedding(ids), mask=mask)"

RECIPES = (
    Recipe("no mask", "plain", lambda r: _run(r, r.steps), False, _READ),
    Recipe(
        "inputs × mask, 1 = real",
        "padding holds anything",
        lambda r: _run(r, r.steps * r.float_mask),
        False,
        "never: a zero input still moves the state, through recurrent weights and bias",
    ),
    Recipe(
        "inputs × mask, 1 = padding",
        "padding holds anything",
        _times_padding,
        False,
        "never: it keeps the padding and erases the data",
    ),
    Recipe(
        "`Masking(0.0)`",
        "plain",
        lambda r: _run(r, L.Masking(0.0)(r.steps)),
        True,
        "as long as no real step is 0 in all features",
    ),
    Recipe(
        "`Masking(0.0)`, some real steps are 0",
        "zeros are real",
        lambda r: _run(r, L.Masking(0.0)(r.steps)),
        False,
        "not here: real zeros are skipped like padding",
    ),
    Recipe(
        "−1 as pad value, `Masking(-1.0)`",
        "padded with -1",
        lambda r: _run(r, L.Masking(-1.0)(r.steps)),
        True,
        "as long as nothing touches the values before `Masking`",
    ),
    Recipe(
        "−1 as pad value, normalised before `Masking(-1.0)`",
        "padded with -1",
        _after_normalization,
        False,
        "never: no value is −1 any more",
    ),
    Recipe(
        "several mask values: `Masking(0.0)`, `Masking(-1.0)`",
        "plain",
        _two_maskings,
        False,
        "never: the second mask replaces the first",
    ),
    Recipe(
        "an operation after `Masking`: `x * 1`",
        "plain",
        _operation_after_masking,
        False,
        "never: operations hand no mask on",
    ),
    Recipe(
        "`Embedding(mask_zero=True)`",
        "tokens",
        lambda r: _run(r, r.embedding(r.tokens)),
        True,
        "as long as id 0 is padding and nothing else",
        _TOKENS,
    ),
    Recipe(
        "`Embedding(mask_zero=True)`, 0 is a real id too",
        "tokens, 0 is real",
        lambda r: _run(r, r.embedding(r.tokens)),
        False,
        "not here: a real id is skipped like padding",
        _TOKENS,
    ),
    Recipe(
        "`Masking(0.0)` after `Embedding`",
        "tokens",
        lambda r: _run(r, L.Masking(0.0)(tf.identity(r.embedding(r.tokens)))),
        False,
        "never: the embedding of the padding id is not 0",
        _TOKENS,
    ),
    Recipe(
        "mask as an input of the model",
        "padding holds anything",
        lambda r: _run(r, r.steps, tf.constant(r.mask)),
        True,
        "always on a CPU; on a GPU as long as it is padding on the right and no row is empty",
    ),
    Recipe(
        "mask as an input, True = padding",
        "padding holds anything",
        lambda r: _run(r, r.steps, tf.constant(~r.mask)),
        False,
        "never: in Keras, True is a real step",
    ),
    Recipe(
        "mask built from lengths",
        "padding holds anything",
        lambda r: _run(r, r.steps, tf.sequence_mask(r.lengths, 12)),
        True,
        "where padding is on the right",
        _LENGTH,
    ),
    Recipe(
        "outputs × mask",
        "plain",
        _outputs_times_mask,
        False,
        _READ,
    ),
    Recipe(
        "`outputs[:, -1]` as summary, with mask",
        "plain",
        _last_column,
        False,
        "never: it is 0 at padding, and backward the state after one step",
        "LastStepPooling()(outputs, mask=mask)",
    ),
    Recipe(
        "custom layer that infers the mask: `any(x != 0)`",
        "plain",
        _inferred,
        True,
        "as long as no real step is 0 in all features",
    ),
    Recipe(
        "custom layer that infers the mask, some real steps are 0",
        "zeros are real",
        _inferred,
        False,
        "not here: real zeros are skipped like padding",
    ),
    Recipe(
        "`unroll=True` with mask",
        "plain",
        _unrolled,
        False,
        "not with `return_sequences=True`",
    ),
    Recipe(
        "`LSTMCell` loop, input zeroed",
        "padding holds anything",
        _cell_loop("zeroed"),
        False,
        "never: a zero input still moves the state",
    ),
    Recipe(
        "`LSTMCell` loop, state carried over",
        "padding holds anything",
        _cell_loop("carried"),
        True,
        "always, unless padding holds NaN: its gradient then is NaN",
    ),
    Recipe(
        "`LSTMCell` loop, state reset",
        "padding holds anything",
        _cell_loop("reset"),
        False,
        "outputs are right for padding on the right; the last state is 0 for all but full rows",
    ),
    Recipe(
        "element-wise mask, step real if any element is",
        "elements missing",
        _partly_observed_kept,
        True,
        "where 0 may stand for a missing element; else give the mask as features too",
        "MaskedBiLSTM(units)(concat([x, observed]), mask=mask)",
    ),
    Recipe(
        "element-wise mask, step real if all elements are",
        "elements missing",
        _partly_observed_dropped,
        False,
        "never: it throws away what was observed",
        "MaskedBiLSTM(units)(concat([x, observed]), mask=mask)",
    ),
    Recipe(
        "imputation, then mask",
        "plain",
        _imputed,
        True,
        "always: imputed steps are data, padding stays masked",
    ),
    Recipe("imputation instead of a mask", "plain", _imputed_without_mask, False, _READ),
    Recipe(
        "fixed length, cut or padded, no mask",
        "plain",
        _fixed_length,
        False,
        "only for rows of just that length",
    ),
    Recipe(
        "ragged tensor, `to_tensor()`, mask of `row_lengths()`",
        "plain",
        _ragged,
        True,
        "always; a RaggedTensor itself is refused by Keras 3",
        _LENGTH,
    ),
    Recipe("ragged tensor, `to_tensor()`", "plain", _ragged_without_mask, False, _READ, _LENGTH),
    Recipe(
        "PyTorch's `pack_padded_sequence`",
        "padding holds anything",
        _packed_sequence,
        True,
        "where padding is on the right and no row is empty; it takes no other mask",
        _LENGTH,
        "torch",
    ),
    Recipe(
        "`MaskedBiLSTM`", "padding holds anything", _ours, True, "always, for every mask", "itself"
    ),
)
