"""Every kernel against each sequence run alone in float64, and what none of them may do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lengthwise.model import MaskedBiLSTM
from lengthwise.model.kernels import Direction, choose_kernel, packed, real_steps
from lengthwise.model.kernels.choice import takes_loop
from lengthwise.model.kernels.scan import scan_lstm
from lengthwise.model.recurrence import Wanted, run_directions
from tests.model.lstm_oracle import UNITS, loss, oracle, random_weights, relative_error

# "-wide": as where a layer is wide.
KERNELS = ["packed", "packed-wide", "hybrid", "scan", "keras"]
ZERO = tf.UnconnectedGradients.ZERO
FUSED = [name for name in KERNELS if name.startswith(("packed", "hybrid"))]

# Up to more steps than the loop of a wide layer unrolls.
masks = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 11)))


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    name, _, variant = request.param.partition("-")
    if variant == "wide":
        monkeypatch.setattr(packed, "takes_loop", lambda units: True)
    return name


def lstm_of(width, *, backward=False, weights=None, **options):
    lstm = keras.layers.LSTM(
        UNITS, return_sequences=True, return_state=True, go_backwards=backward, **options
    )
    lstm.build((None, None, width))
    lstm.set_weights(random_weights(width) if weights is None else weights)
    return lstm


def random_batch(mask, width, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(*mask.shape, width)).astype(np.float32)
    return inputs, [rng.normal(size=(len(mask), UNITS)).astype(np.float32) for _ in range(2)]


def run_direction(lstm, x, mask, state, *, kernel, sequences=True, training=False):
    """Outputs, h and c of one direction."""
    outputs, (h, c) = run_directions(
        [lstm],
        x,
        mask,
        state,
        wanted=Wanted(sequences, True),
        kernel=kernel,
        training=training,
    )
    return tf.squeeze(outputs, axis=-2), h, c


def run(kernel, lstm, inputs, mask, state, *, sequences=True, training=False):
    """Outputs, h and c, and gradients by inputs, state and weights."""
    x, state = tf.constant(inputs), [tf.constant(s) for s in state]
    with tf.GradientTape() as tape:
        tape.watch([x, *state])
        results = run_direction(
            lstm,
            x,
            tf.constant(mask),
            state,
            sequences=sequences,
            kernel=kernel,
            training=training,
        )
        total = loss(results)
    gradients = tape.gradient(
        total,
        [x, *state, *(v.value for v in lstm.trainable_variables)],
        unconnected_gradients=ZERO,
    )
    return [np.asarray(r) for r in results], [
        np.asarray(tf.convert_to_tensor(g)) for g in gradients
    ]


@pytest.mark.parametrize("backward", [False, True])
@settings(
    max_examples=8,
    # The fixture sets the same kernel for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mask=masks, width=st.integers(1, 3), training=st.booleans())
def test_equals_each_sequence_run_alone_in_float64(kernel, backward, mask, width, training):
    inputs, state = random_batch(mask, width)
    lstm = lstm_of(width, backward=backward)
    outputs, gradients = run(kernel, lstm, inputs, mask, state, training=training)
    expected, expected_gradients = oracle(
        inputs, mask, random_weights(width), state, backward=backward
    )
    for got, right in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-5)
    for got, right in zip(gradients, expected_gradients, strict=True):
        assert relative_error(got, right) < 1e-4


def test_saturated_gates_are_right(kernel):
    mask = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    inputs *= 30
    outputs, gradients = run(kernel, lstm_of(2), inputs, mask, state)
    expected, expected_gradients = oracle(inputs, mask, random_weights(2), state)
    for got, right in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-5)
    for got, right in zip(gradients, expected_gradients, strict=True):
        assert relative_error(got, right) < 1e-4


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_padding_holds_moves_no_bit(kernel, garbage):
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    lstm = lstm_of(2)
    inputs[~mask] = 0
    outputs, gradients = run(kernel, lstm, inputs, mask, state)
    inputs[~mask] = garbage
    dirty_outputs, dirty_gradients = run(kernel, lstm, inputs, mask, state)
    for got, right in zip([*dirty_outputs, *dirty_gradients], [*outputs, *gradients], strict=True):
        assert np.isfinite(got).all()
        assert got.tobytes() == right.tobytes()


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((0, 4), bool),
        np.zeros((3, 0), bool),
        np.zeros((0, 0), bool),
        np.zeros((3, 4), bool),
        np.ones((1, 1), bool),
        np.zeros((1, 1), bool),
        np.ones((17, 2), bool),
    ],
    ids=[
        "no rows",
        "no steps",
        "nothing",
        "no real step",
        "one step",
        "one masked step",
        "more rows than segments",
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_edges_of_a_batch(kernel, mask, compiled):
    inputs, state = random_batch(mask, 2)
    lstm = lstm_of(2)

    def both(x, m, h, c):
        with tf.GradientTape() as tape:
            tape.watch([x, h, c])
            results = run_direction(
                lstm,
                x,
                m,
                (h, c),
                kernel=kernel,
            )
            total = loss(results)
        return results, tape.gradient(total, [x, h, c], unconnected_gradients=ZERO)

    if compiled:
        both = tf.function(
            both,
            input_signature=[
                tf.TensorSpec((None, None, 2)),
                tf.TensorSpec((None, None), tf.bool),
                tf.TensorSpec((None, UNITS)),
                tf.TensorSpec((None, UNITS)),
            ],
        )
    results, gradients = both(*map(tf.constant, (inputs, mask, *state)))
    if not len(mask):
        assert [r.shape for r in results] == [(*mask.shape, UNITS), (0, UNITS), (0, UNITS)]
        return
    expected, expected_gradients = oracle(inputs, mask, random_weights(2), state)
    for got, right in zip([*results, *gradients], [*expected, *expected_gradients], strict=False):
        assert relative_error(tf.convert_to_tensor(got), right) < 1e-4


def test_last_output_alone_has_the_same_gradients(kernel):
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    lstm = lstm_of(2)
    if kernel == "keras":
        lstm.return_sequences = False
    results, gradients = run(kernel, lstm, inputs, mask, state, sequences=False)
    with tf.GradientTape() as tape:
        x = tf.constant(inputs)
        tape.watch(x)
        sequences, h, c = scan_lstm(
            Direction(x, *(v.value for v in lstm.trainable_variables), *map(tf.constant, state)),
            real_steps(tf.constant(mask)),
            backward=False,
            sequences=True,
        )
        last = tf.where(np.any(mask, axis=1, keepdims=True), h, 0.0)
        total = loss([last, h, c])
    np.testing.assert_allclose(results[0], last, atol=1e-6)
    assert sequences.shape == (4, 4, UNITS)
    assert relative_error(gradients[0], tape.gradient(total, x)) < 1e-4


def test_row_that_holds_infinity_spoils_no_other(kernel):
    mask = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    others = [0, 1, 2]
    results, (dx, dh, dc, *_) = run(kernel, lstm_of(2), inputs, mask, state)
    inputs[3, :2] = np.inf
    spoiled, (spoiled_dx, spoiled_dh, spoiled_dc, *_) = run(kernel, lstm_of(2), inputs, mask, state)
    assert not np.isfinite(spoiled_dx[3]).all()
    for got, right in zip(
        [*spoiled, spoiled_dx, spoiled_dh, spoiled_dc], [*results, dx, dh, dc], strict=True
    ):
        np.testing.assert_allclose(got[others], right[others], atol=1e-6)


def test_memory_that_the_fused_gradient_leaves_uninitialised_reaches_nothing(monkeypatch):
    """Where a rectangle has no steps, as between these groups of rows."""
    mask = np.arange(5) < np.array([[5], [5], [2], [2]])
    inputs, state = random_batch(mask, 2)
    _, expected = run("packed", lstm_of(2), inputs, mask, state)
    fused, empty = tf.raw_ops.BlockLSTMGradV2, []

    def spoiled(**given):
        found = fused(**given)
        if given["x"].shape[0]:
            return found
        empty.append(given["x"].shape)
        return type(found)(*(tf.fill(value.shape, np.float32(np.nan)) for value in found))

    monkeypatch.setattr(tf.raw_ops, "BlockLSTMGradV2", spoiled)
    _, gradients = run("packed", lstm_of(2), inputs, mask, state)
    assert (0, 2, 2) in empty
    for got, right in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("kernel", FUSED, indirect=True)
def test_gradients_agree_with_finite_differences(kernel):
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    weights = random_weights(2)
    _, (dx, dh, dc, *dw) = run(kernel, lstm_of(2), inputs, mask, state)

    def value(x, h, c, *w):
        return float(loss(oracle(x, mask, w, (h, c))[0]))

    rng = np.random.default_rng(5)
    point = [np.asarray(v, np.float64) for v in (inputs, *state, *weights)]
    for number, gradient in enumerate([dx, dh, dc, *dw]):
        direction = rng.normal(size=point[number].shape)
        ends = []
        for sign in (1, -1):
            moved = list(point)
            moved[number] = moved[number] + sign * 1e-5 * direction
            ends.append(value(*moved))
        measured = (ends[0] - ends[1]) / 2e-5
        assert float(np.sum(gradient * direction)) == pytest.approx(measured, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("units", [3, 112])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_both_directions_have_the_gradients_of_keras(units, sequences, states):
    """The layer as it is trained, narrow and wide; rows of all kinds, more steps than a chunk."""
    mask = np.random.default_rng(3).random((5, 19)) < 0.7
    mask[0], mask[1] = True, False
    x = np.random.default_rng(4).normal(size=(5, 19, 4)).astype(np.float32)
    layer = MaskedBiLSTM(units, return_sequences=sequences, return_state=states)
    layer.build((None, None, 4))
    theirs = layer.to_bidirectional()

    def gradients(call, variables):
        with tf.GradientTape() as tape:
            steps = tf.constant(x)
            tape.watch(steps)
            outputs = call(steps, mask=tf.constant(mask), training=True)
            # Another function of each output: an exchange of two would show.
            total = tf.add_n(
                [tf.reduce_sum(tf.sin(o + 1.0 + k)) for k, o in enumerate(tf.nest.flatten(outputs))]
            )
        return tape.gradient(total, [steps, *variables])

    found = tf.function(lambda: gradients(layer, layer.trainable_variables), autograph=False)()
    expected = gradients(theirs, theirs.trainable_variables)
    for got, right in zip(found, expected, strict=True):
        assert relative_error(got, right) < 1e-4


@pytest.mark.parametrize("total", [loss, lambda results: sum(map(tf.reduce_sum, results))])
@pytest.mark.parametrize("kernel", FUSED, indirect=True)
def test_second_order_gradients_of_fused_kernels_raise(kernel, total):
    """Of a sum too, whose gradient by the outputs is a constant that leads to nothing."""
    mask = np.ones((2, 3), bool)
    inputs, state = random_batch(mask, 2)
    with pytest.raises(NotImplementedError, match="kernel='scan'"):
        second_order(kernel, tf.constant(inputs), mask, state, total=total)


@pytest.mark.parametrize("kernel", ["scan", "keras"], indirect=True)
def test_second_order_gradients_of_the_others_are_right(kernel):
    mask = np.array([[1, 0, 1], [1, 1, 1]], bool)
    inputs, state = random_batch(mask, 2)
    gradient, second = second_order(kernel, tf.constant(inputs), mask, state)
    moved = second_order(kernel, tf.constant(inputs + 1e-2 * mask[:, :, np.newaxis]), mask, state)
    back = second_order(kernel, tf.constant(inputs - 1e-2 * mask[:, :, np.newaxis]), mask, state)
    del gradient
    # `second` is the gradient of the first gradient's sum of squares.
    measured = (moved[0] - back[0]) / 2e-2
    assert float(tf.reduce_sum(second)) == pytest.approx(float(measured), rel=5e-3)


def second_order(kernel, x, mask, state, total=loss):
    lstm = lstm_of(2)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            results = run_direction(
                lstm,
                x,
                tf.constant(mask),
                tuple(map(tf.constant, state)),
                kernel=kernel,
            )
            value = total(results)
        squares = tf.reduce_sum(tf.square(inner.gradient(value, x)))
    return squares, outer.gradient(squares, x)


def test_scan_compiles_with_xla_and_auto_takes_it_there():
    mask = np.array([[1, 0, 1], [0, 0, 0]], bool)
    inputs, state = random_batch(mask, 2)
    lstm = lstm_of(2)
    taken = []

    @tf.function(jit_compile=True)
    def compiled(x):
        taken.append(choose_kernel("auto", units=3, dtype="float32", masked=True, plain=True))
        with tf.GradientTape() as tape:
            tape.watch(x)
            results = run_direction(
                lstm,
                x,
                tf.constant(mask),
                tuple(map(tf.constant, state)),
                kernel="auto",
            )
            total = loss(results)
        return results, tape.gradient(total, x)

    results, gradient = compiled(tf.constant(inputs))
    assert set(taken) == {"scan"}
    expected, expected_gradients = oracle(inputs, mask, random_weights(2), state)
    for got, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-5)
    assert relative_error(gradient, expected_gradients[0]) < 1e-4


def test_environment_forces_a_kernel_where_none_is_asked_for(monkeypatch):
    asked = {"units": 3, "dtype": "float32", "masked": True, "plain": True}
    assert choose_kernel("auto", **asked) == "packed"
    monkeypatch.setenv("LENGTHWISE_KERNEL", "scan")
    assert choose_kernel("auto", **asked) == "scan"
    assert choose_kernel("hybrid", **asked) == "hybrid"
    monkeypatch.setenv("LENGTHWISE_KERNEL", "fastest")
    with pytest.raises(ValueError, match=r"LENGTHWISE_KERNEL must be one of .*not 'fastest'"):
        choose_kernel("auto", **asked)


def test_gpu_takes_keras_so_that_cudnn_runs(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert choose_kernel("auto", units=3, dtype="float32", masked=True, plain=True) == "keras"


def test_what_fused_kernels_cannot_do_goes_elsewhere():
    assert choose_kernel("packed", units=3, dtype="float64", masked=True, plain=True) == "scan"
    assert choose_kernel("packed", units=3, dtype="float32", masked=True, plain=False) == "keras"
    assert choose_kernel("auto", units=3, dtype="float32", masked=False, plain=True) == "hybrid"
    assert choose_kernel("auto", units=256, dtype="float32", masked=False, plain=True) == "packed"


def test_wide_layers_take_the_loop():
    assert not takes_loop(64)
    assert takes_loop(128)
