"""Options of MaskedBiLSTM and MaskedLSTM: states, dropout, lengths, precision, conversion."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.model import MaskedBiLSTM, MaskedBiLSTMStack, MaskedLSTM
from lengthwise.model.torch_weights import from_torch, to_torch

UNITS, WIDTH = 3, 2
WIDE = 112  # from here on the packed kernel runs its loop in training
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)


def steps(mask=MASK, seed=0):
    return np.random.default_rng(seed).normal(size=(*mask.shape, WIDTH)).astype(np.float32)


def built(layer, batch=None):
    layer.build((batch, None, WIDTH))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) / 2 for w in layer.get_weights()])
    return layer


def test_length_is_a_mask_of_the_first_steps():
    layer = built(MaskedBiLSTM(UNITS, return_sequences=True))
    lengths = np.array([3, 2, 0, 1])  # no row is full
    mask = np.arange(4) < lengths[:, np.newaxis]
    np.testing.assert_array_equal(layer(steps(), length=lengths), layer(steps(), mask=mask))


def test_a_step_is_real_by_mask_and_by_length():
    layer = built(MaskedBiLSTM(UNITS, return_sequences=True))
    both = layer(steps(), mask=MASK, length=[2, 4, 4, 4])
    mask = MASK & (np.arange(4) < np.array([2, 4, 4, 4])[:, np.newaxis])
    np.testing.assert_array_equal(both, layer(steps(), mask=mask))


def test_length_marks_the_outputs_for_the_layers_above():
    layer = built(MaskedBiLSTM(UNITS, return_sequences=True))
    outputs: Any = layer(steps(), length=[4, 2, 0, 1])
    np.testing.assert_array_equal(
        outputs._keras_mask, np.arange(4) < np.array([[4], [2], [0], [1]])
    )


@pytest.mark.parametrize("kernel", ["packed", "scan", "keras"])
def test_initial_state_is_where_both_directions_start(kernel):
    layer = built(MaskedBiLSTM(UNITS, return_state=True, kernel=kernel))
    theirs = layer.to_bidirectional()
    state = [np.full((4, UNITS), 0.1 * (i + 1), np.float32) for i in range(4)]
    ours = layer(steps(), mask=MASK, initial_state=state)
    expected = theirs(
        steps(), mask=tf.constant(MASK), initial_state=[tf.constant(s) for s in state]
    )
    for got, right in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-6)
    # The empty row: nothing came out, and its states are those that it was given.
    assert not np.asarray(ours[0])[3].any()
    np.testing.assert_array_equal([s[3] for s in ours[1:]], [s[3] for s in state])


@pytest.mark.parametrize(
    "said",
    [
        {"mask": MASK[:, :, np.newaxis]},
        {"mask": MASK[:1]},
        {"mask": MASK[0]},
        {"mask": MASK[:, :3]},
        {"length": [[4], [2], [0], [1]]},
        {"length": [4, 2]},
    ],
    ids=["(B, T, 1)", "(1, T)", "(T,)", "(B, T - 1)", "length (B, 1)", "length of fewer rows"],
)
def test_mask_of_another_shape_is_refused(said):
    with pytest.raises(ValueError, match=r"must be \(B, T\) and a length \(B,\): for .*4, 4, 2"):
        built(MaskedBiLSTM(UNITS))(steps(), **said)


def test_initial_state_does_not_hide_the_implicit_mask():
    layer = built(MaskedBiLSTM(UNITS))
    embedded = keras.layers.Embedding(10, WIDTH, mask_zero=True)(np.array([[5, 6, 0, 0]]))
    state = [np.zeros((1, UNITS), np.float32)] * 4
    np.testing.assert_allclose(
        layer(embedded, initial_state=state), layer(embedded[:, :2]), atol=1e-6
    )


def test_number_of_initial_states_is_checked():
    with pytest.raises(ValueError, match="4 tensors, h and c of each direction, not 2"):
        built(MaskedBiLSTM(UNITS))(steps(), initial_state=[np.zeros((4, UNITS))] * 2)


@pytest.mark.parametrize("shape", [(1, UNITS), (4, UNITS + 1), (UNITS,)])
def test_shape_of_initial_states_is_checked(shape):
    with pytest.raises(ValueError, match=r"of shape \(4, 3\), rows and units, not"):
        built(MaskedBiLSTM(UNITS))(steps(), initial_state=[np.zeros(shape, np.float32)] * 4)


@pytest.mark.parametrize("kernel", ["packed", "keras"])
def test_stateful_layer_goes_on_where_it_was(kernel):
    layer = built(MaskedLSTM(UNITS, stateful=True, kernel=kernel), batch=4)
    whole = built(MaskedLSTM(UNITS, kernel=kernel))
    first, second = steps(seed=1), steps(seed=2)
    layer(first, mask=MASK)
    both = whole(np.concatenate([first, second], 1), mask=np.concatenate([MASK, MASK], 1))
    continued = layer(second, mask=MASK)
    np.testing.assert_allclose(continued, both, atol=1e-6)
    layer.reset_state()
    layer(first, mask=MASK)
    np.testing.assert_array_equal(layer(second, mask=MASK), continued)
    assert len(layer.weights) == 3


def test_state_that_is_carried_is_as_precise_as_the_layer():
    layer = built(MaskedLSTM(UNITS, stateful=True, dtype="float64"), batch=4)
    whole = built(MaskedLSTM(UNITS, dtype="float64"))
    first, second = steps(seed=1), steps(seed=2)
    layer(first)
    both = np.concatenate([first, second], 1)
    np.testing.assert_allclose(layer(second), whole(both), rtol=0, atol=1e-12)


def test_stateful_layer_asks_for_a_fixed_batch():
    with pytest.raises(ValueError, match="fixed batch size"):
        MaskedBiLSTM(UNITS, stateful=True).build((None, None, WIDTH))


@pytest.mark.parametrize("kernel", ["packed", "hybrid", "scan"])
def test_dropout_is_that_of_keras(kernel):
    def run(kernel):
        layer = built(MaskedBiLSTM(UNITS, dropout=0.5, seed=3, kernel=kernel))
        return np.asarray(layer(steps(), mask=MASK, training=True))

    np.testing.assert_allclose(run(kernel), run("keras"), atol=1e-6)
    layer = built(MaskedBiLSTM(UNITS, dropout=0.5, seed=3, kernel=kernel))
    assert np.abs(run(kernel) - layer(steps(), mask=MASK)).max() > 1e-3


@pytest.mark.parametrize("kernel", ["packed", "keras"])
def test_dropout_is_drawn_anew_in_every_call(kernel):
    layer = built(MaskedBiLSTM(UNITS, dropout=0.5, kernel=kernel))
    first = np.asarray(layer(steps(), mask=MASK, training=True))
    assert np.abs(first - layer(steps(), mask=MASK, training=True)).max() > 1e-3


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"dropout": 0.2, "recurrent_dropout": 0.5}])
def test_with_the_seed_of_keras_the_same_is_dropped_at_every_step(options):
    layer = built(MaskedBiLSTM(UNITS, seed=3, **options))
    theirs = layer.to_bidirectional()
    mask = np.array([[True, True, True, False]])
    ours = layer(steps()[:1], mask=mask, training=True)
    expected = theirs(steps()[:1], mask=tf.constant(mask), training=True)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.abs(ours - layer(steps()[:1], mask=mask)).max() > 1e-3


def test_dropout_of_padding_that_holds_nan_is_harmless():
    layer = built(MaskedBiLSTM(UNITS, dropout=0.5, recurrent_dropout=0.5))
    inputs = steps()
    inputs[~MASK] = np.nan
    assert np.isfinite(layer(inputs, mask=MASK, training=True)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"unit_forget_bias": False, "bias_initializer": "ones"},
        {"kernel_initializer": keras.initializers.Constant(0.1)},
    ],
)
def test_options_of_the_cell_are_those_of_keras(options):
    layer = built(MaskedBiLSTM(UNITS, **options))
    np.testing.assert_allclose(
        layer(steps(), mask=MASK),
        layer.to_bidirectional()(steps(), mask=tf.constant(MASK)),
        atol=1e-6,
    )
    copy = MaskedBiLSTM.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


OPTIONS_OF_THE_CELL = {
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "kernel_initializer": "ones",
    "recurrent_initializer": "ones",
    "bias_initializer": "ones",
    "unit_forget_bias": False,
    "kernel_regularizer": "l2",
    "recurrent_regularizer": "l2",
    "bias_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "non_neg",
    "bias_constraint": "non_neg",
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "seed": 3,
}
OPTIONS_OF_BOTH = {
    **OPTIONS_OF_THE_CELL,
    "return_sequences": True,
    "return_state": True,
    "stateful": True,
    "kernel": "scan",
    "dtype": "float64",
}


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (MaskedBiLSTM, {**OPTIONS_OF_BOTH, "merge_mode": "sum"}),
        (MaskedLSTM, {**OPTIONS_OF_BOTH, "go_backwards": True}),
        (
            MaskedBiLSTMStack,
            {"layers": 2, "dropout": 0.1, "residual": True, "return_sequences": True}
            | {"kernel": "scan", "dtype": "float64"},
        ),
    ],
)
def test_every_option_is_kept_in_the_config(layer, options):
    required = {"layers": 1} if layer is MaskedBiLSTMStack else {}
    default = layer(UNITS, **required).get_config()
    config = layer.from_config(layer(UNITS, **options).get_config()).get_config()
    assert set(options) == set(config) - {"units", "name", "trainable"}
    assert not [name for name in options if config[name] == default[name]]


def test_options_of_both_directions_are_their_own():
    layer = MaskedBiLSTM(UNITS, kernel_regularizer=keras.regularizers.L2(0.1))
    layer.build((None, None, WIDTH))
    assert len(layer.losses) == 2
    forward, backward = layer.directions
    assert forward.cell.kernel_regularizer is not backward.cell.kernel_regularizer


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("kernel", ["auto", "packed", "scan"])
def test_precisions(dtype, kernel):
    layer = built(MaskedBiLSTM(UNITS, return_sequences=True, dtype=dtype, kernel=kernel))
    outputs = layer(steps(), mask=MASK)
    assert outputs.dtype == dtype.removeprefix("mixed_")
    expected = built(MaskedBiLSTM(UNITS, return_sequences=True))(steps(), mask=MASK)
    tolerance = {"mixed_float16": 5e-3, "mixed_bfloat16": 4e-2, "float64": 1e-6}[dtype]
    np.testing.assert_allclose(tf.cast(outputs, "float32"), expected, atol=tolerance)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", None])
@pytest.mark.parametrize("return_state", [False, True])
def test_from_and_to_bidirectional_change_nothing(merge_mode, return_state):
    theirs = keras.layers.Bidirectional(
        keras.layers.LSTM(UNITS, return_sequences=True, return_state=return_state, dropout=0.2),
        merge_mode=merge_mode,
        name="both",
    )
    theirs.build((None, None, WIDTH))
    ours = MaskedBiLSTM.from_bidirectional(theirs)
    again = ours.to_bidirectional()
    expected = keras.tree.flatten(theirs(steps(), mask=tf.constant(MASK)))
    for layer in (ours, again):
        outputs = keras.tree.flatten(layer(steps(), mask=tf.constant(MASK)))
        for got, right in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(got, right, atol=1e-6)
        assert layer.name == "both"
    assert ours.forward_lstm.dropout == 0.2


def test_precision_comes_from_bidirectional_and_goes_back():
    lstm = keras.layers.LSTM(UNITS, dtype="float64")
    theirs = keras.layers.Bidirectional(lstm, dtype="float64")
    theirs.build((None, None, WIDTH))
    ours = MaskedBiLSTM.from_bidirectional(theirs)
    inputs = tf.constant(np.random.default_rng(0).normal(size=(2, 4, WIDTH)))  # float64
    for layer in (ours, ours.to_bidirectional()):
        np.testing.assert_allclose(layer(inputs), theirs(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backward", [None, keras.layers.GRU(2, go_backwards=True)])
def test_from_bidirectional_refuses_other_cells(backward):
    forward = keras.layers.GRU(2) if backward is None else keras.layers.LSTM(2)
    with pytest.raises(ValueError, match=r"takes a .* not one around .*GRU"):
        MaskedBiLSTM.from_bidirectional(
            keras.layers.Bidirectional(forward, backward_layer=backward)
        )


def test_from_bidirectional_refuses_directions_that_differ():
    forward = keras.layers.LSTM(2)
    backward = keras.layers.LSTM(2, go_backwards=True, dropout=0.5)
    theirs = keras.layers.Bidirectional(forward, backward_layer=backward)
    with pytest.raises(ValueError, match=r"differing: \['dropout'\]"):
        MaskedBiLSTM.from_bidirectional(theirs)


def test_from_bidirectional_refuses_a_forward_direction_that_goes_backwards():
    theirs = keras.layers.Bidirectional(
        keras.layers.LSTM(2, go_backwards=True), backward_layer=keras.layers.LSTM(2)
    )
    with pytest.raises(ValueError, match="no LSTM with go_backwards=True"):
        MaskedBiLSTM.from_bidirectional(theirs)


def test_frozen_layer_stays_frozen_both_ways():
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(2))
    theirs.build((None, None, WIDTH))
    theirs.trainable = False
    ours = MaskedBiLSTM.from_bidirectional(theirs)
    assert ours.trainable_weights == []
    assert ours.to_bidirectional().trainable_weights == []


def test_stateful_layer_comes_from_bidirectional_and_goes_back():
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(UNITS, stateful=True))
    theirs.build((4, None, WIDTH))
    ours = MaskedBiLSTM.from_bidirectional(theirs)
    again = ours.to_bidirectional()
    for seed in (1, 2):
        batch = tf.constant(steps(np.ones((4, 4), bool), seed))
        expected = theirs(batch)
        np.testing.assert_allclose(ours(batch), expected, atol=1e-6)
        np.testing.assert_allclose(again(batch), expected, atol=1e-6)


def test_torch_weights_give_the_equations_of_torch():
    rng = np.random.default_rng(0)
    shapes = {"weight_ih": (12, WIDTH), "weight_hh": (12, UNITS), "bias_ih": 12, "bias_hh": 12}
    state = {
        f"{name}_l0{end}": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
        for end in ("", "_reverse")
    }
    layer = MaskedBiLSTM(UNITS, return_sequences=True)
    layer.build((None, None, WIDTH))
    layer.set_weights(from_torch(state))
    x = steps(np.ones((1, 4), bool))
    outputs = np.asarray(layer(x))[0]
    for end, part, order in (("", slice(UNITS), 1), ("_reverse", slice(UNITS, None), -1)):
        h = c = np.zeros(UNITS)
        expected = []
        for step in x[0][::order]:
            # The equations of the documentation of torch.nn.LSTM, gates i, f, g, o.
            gates = state[f"weight_ih_l0{end}"] @ step + state[f"bias_ih_l0{end}"]
            gates = gates + state[f"weight_hh_l0{end}"] @ h + state[f"bias_hh_l0{end}"]
            i, f, g, o = np.split(gates, 4)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            expected.append(h)
        np.testing.assert_allclose(outputs[:, part], expected[::order], atol=1e-6)

    back = to_torch(layer.get_weights())
    assert back.keys() == state.keys()
    for got, right in zip(from_torch(back), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(got, right)


def test_torch_projections_are_refused():
    state = {"weight_ih_l0": np.ones((4, 1)), "weight_hr_l0": np.ones((1, 1))}
    with pytest.raises(ValueError, match="projections"):
        from_torch(state)


def test_weights_of_no_lstm_are_refused():
    with pytest.raises(ValueError, match=r"there is no 'weight_ih_l1' among \['weight_ih_l0'\]"):
        from_torch({"weight_ih_l0": np.ones((4, 1))}, layer=1)
    with pytest.raises(ValueError, match="3 weights, a bidirectional one 6, not 2"):
        to_torch([np.ones((1, 4)), np.ones((1, 4))])


def test_exported_model_takes_batches_of_every_length(tmp_path):
    inputs = keras.Input((None, WIDTH))
    mask = keras.Input((None,), dtype="bool")
    layer = MaskedBiLSTM(UNITS)
    model = keras.Model([inputs, mask], layer(inputs, mask=mask))
    model.export(tmp_path / "model", format="tf_saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    for total in (4, 2):
        batch = [tf.constant(steps()[:, :total]), tf.constant(MASK[:, :total])]
        np.testing.assert_allclose(served.serve(batch), model(batch), atol=1e-6)


@pytest.mark.parametrize("units", [UNITS, WIDE])
def test_exported_model_runs_where_there_is_only_tensorflow(units, tmp_path):
    inputs = keras.Input((None, WIDTH))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, mask], MaskedBiLSTM(units)(inputs, mask=mask))
    model.export(tmp_path / "model", format="tf_saved_model", verbose=False)
    np.savez(tmp_path / "batch.npz", steps=steps(), mask=MASK, expected=model([steps(), MASK]))
    run_alone(
        """
        import sys
        import numpy as np
        import tensorflow as tf
        served = tf.saved_model.load("model")
        batch = np.load("batch.npz")
        outputs = served.serve([tf.constant(batch["steps"]), tf.constant(batch["mask"])])
        np.testing.assert_allclose(outputs, batch["expected"], atol=1e-6)
        assert not any(name.split(".")[0] == "lengthwise" for name in sys.modules)
        """,
        tmp_path,
    )


def test_replicas_of_a_mirrored_strategy_train_like_one(tmp_path):
    run_alone(
        f"""
        import keras
        import numpy as np
        import tensorflow as tf
        from lengthwise.model import MaskedBiLSTM

        cpu, = tf.config.list_physical_devices("CPU")
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        rng = np.random.default_rng(0)
        steps = rng.normal(size=(8, 11, 4)).astype("float32")
        lengths = rng.integers(0, 12, 8).astype("int32")
        targets = rng.normal(size=(8, {2 * WIDE})).astype("float32")
        data = tf.data.Dataset.from_tensor_slices(((steps, lengths), targets)).batch(4)

        def train(strategy):
            with strategy.scope():
                keras.utils.set_random_seed(0)
                inputs, length = keras.Input((None, 4)), keras.Input((), dtype="int32")
                outputs = MaskedBiLSTM({WIDE})(inputs, length=length)
                model = keras.Model([inputs, length], outputs)
                model.compile(keras.optimizers.SGD(0.1), "mse")
            model.fit(data, epochs=2, verbose=0)
            return model.get_weights()

        one = train(tf.distribute.get_strategy())
        both = train(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
        for expected, got in zip(one, both):
            np.testing.assert_allclose(got, expected, atol=1e-5)
        """,
        tmp_path,
    )


def run_alone(program, folder):
    """Runs a program in a process of its own, in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_config_of_an_older_version_gives_defaults_for_what_it_lacks():
    config = MaskedBiLSTM(UNITS).get_config()
    for name in config:
        if name != "units":
            older = {key: value for key, value in config.items() if key != name}
            assert MaskedBiLSTM.from_config(older).get_config().keys() == config.keys()


@pytest.mark.parametrize("units", [UNITS, WIDE])
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_gradients_in_half_precision_are_those_of_float32(dtype, units):
    found = []
    for policy in (dtype, "float32"):
        layer = MaskedBiLSTM(units, return_sequences=True, dtype=policy)
        layer.build((None, None, WIDTH))
        shapes = [weight.shape for weight in layer.weights]
        layer.set_weights([np.linspace(-0.2, 0.2, np.prod(s)).reshape(s) for s in shapes])
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.cast(layer(steps(), mask=MASK, training=True), "float32"))
        found.append(tape.gradient(total, [w.value for w in layer.trainable_variables]))
    for got, right in zip(*found, strict=True):
        assert got.dtype == tf.float32
        scale = float(tf.reduce_max(tf.abs(right)))
        np.testing.assert_allclose(got, right, atol=0.03 * scale)


