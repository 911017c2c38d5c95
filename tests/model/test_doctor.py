"""The doctor names the layer at fault in models that people write, and silent about good ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from lengthwise.dataset import InputError, UsageError
from lengthwise.model import MaskedBiLSTM, MeanPooling, check_masks, check_model_file
from lengthwise.pipeline.commands.doctor import command

L = keras.layers


def found(model, *args, **kwargs):
    return [(f.kind, f.layer) for f in check_masks(model, *args, **kwargs)]


@pytest.fixture(autouse=True)
def fresh():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


def frames_and_mask(total=None):
    return keras.Input((total, 3), name="frames"), keras.Input((total,), dtype="bool", name="mask")


@pytest.mark.parametrize("total", [None, 8])
def test_good_models_have_no_findings(total):
    frames, mask = frames_and_mask(total)
    ours = keras.Model([frames, mask], L.Dense(2)(MaskedBiLSTM(4)(frames, mask=mask)))
    theirs = keras.Sequential(
        [
            keras.Input((total,), dtype="int32"),
            L.Embedding(20, 4, mask_zero=True),
            L.Bidirectional(L.LSTM(3, return_sequences=True)),
            L.LSTM(3),
            L.Dense(2),
        ]
    )
    masking = keras.Sequential([keras.Input((total, 3)), L.Masking(-1.0), L.LSTM(3)])
    pooled = keras.Model(
        [frames, mask], MeanPooling()(MaskedBiLSTM(4, return_sequences=True)(frames, mask=mask))
    )
    for model in (ours, theirs, masking, pooled):
        assert found(model) == []


def mean_by_hand():
    tokens = keras.Input((None,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    real: Any = keras.ops.cast(keras.ops.not_equal(tokens, 0), "float32")
    real = real[:, :, None]
    total: Any = keras.ops.sum(embedded * real, axis=1)
    return keras.Model(tokens, total / keras.ops.sum(real, axis=1))


def attention_by_hand():
    frames, mask = frames_and_mask()
    hidden = L.Dense(4)(frames)
    to_steps = keras.ops.matmul(hidden, keras.ops.transpose(hidden, (0, 2, 1)))  # (B, T, T)
    to_steps = keras.ops.where(mask[:, None, :], to_steps, -1e9)
    hidden = keras.ops.matmul(keras.ops.softmax(to_steps), hidden)
    scores = keras.ops.where(mask, L.Dense(1)(hidden)[:, :, 0], -1e9)  # (B, T)
    weights: Any = keras.ops.softmax(scores)
    return keras.Model([frames, mask], keras.ops.sum(weights[:, :, None] * hidden, axis=1))


def features_of_a_row(steps, size):
    frames = keras.Input((steps, 3), name="frames")
    mask = keras.Input((steps,), dtype="bool", name="mask")
    features = keras.Input((size,), name="features")
    joined = L.Concatenate()([MaskedBiLSTM(2)(frames, mask=mask), features])
    return keras.Model([frames, mask, features], joined)


def mask_of_numbers(dtype):
    frames = keras.Input((None, 3), name="frames")
    mask = keras.Input((None,), dtype=dtype, name="attention_mask")
    real = keras.ops.not_equal(mask, 0)
    return keras.Model([frames, mask], L.Bidirectional(L.LSTM(3))(frames, mask=real))


def vectors_of_a_row():
    frames, mask = frames_and_mask()
    neighbours = keras.Input((9, 3), name="neighbours")  # as many as a probe likes to have steps
    joined = [MaskedBiLSTM(2)(frames, mask=mask), L.Flatten()(neighbours)]
    return keras.Model([frames, mask, neighbours], L.Concatenate()(joined))


def length_beside_a_mask_of_values():
    tokens, length = keras.Input((None,), dtype="int32"), keras.Input((), name="length")
    hidden = L.LSTM(3)(L.Embedding(20, 4, mask_zero=True)(tokens))
    return keras.Model([tokens, length], hidden / length[:, None])


def sum_over_zeros():
    tokens = keras.Input((8,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    hidden = L.Bidirectional(L.LSTM(3, return_sequences=True))(embedded)
    return keras.Model(tokens, keras.ops.sum(hidden, axis=1))


def fixed_batch():
    frames = keras.Input(batch_shape=(3, None, 2))
    return keras.Model(frames, L.LSTM(3, stateful=True)(L.Masking()(frames)))


def half_precision():
    tokens = keras.Input((None,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True, dtype="mixed_float16")(tokens)
    hidden = L.MultiHeadAttention(2, 16, dtype="mixed_float16")(embedded, embedded)
    return keras.Model(tokens, L.GlobalAveragePooling1D(dtype="mixed_float16")(hidden))


def not_a_number():
    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, keras.ops.log(L.LSTM(4)(L.Embedding(20, 4, mask_zero=True)(tokens))))


@pytest.mark.parametrize(
    "make",
    [
        mean_by_hand,
        attention_by_hand,
        lambda: features_of_a_row(None, 9),
        lambda: features_of_a_row(8, 8),
        lambda: features_of_a_row(8, 12),
        vectors_of_a_row,
        length_beside_a_mask_of_values,
        sum_over_zeros,
        lambda: mask_of_numbers("int32"),
        lambda: mask_of_numbers("float32"),
        fixed_batch,
        half_precision,
        not_a_number,
    ],
    ids=[
        "mean by hand",
        "attention by hand",
        "features of a row",
        "as many features as steps",
        "more features than steps",
        "as many vectors as steps",
        "length beside a mask of values",
        "sum over zeros",
        "integer mask",
        "float mask",
        "fixed batch",
        "half precision",
        "NaN",
    ],
)
def test_right_models_of_all_kinds_raise_no_alarm(make):
    assert found(make()) == []


def test_normalization_over_padding_in_training_is_told():
    frames, mask = frames_and_mask()
    hidden = L.BatchNormalization(name="guilty")(frames)
    model = keras.Model([frames, mask], MaskedBiLSTM(2)(hidden, mask=mask))
    (finding,) = check_masks(model)
    assert (finding.kind, finding.layer) == ("padding read", "guilty")
    assert "statistics in training" in finding.message
    hidden = L.BatchNormalization()(frames, mask=mask)
    assert found(keras.Model([frames, mask], MaskedBiLSTM(2)(hidden, mask=mask))) == []


def test_names_that_only_contain_mask_or_length_are_data():
    masked_ids = keras.Input((None,), dtype="int32", name="masked_ids")
    valence = keras.Input((), name="valence")
    hidden = L.Bidirectional(L.LSTM(3), name="bi")(L.Embedding(20, 4)(masked_ids))
    model = keras.Model([masked_ids, valence], hidden * valence[:, None])
    assert found(model) == [("no mask", ""), ("padding read", "bi")]


def test_models_over_strings_ask_for_a_batch():
    texts = keras.Input((), dtype="string")
    tokens = L.TextVectorization(vocabulary=["do", "re", "mi"])(texts)
    embedded = L.Embedding(5, 4, mask_zero=True)(tokens)
    model = keras.Model(texts, L.Bidirectional(L.LSTM(3))(embedded))
    with pytest.raises(UsageError, match="takes strings"):
        check_masks(model)
    assert found(model, np.array(["do re mi", "mi"])) == []


def test_steps_of_a_python_loop_are_followed_as_a_whole():
    class Loop(keras.Model):
        def __init__(self):
            super().__init__()
            self.cell = L.LSTMCell(2)

        def call(self, frames):
            state = [frames[:, 0, :2] * 0] * 2
            for step in range(frames.shape[1]):
                _, state = self.cell(frames[:, step], state)
            return state[0]

    frames = np.ones((2, 4, 3), np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    assert found(Loop(), frames, mask=mask) == [("padding read", "")]


@pytest.mark.parametrize("total", [None, 8])
def test_layer_that_was_given_no_mask_is_named(total):
    frames, mask = frames_and_mask(total)
    hidden = L.LSTM(4, name="lost", return_sequences=True)(frames)
    model = keras.Model([frames, mask], MaskedBiLSTM(4, name="fine")(hidden, mask=mask))
    # A forward LSTM reads padding behind the real steps only at padded steps.
    assert found(model) == []
    hidden = L.Bidirectional(L.LSTM(4, return_sequences=True), name="lost")(frames)
    model = keras.Model([frames, mask], MaskedBiLSTM(4, name="fine")(hidden, mask=mask))
    assert found(model) == [("padding read", "lost")]


@pytest.mark.parametrize("total", [None, 8])
def test_operation_that_drops_the_mask_and_the_layer_that_suffers(total):
    tokens = keras.Input((total,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, L.LSTM(3, name="above")(embedded * 2.0))
    kinds = check_masks(model)
    assert [f.kind for f in kinds] == ["mask dropped", "padding read"]
    assert "hands none on to above" in kinds[0].message
    assert kinds[1].layer == "above"
    assert "was given no mask" in kinds[1].message


def test_mask_of_numbers_tells_that_padding_may_hold_anything():
    frames = keras.Input((8, 3), name="frames")
    mask = keras.Input((8,), dtype="int32", name="mask")
    hidden = L.Bidirectional(L.LSTM(4, return_sequences=True), name="lost")(frames)
    model = keras.Model([frames, mask], MaskedBiLSTM(4)(hidden, mask=mask))
    assert found(model) == [("padding read", "lost")]


def test_concatenation_with_an_unmasked_tensor_drops_the_mask():
    tokens, other = keras.Input((None,), dtype="int32"), keras.Input((None, 2))
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    joined = L.Concatenate(name="joined")([embedded, other])
    model = keras.Model([tokens, other], L.LSTM(3, name="above")(joined))
    assert found(model) == [("mask dropped", "joined"), ("padding read", "above")]
    assert "calls padding real to above" in check_masks(model)[0].message


def test_masking_that_does_not_know_the_padding_is_named():
    frames = keras.Input((None, 3))
    masked = L.Masking(-1.0, name="guilty")(L.Rescaling(0.5)(frames))
    model = keras.Model(frames, L.Bidirectional(L.LSTM(3), name="above")(masked))
    dropped, read = check_masks(model)
    assert (dropped.kind, dropped.layer) == ("mask dropped", "guilty")
    assert "calls padding real to above" in dropped.message
    assert (read.kind, read.layer) == ("padding read", "above")


@pytest.mark.parametrize("layer", ["conv", "pool", "last"])
def test_layers_that_know_no_mask_are_named(layer):
    frames, mask = frames_and_mask()
    if layer == "conv":
        hidden = L.Conv1D(4, 3, padding="same", name="guilty")(frames)
        output = MaskedBiLSTM(3)(hidden, mask=mask)
    else:
        hidden = MaskedBiLSTM(3, return_sequences=True)(frames, mask=mask)
        if layer == "pool":
            output = L.GlobalMaxPooling1D(name="guilty")(hidden)
        else:
            output = hidden[:, -1]
    findings = check_masks(keras.Model([frames, mask], output))
    (read,) = [f for f in findings if f.kind == "padding read"]
    assert read.layer == ("guilty" if layer != "last" else read.layer)
    assert "knows no mask" in read.message


def test_maximum_over_zeros_at_padding_is_told():
    tokens = keras.Input((None,), dtype="int32")
    hidden = L.Bidirectional(L.GRU(6, return_sequences=True))(
        L.Embedding(20, 4, mask_zero=True)(tokens)
    )
    model = keras.Model(tokens, L.GlobalMaxPooling1D(name="guilty")(hidden))
    assert found(model) == [("padding read", "guilty")]


def test_attention_over_padding_of_a_fixed_number_of_steps_is_told():
    """What an LSTM of Keras holds at padding is its last output: other inputs do not change it."""
    frames, mask = frames_and_mask(8)
    tokens = keras.Input((8,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    for inputs, hidden in (
        (tokens, L.LSTM(4, return_sequences=True)(embedded)),
        (tokens, L.Bidirectional(L.LSTM(4, return_sequences=True))(embedded)),
        ([frames, mask], L.LSTM(4, return_sequences=True)(frames, mask=mask)),
    ):
        scores = L.Flatten()(L.Dense(1, bias_initializer="ones")(hidden))
        weights = L.Softmax(name="guilty")(scores)
        model = keras.Model(inputs, L.Dot(1)([weights, hidden]))
        assert ("padding read", "guilty") in found(model)


def test_keras_hands_no_mask_to_a_layer_with_a_second_input():
    tokens, told = keras.Input((None,), dtype="int32"), []
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    start = L.LSTM(4, return_state=True)(embedded)[1:]
    lstm = L.LSTM(4, return_sequences=True, return_state=True, name="guilty")
    for options in ({}, {"mask": keras.ops.not_equal(tokens, 0)}):
        steps, state, _ = lstm(embedded, initial_state=start, **options)
        told.append(check_masks(keras.Model(tokens, state)))
        # Padding behind the real steps changes the state, but none of the steps.
        assert found(keras.Model(tokens, L.Dense(2)(steps))) == []
    ((finding,), nothing) = told
    assert (finding.kind, finding.layer, nothing) == ("padding read", "guilty", [])
    assert "no mask, because Keras hands on none to a layer with a second" in finding.message


def test_layers_before_a_head_of_another_precision_are_named():
    frames = keras.Input((None, 3))
    real: Any = L.Masking()(frames)
    lost = keras.ops.multiply(real, 2.0)
    half = L.LSTM(4, name="half", dtype="mixed_float16")(lost)
    heads = [L.Dense(1)(half), L.Dense(1)(L.LSTM(4, name="full")(lost))]
    read = [layer for kind, layer in found(keras.Model(frames, heads)) if kind == "padding read"]
    assert sorted(read) == ["full", "half"]


class Positions(L.Layer):
    """Adds a vector for each position; there are `count` of them."""

    def __init__(self, count):
        super().__init__()
        self.supports_masking = True
        self.count = count

    def build(self, input_shape):
        self.vectors = self.add_weight(shape=(self.count, input_shape[-1]))

    def call(self, x):
        return x + tf.gather(self.vectors, tf.range(tf.shape(x)[1]))


@pytest.mark.parametrize("good", [True, False])
def test_model_with_room_for_no_more_steps_is_checked_all_the_same(good):
    tokens = keras.Input((None,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    steps = Positions(9)(embedded)
    last = L.LSTM(3)(steps) if good else L.GlobalMaxPooling1D(name="max")(steps)
    expected = [] if good else [("padding read", "max")]
    assert [f for f in found(keras.Model(tokens, last)) if f[0] == "padding read"] == expected


def test_vectors_as_wide_as_rows_are_long_are_no_steps():
    class Mean(L.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, x, mask=None):
            real = tf.cast(mask, x.dtype)[:, :, tf.newaxis]
            return tf.reduce_sum(x * real, 1) / tf.reduce_sum(real, 1)

    tokens = keras.Input((10,), dtype="int32")
    wide = L.Dense(10)(L.Embedding(20, 4, mask_zero=True)(tokens))
    assert found(keras.Model(tokens, L.Dense(1)(Mean()(wide)))) == []


def test_attention_that_was_given_no_mask_is_not_said_to_know_none():
    frames, mask = frames_and_mask()
    hidden = L.MultiHeadAttention(2, 4, name="guilty")(frames, frames)
    (finding,) = check_masks(keras.Model([frames, mask], MaskedBiLSTM(3)(hidden, mask=mask)))
    assert (finding.kind, finding.layer) == ("padding read", "guilty")
    assert "was given no mask, and" in finding.message
    tokens = keras.Input((None,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)
    hidden = L.MultiHeadAttention(2, 4, name="guilty")(embedded, embedded * 1.0)
    told = check_masks(keras.Model(tokens, L.LSTM(3)(hidden)))
    (finding,) = [f for f in told if f.kind == "padding read"]
    assert finding.layer == "guilty"
    assert "was given the mask, and" in finding.message


def test_zeros_of_masking_are_padding_of_a_fixed_number_of_steps():
    frames = keras.Input((8, 3))
    hidden = L.Bidirectional(L.LSTM(3), name="above")(L.Masking()(frames) * 2.0)
    assert ("padding read", "above") in found(keras.Model(frames, hidden))


def test_layer_whose_outputs_no_layer_reads_is_named_in_a_model_of_python():
    class Last(keras.Model):
        def __init__(self):
            super().__init__()
            self.bi = L.Bidirectional(L.LSTM(3, return_sequences=True), name="guilty")

        def call(self, frames):
            return self.bi(frames)[:, 0]

    frames = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    assert ("padding read", "guilty") in found(Last(), frames, mask=mask)


def test_model_that_does_not_run_is_told_in_one_line():
    tokens = keras.Input((None,), dtype="int32")
    embedded = L.Embedding(20, 4, mask_zero=True)(tokens)

    class Fails(L.Layer):
        def call(self, inputs):
            if tf.executing_eagerly():
                raise ValueError("too many\nsteps")
            return inputs

    with pytest.raises(InputError, match=r"does not run on the batch \(.*check_masks") as caught:
        check_masks(keras.Model(tokens, Fails(name="fails")(embedded)))
    assert "\\" not in str(caught.value)  # no line break or colour, escaped as they would be


def test_model_without_any_mask_is_told():
    frames = keras.Input((None, 3))
    model = keras.Model(frames, L.Bidirectional(L.LSTM(3), name="bi")(frames))
    assert found(model) == [("no mask", ""), ("padding read", "bi")]


def test_loss_over_padding_is_told():
    frames, mask = frames_and_mask()
    hidden = MaskedBiLSTM(3, return_sequences=True)(frames, mask=mask)
    good = keras.Model([frames, mask], L.Dense(2, name="tags")(hidden))
    assert found(good) == []
    bad = keras.Model([frames, mask], L.Dense(2, name="tags")(hidden * 1.0))
    assert ("loss over padding", "tags") in found(bad)


def test_what_leaves_cudnn_is_told_but_is_not_wrong():
    frames, mask = frames_and_mask()
    lstm = L.LSTM(3, recurrent_dropout=0.1, activation="relu", name="slow")
    model = keras.Model([frames, mask], lstm(frames, mask=mask))
    (finding,) = check_masks(model)
    assert (finding.kind, finding.layer, finding.wrong) == ("slow on a GPU", "slow", False)
    assert "activation='relu', recurrent_dropout" in finding.message


def test_masks_of_the_batch_that_leave_cudnn_are_told():
    frames, mask = frames_and_mask()
    model = keras.Model([frames, mask], L.LSTM(3, name="lstm")(frames, mask=mask))
    batch = [np.ones((2, 3, 3), np.float32), np.array([[1, 0, 1], [0, 0, 0]], bool)]
    (finding,) = check_masks(model, batch)
    assert "not padding on the right, a row without any real step" in finding.message


def test_mask_may_be_told_for_a_model_that_knows_none():
    model = keras.Sequential([keras.Input((None, 3)), L.Bidirectional(L.LSTM(2), name="bi")])
    batch = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    assert ("padding read", "bi") in found(model, batch, mask=mask)


def test_subclassed_models_and_models_in_models_are_followed():
    class Tagger(keras.Model):
        def __init__(self):
            super().__init__()
            inner = keras.Input((None, 3))
            self.inner = keras.Model(inner, L.Conv1D(3, 3, padding="same", name="guilty")(inner))
            self.bilstm = MaskedBiLSTM(2)

        def call(self, inputs):
            return self.bilstm(self.inner(inputs["frames"]), length=inputs["length"])

    batch = {
        "frames": np.ones((2, 4, 3), np.float32) * np.arange(4)[:, np.newaxis],
        "length": np.array([4, 2]),
    }
    assert found(Tagger(), {k: v.astype("float32") for k, v in batch.items()}) == [
        ("padding read", "guilty")
    ]


def test_the_model_is_left_as_it_was():
    frames, mask = frames_and_mask()
    model = keras.Model([frames, mask], MaskedBiLSTM(3)(frames, mask=mask))
    before = [w.copy() for w in model.get_weights()]
    check_masks(model)
    assert all("call" not in vars(layer) for layer in model.layers)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_command_prints_a_line_per_finding_and_exits_with_1(tmp_path):
    frames, mask = frames_and_mask()
    good = keras.Model([frames, mask], MaskedBiLSTM(3)(frames, mask=mask))
    good.save(tmp_path / "good.keras")
    done = CliRunner().invoke(command, [str(tmp_path / "good.keras")])
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    hidden = L.Bidirectional(L.LSTM(3, return_sequences=True), name="bi")(frames)
    bad = keras.Model([frames, mask], MeanPooling()(hidden, mask=mask))
    bad.save(tmp_path / "bad.keras")
    done = CliRunner().invoke(command, [str(tmp_path / "bad.keras")])
    assert done.exit_code == 1
    assert done.output.startswith("padding read: bi: Bidirectional(LSTM) was given no mask")
    done = CliRunner().invoke(command, [str(tmp_path / "bad.keras"), "--json"])
    assert done.exit_code == 1 and '"layer": "bi"' in done.output


def test_files_that_are_no_models_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.keras: there is no such file"):
        check_model_file("nowhere.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(InputError, match="Keras cannot load it"):
        check_model_file(tmp_path / "text.keras")


def test_model_without_known_inputs_asks_for_a_batch():
    class Unknown(keras.Model):
        pass

    with pytest.raises(UsageError, match="takes a batch of yours"):
        check_masks(Unknown())
