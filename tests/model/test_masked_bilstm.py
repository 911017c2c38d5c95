"""MaskedBiLSTM against Keras's masked Bidirectional(LSTM), and against each sequence run alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lengthwise.model import MaskedBiLSTM

UNITS, WIDTH = 3, 2
MERGE_MODES = ["concat", "sum", "mul", "ave", None]

masks = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 6)))

# One row of each kind: full, right, left and interior padding, one step, none.
MIXED_MASK = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1],
        [1, 0, 1, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    bool,
)


def steps_like(mask, width=WIDTH, seed=0):
    return np.random.default_rng(seed).normal(size=(*mask.shape, width)).astype(np.float32)


def layer_and_oracle(width=WIDTH, **options):
    """Our layer and Keras's own with the same weights."""
    layer = MaskedBiLSTM(UNITS, **options)
    layer.build((None, None, width))
    merge_mode = options.pop("merge_mode", "concat")
    options.pop("kernel", None)
    oracle = keras.layers.Bidirectional(keras.layers.LSTM(UNITS, **options), merge_mode=merge_mode)
    oracle.build((None, None, width))
    # Biases start as 0 and 1: change all weights, so that an exchange of any two would show.
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape).astype(np.float32) / 2 for w in oracle.get_weights()]
    layer.set_weights(weights)
    oracle.set_weights(weights)
    return layer, oracle


def run_alone(oracle, steps, mask):
    """The oracle over one row's real steps only, without mask or padding."""
    return [np.asarray(o) for o in keras.tree.flatten(oracle(steps[mask][np.newaxis]))]


def outputs_and_gradients(layer, steps, mask):
    steps = tf.constant(steps)
    with tf.GradientTape() as tape:
        tape.watch(steps)
        outputs = keras.tree.flatten(layer(steps, mask=mask))
        loss = tf.add_n([tf.reduce_sum(tf.sin(1 + output)) for output in outputs])
    gradients = tape.gradient(loss, [steps, *layer.trainable_variables])
    return [np.asarray(o) for o in outputs], [np.asarray(g) for g in gradients]


@pytest.mark.parametrize("merge_mode", MERGE_MODES)
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_equals_keras_in_every_form(return_sequences, return_state, merge_mode):
    layer, oracle = layer_and_oracle(
        return_sequences=return_sequences, return_state=return_state, merge_mode=merge_mode
    )
    steps = steps_like(MIXED_MASK)
    ours = keras.tree.flatten(layer(steps, mask=MIXED_MASK))
    theirs = keras.tree.flatten(oracle(steps, mask=tf.constant(MIXED_MASK)))
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(masks)
def test_equals_each_sequence_run_alone(mask):
    layer, oracle = layer_and_oracle(return_sequences=True, return_state=True)
    steps = steps_like(mask)
    sequences, *states = (np.asarray(output) for output in layer(steps, mask=mask))
    assert not sequences[~mask].any()
    for row, real in enumerate(mask):
        if not real.any():
            assert not any(state[row].any() for state in states)
            continue
        alone, *alone_states = run_alone(oracle, steps[row], real)
        np.testing.assert_allclose(sequences[row][real], alone[0], atol=1e-6)
        for state, alone_state in zip(states, alone_states, strict=True):
            np.testing.assert_allclose(state[row], alone_state[0], atol=1e-6)


def test_equals_keras_without_mask():
    layer, oracle = layer_and_oracle(return_sequences=True)
    steps = steps_like(MIXED_MASK)
    np.testing.assert_allclose(layer(steps), oracle(steps), atol=1e-6)


def test_gradients_equal_those_of_keras():
    layer, oracle = layer_and_oracle(return_sequences=True, return_state=True)
    steps = steps_like(MIXED_MASK)
    _, ours = outputs_and_gradients(layer, steps, MIXED_MASK)
    _, theirs = outputs_and_gradients(oracle, steps, tf.constant(MIXED_MASK))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30, -1.0])
