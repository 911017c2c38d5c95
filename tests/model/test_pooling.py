"""Poolings: real steps only, whatever padding holds, and zeros for empty rows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.model import (
    AttentionPooling,
    LastStepPooling,
    MaskedBiLSTM,
    MaxPooling,
    MeanPooling,
)

MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
VALUES = np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float32) - 2
POOLINGS = [LastStepPooling, MeanPooling, MaxPooling, lambda: AttentionPooling(3)]


def pooled(pooling, values=VALUES, mask=MASK):
    return np.asarray(pooling(values, mask=mask))


@pytest.mark.parametrize(("pooling", "of"), [(MeanPooling, np.mean), (MaxPooling, np.max)])
def test_mean_and_max_are_over_real_steps(pooling, of):
    expected = [of(row[real], axis=0) for row, real in zip(VALUES[:3], MASK[:3], strict=True)]
    np.testing.assert_allclose(pooled(pooling())[:3], expected, atol=1e-6)


def test_mean_of_many_steps_is_right_in_half_precision():
    values = np.full((1, 3000, 1), 300, np.float16)  # their sum is past the range of float16
    assert MeanPooling(dtype="float16")(values, length=[2999]).numpy().tolist() == [[300]]


@pytest.mark.parametrize("make", POOLINGS)
def test_padding_moves_no_bit_of_outputs_and_gradients(make):
    pooling = make()
    pooling.build(VALUES.shape)

    def run(garbage):
        values = tf.constant(np.where(MASK[:, :, np.newaxis], VALUES, garbage).astype("float32"))
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = pooling(values, mask=MASK)
            total = tf.reduce_sum(tf.sin(output))
        gradients = tape.gradient(total, [values, *pooling.trainable_variables])
        return [np.asarray(v) for v in (output, *gradients)]

    for garbage in (np.nan, 1e30):
        for got, right in zip(run(garbage), run(0), strict=True):
            assert np.isfinite(got).all()
            assert got.tobytes() == right.tobytes()


@pytest.mark.parametrize("make", POOLINGS)
def test_empty_rows_are_zero(make):
    assert not pooled(make())[3].any()


@pytest.mark.parametrize("make", POOLINGS)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_batches_without_rows_or_steps(make, shape):
    for mask in (None, np.zeros(shape)):
        outputs = pooled(make(), np.zeros((*shape, 6), np.float32), mask)
        assert outputs.shape == (shape[0], 6)
        assert not outputs.any()


@pytest.mark.parametrize("make", POOLINGS)
def test_each_row_alone_gives_the_same(make):
    pooling = make()
    together = pooled(pooling)
    for row in range(3):
        alone = pooled(pooling, VALUES[row, MASK[row]][np.newaxis], np.ones((1, MASK[row].sum())))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_last_steps_are_what_the_bilstm_gives_without_sequences():
    sequences = MaskedBiLSTM(3, return_sequences=True)
    sequences.build((None, None, 6))
    last = MaskedBiLSTM(3)
    last.build((None, None, 6))
    last.set_weights(sequences.get_weights())
    # The implicit mask of the outputs says where rows end.
    np.testing.assert_allclose(
        LastStepPooling()(sequences(VALUES, mask=MASK)), last(VALUES, mask=MASK), atol=1e-6
    )


@pytest.mark.parametrize("make", POOLINGS)
def test_works_in_a_saved_model_and_ends_the_mask(make, tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, make()(embedded))
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    short, padded = np.array([[5, 6]]), np.array([[5, 6, 0, 0]])
    np.testing.assert_allclose(loaded(padded), model(short), atol=1e-6)
    assert getattr(model(padded), "_keras_mask", None) is None