@pytest.mark.parametrize("units", [UNITS, WIDE])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_batches_without_rows_and_of_one_step(return_sequences, units):
    layer = MaskedBiLSTM(units, return_sequences=return_sequences, return_state=True)
    nothing: Any = layer(np.zeros((0, 4, WIDTH), np.float32), mask=np.zeros((0, 4), bool))
    assert nothing[0].shape == ((0, 4, 2 * units) if return_sequences else (0, 2 * units))
    one: Any = layer(steps()[:, :1], mask=MASK[:, :1])
    expected = layer.to_bidirectional()(steps()[:, :1], mask=tf.constant(MASK[:, :1]))
    for got, right in zip(one, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-6)


@pytest.mark.parametrize("kernel", ["packed", "hybrid", "scan", "keras"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_batch_without_steps_gives_the_state_that_it_was_given(return_sequences, kernel):
    layer = built(
        MaskedBiLSTM(
            UNITS, return_sequences=return_sequences, return_state=True, kernel=kernel, dropout=0.5
        )
    )
    state = [np.full((2, UNITS), 0.1 * (i + 1), np.float32) for i in range(4)]

    @tf.function(input_signature=[tf.TensorSpec((None, None, WIDTH))], autograph=False)
    def unknown(x):
        return layer(x, initial_state=state, training=True)

    nothing = tf.zeros((2, 0, WIDTH))
    for outputs in (layer(nothing, initial_state=state), unknown(nothing)):
        assert outputs[0].shape == ((2, 0, 2 * UNITS) if return_sequences else (2, 2 * UNITS))
        assert not np.asarray(outputs[0]).any()
        np.testing.assert_array_equal(outputs[1:], state)


@pytest.mark.parametrize("kernel", ["scan", "auto"])
def test_keras_leaves_xla_off(kernel):
    inputs, mask = keras.Input((4, WIDTH)), keras.Input((4,), dtype="bool")
    model: Any = keras.Model([inputs, mask], MaskedBiLSTM(UNITS, kernel=kernel)(inputs, mask=mask))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras tells that it does not compile.
        model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile
    targets = np.ones((4, 2 * UNITS), np.float32)
    losses = model.fit([steps(), MASK], targets, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_stack_never_sees_padding(return_sequences, residual, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, WIDTH))
    length = keras.Input((), dtype="int32")
    stack = MaskedBiLSTMStack(
        UNITS, layers=3, residual=residual, return_sequences=return_sequences, dropout=0.1
    )
    model = keras.Model([inputs, length], stack(inputs, length=length))
    x, lengths = steps(np.ones((1, 5), bool)), np.array([3], np.int32)
    alone = model([x[:, :3], lengths])
    x[:, 3:] = np.nan
    outputs = np.asarray(model([x, lengths]))
    np.testing.assert_allclose(outputs[:, :3] if return_sequences else outputs, alone, atol=1e-6)
    model.save(tmp_path / "stack.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "stack.keras")
    np.testing.assert_array_equal(loaded([x, lengths]), outputs)


@pytest.mark.parametrize("residual", [False, True])
def test_stack_is_its_layers_one_over_the_other(residual):
    stack = MaskedBiLSTMStack(
        UNITS, layers=3, residual=residual, return_sequences=True, dropout=0.5, kernel="scan"
    )
    stack.build((None, None, WIDTH))
    hidden: Any = stack.bilstms[0](steps(), mask=MASK)
    for bilstm in stack.bilstms[1:]:
        above: Any = bilstm(hidden, mask=MASK)
        hidden = above + hidden if residual else above
    outputs = np.asarray(stack(steps(), mask=MASK))
    np.testing.assert_allclose(outputs, hidden, atol=1e-6)
    assert {bilstm.kernel for bilstm in stack.bilstms} == {"scan"}
    # Dropout between layers, in training only, and drawn anew.
    first, second = (np.asarray(stack(steps(), mask=MASK, training=True)) for _ in range(2))
    assert np.abs(first - outputs).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3
    assert not first[~MASK].any()


@pytest.mark.parametrize("residual", [False, True])
def test_stack_marks_its_outputs_for_the_layers_above(residual):
    stack = MaskedBiLSTMStack(UNITS, layers=2, residual=residual, return_sequences=True)
    stack.build((None, None, WIDTH))
    length = np.array([4, 2, 0, 1])
    for said in ({"length": length}, {"mask": np.arange(4) < length[:, np.newaxis]}):
        outputs: Any = stack(steps(), **said)
        np.testing.assert_array_equal(outputs._keras_mask, np.arange(4) < length[:, np.newaxis])
    assert stack.compute_mask(None, MASK) is MASK
    assert MaskedBiLSTMStack(UNITS, layers=2).compute_mask(None, MASK) is None


def test_residual_stack_ends_where_its_sequences_end():
    keras.utils.set_random_seed(0)
    sequences = MaskedBiLSTMStack(UNITS, layers=2, residual=True, return_sequences=True)
    last = MaskedBiLSTMStack(UNITS, layers=2, residual=True)
    sequences.build((None, None, WIDTH))
    last.build((None, None, WIDTH))
    last.set_weights(sequences.get_weights())
    outputs = np.asarray(sequences(steps(), mask=MASK))
    expected = np.zeros((4, 2 * UNITS), np.float32)
    for row, real in enumerate(MASK[:3]):
        at = np.flatnonzero(real)
        expected[row] = [*outputs[row, at[-1], :UNITS], *outputs[row, at[0], UNITS:]]
    np.testing.assert_allclose(last(steps(), mask=MASK), expected, atol=1e-6)