def test_what_padding_holds_moves_no_bit(garbage, return_sequences):
    layer, _ = layer_and_oracle(return_sequences=return_sequences, return_state=True)
    clean = steps_like(MIXED_MASK)
    clean[~MIXED_MASK] = 0
    dirty = clean.copy()
    dirty[~MIXED_MASK] = garbage
    expected_outputs, expected_gradients = outputs_and_gradients(layer, clean, MIXED_MASK)
    outputs, gradients = outputs_and_gradients(layer, dirty, MIXED_MASK)
    for got, expected in zip(
        outputs + gradients, expected_outputs + expected_gradients, strict=True
    ):
        assert np.isfinite(got).all()
        assert got.tobytes() == expected.tobytes()
    assert not gradients[0][~MIXED_MASK].any()


@pytest.mark.parametrize("dtype", ["int32", "float32", "uint8"])
def test_masks_of_any_dtype_are_equal(dtype):
    layer, _ = layer_and_oracle()
    steps = steps_like(MIXED_MASK)
    expected = layer(steps, mask=MIXED_MASK)
    np.testing.assert_array_equal(layer(steps, mask=MIXED_MASK.astype(dtype)), expected)


@pytest.mark.parametrize("real", [0.25, 2, -1])
def test_everything_but_zero_is_a_real_step(real):
    layer, _ = layer_and_oracle()
    steps = steps_like(MIXED_MASK)
    expected = layer(steps, mask=MIXED_MASK)
    np.testing.assert_array_equal(layer(steps, mask=MIXED_MASK * real), expected)


def test_batch_without_any_real_step_gives_zeros_and_finite_gradients():
    layer, _ = layer_and_oracle(return_sequences=True, return_state=True)
    mask = np.zeros((2, 4), bool)
    outputs, gradients = outputs_and_gradients(layer, steps_like(mask), mask)
    assert not any(output.any() for output in outputs)
    assert not any(gradient.any() for gradient in gradients)


def test_what_reaches_the_lstm_is_what_cudnn_accepts(monkeypatch):
    layer, _ = layer_and_oracle(kernel="keras")
    seen = []
    run = layer.forward_lstm.inner_loop

    def spy(sequences, initial_state, mask, training=False):
        seen.append(mask)
        return run(sequences, initial_state, mask, training)

    monkeypatch.setattr(layer.forward_lstm, "inner_loop", spy)
    layer(steps_like(MIXED_MASK), mask=MIXED_MASK)
    (mask,) = np.asarray(seen)
    # Real steps on the left only, and at least one in each row.
    np.testing.assert_array_equal(mask, np.sort(mask, axis=1)[:, ::-1])
    np.testing.assert_array_equal(mask.sum(1), np.maximum(MIXED_MASK.sum(1), 1))


def test_half_precision_keeps_its_dtype_and_masks():
    layer = MaskedBiLSTM(UNITS, return_sequences=True, dtype="mixed_float16")
    outputs = layer(steps_like(MIXED_MASK), mask=MIXED_MASK)
    assert outputs.dtype == tf.float16
    assert not np.asarray(outputs)[~MIXED_MASK].any()
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_takes_the_implicit_mask_of_an_embedding():
    layer, oracle = layer_and_oracle(return_sequences=True)
    tokens = np.array([[5, 0, 7, 0], [0, 0, 3, 4]])
    embedding = keras.layers.Embedding(10, WIDTH, mask_zero=True)
    embedded = embedding(tokens)
    np.testing.assert_allclose(layer(embedded), oracle(embedded), atol=1e-6)
    assert not np.asarray(layer(embedded))[tokens == 0].any()


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_only_sequences_carry_the_mask_on(merge_mode, return_state, return_sequences):
    layer, _ = layer_and_oracle(
        merge_mode=merge_mode, return_state=return_state, return_sequences=return_sequences
    )
    inputs = tf.constant(steps_like(MIXED_MASK))
    sequences = (2 if merge_mode is None else 1) * return_sequences
    for mask in (tf.constant(MIXED_MASK), MIXED_MASK.tolist()):
        outputs = keras.tree.flatten(layer(inputs, mask=mask))
        masks = [getattr(output, "_keras_mask", None) for output in outputs]
        assert [m is not None for m in masks] == [i < sequences for i in range(len(masks))]


def test_stack_carries_the_mask_through():
    tokens = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(10, WIDTH, mask_zero=True)(tokens)
    hidden = MaskedBiLSTM(UNITS, return_sequences=True)(embedded)
    model = keras.Model(tokens, MaskedBiLSTM(UNITS)(hidden))
    short, padded = np.array([[5, 6, 7]]), np.array([[5, 6, 7, 0, 0]])
    np.testing.assert_allclose(model(short), model(padded), atol=1e-6)


@pytest.mark.parametrize("merge_mode", MERGE_MODES)
@pytest.mark.parametrize("return_sequences", [False, True])
def test_declared_shapes_are_those_of_the_outputs(return_sequences, merge_mode):
    layer = MaskedBiLSTM(
        UNITS, return_sequences=return_sequences, return_state=True, merge_mode=merge_mode
    )
    outputs = keras.tree.flatten(layer(steps_like(MIXED_MASK), mask=MIXED_MASK))
    declared = layer.compute_output_shape((*MIXED_MASK.shape, WIDTH))
    assert [tuple(output.shape) for output in outputs] == list(declared)
    symbolic = keras.tree.flatten(layer(keras.Input((None, WIDTH))))
    assert [len(tensor.shape) for tensor in symbolic] == [len(output.shape) for output in outputs]


def test_weights_are_those_of_bidirectional_in_its_order():
    layer, oracle = layer_and_oracle()
    assert [w.shape for w in layer.get_weights()] == [w.shape for w in oracle.get_weights()]
    assert [w.path.split("/")[-1] for w in layer.weights] == [
        w.path.split("/")[-1] for w in oracle.weights
    ]
    assert len(layer.get_weights()) == 6


def test_survives_saving_and_loading(tmp_path):
    inputs = keras.Input((None, WIDTH))
    mask = keras.Input((None,), dtype="bool")
    outputs = MaskedBiLSTM(UNITS, merge_mode="sum", return_sequences=True)(inputs, mask=mask)
    model = keras.Model([inputs, mask], outputs)
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    batch = [steps_like(MIXED_MASK), MIXED_MASK]
    np.testing.assert_array_equal(loaded(batch), model(batch))


def test_config_rebuilds_the_layer():
    layer = MaskedBiLSTM(7, return_sequences=True, merge_mode=None, kernel="keras", name="bilstm")
    copy = MaskedBiLSTM.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.units, copy.return_sequences, copy.kernel) == (7, True, "keras")
    assert (copy.merge_mode, copy.name) == (None, "bilstm")


def test_one_graph_serves_batches_of_every_length():
    layer, oracle = layer_and_oracle()
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, WIDTH)),
            tf.TensorSpec((None, None), tf.bool),
        ]
    )
    def run(steps, mask):
        traces.append(1)
        return layer(steps, mask=mask)

    for total_steps in (1, 4, 5):
        mask = MIXED_MASK[:, :total_steps]
        steps = steps_like(mask)
        np.testing.assert_allclose(
            run(tf.constant(steps), tf.constant(mask)),
            oracle(steps, mask=tf.constant(mask)),
            atol=1e-6,
        )
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "fast"}, "'auto', 'packed', 'hybrid', 'scan', 'keras'"),
        ({"merge_mode": "max"}, "'concat', 'sum', 'mul', 'ave', None"),
        ({"units": 0}, "positive integer, not 0"),
        ({"units": 2.5}, "positive integer, not 2.5"),
    ],
)
def test_unknown_options_are_refused_with_the_valid_ones(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedBiLSTM(**{"units": UNITS, **options})
