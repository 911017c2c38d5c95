"""The network: what enters, and that padding does not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from lengthwise.dataset import Feature, UsageError
from lengthwise.model import (
    AttentionPooling,
    LastStepPooling,
    MaskedBiLSTM,
    MaxPooling,
    MeanPooling,
    NetworkInput,
    NetworkOutput,
    TrainConfig,
    build_network,
)
from lengthwise.model.networks import find_builder

INPUTS = [
    NetworkInput(Feature("age", "float32", (2,), sequence=False)),
    NetworkInput(
        Feature("frames", "float32", (3,)),
        mean=np.array([1.0, 2.0, 3.0]),
        variance=np.array([4.0, 0.0, 1.0]),
    ),
    NetworkInput(Feature("pairs", "int64", (2,)), num_ids=20),
    NetworkInput(Feature("place", "int64", sequence=False), num_ids=5),
    NetworkInput(Feature("pressure", "float32")),
]


def batch(total_steps=5, seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.array([5, 3, 1])
    return {
        "frames": rng.normal(size=(3, total_steps, 3)).astype(np.float32),
        "pressure": rng.normal(size=(3, total_steps)).astype(np.float32),
        "pairs": rng.integers(0, 20, (3, total_steps, 2)),
        "age": rng.normal(size=(3, 2)).astype(np.float32),
        "place": rng.integers(0, 5, 3),
        "mask": np.arange(total_steps) < lengths[:, np.newaxis],
        "length": lengths.astype(np.int32),
    }


# Every option of a network, in few networks.
NETWORKS = {
    "stack": (NetworkOutput(4), {"layers": 2}),
    "mean": (NetworkOutput(4), {"pooling": "mean", "layer_norm": True, "context": "onehot"}),
    "max": (NetworkOutput(4), {"pooling": "max", "layers": 2, "residual": True}),
    "attention": (NetworkOutput(4), {"pooling": "attention"}),
    "last": (NetworkOutput(4), {"pooling": "last", "layers": 2, "residual": True}),
    "steps": (NetworkOutput(4, per_step=True), {"layers": 2, "layer_norm": True}),
    "numbers": (NetworkOutput(4, shift=np.full(4, 50.0), scale=np.full(4, 7.0)), {}),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    keras.utils.set_random_seed(0)
    output, options = NETWORKS[request.param]
    return build_network(INPUTS, output, TrainConfig(units=3, embedding_size=2, **options))


def of_real_steps(model, features):
    """What a model gives, without what it gives at padding."""
    given = np.asarray(model(features))
    return given[features["mask"]] if given.ndim == 3 else given


def test_padding_changes_no_logit(model):
    features = batch()
    expected = of_real_steps(model, features)
    longer = {}
    for name, values in features.items():
        if values.ndim > 1 and name != "age":
            widths = [(0, 0), (0, 4), *[(0, 0)] * (values.ndim - 2)]
            fill = {"mask": 0, "pairs": -7}.get(name, np.nan)
            values = np.pad(values, widths, constant_values=fill)
        longer[name] = values
    for name in ("frames", "pressure"):
        longer[name][~longer["mask"]] = np.nan
    longer["pairs"][~longer["mask"]] = 999
    np.testing.assert_allclose(of_real_steps(model, longer), expected, atol=1e-5)


def test_each_row_alone_gives_the_same_logits(model):
    features = batch()
    together = np.asarray(model(features))
    for row, length in enumerate(features["length"]):
        alone = {
            name: values[row : row + 1, :length]
            if values.ndim > 1 and name != "age"
            else values[row : row + 1]
            for name, values in features.items()
        }
        expected = together[row] if together.ndim == 2 else together[row, :length]
        np.testing.assert_allclose(model(alone)[0], expected, atol=1e-5)


def test_every_feature_reaches_the_output(model):
    features = batch()
    for name in ("frames", "pressure", "pairs", "age", "place"):
        changed = {**features, name: batch(seed=1)[name]}
        assert np.abs(np.asarray(model(features)) - np.asarray(model(changed)))[0].max() > 1e-5


def test_floats_are_normalised_inside_the_model(model):
    layer = model.get_layer("frames_normalization")
    normalised = np.asarray(layer(np.array([[[3.0, 5.0, 3.0]]])))
    np.testing.assert_allclose(normalised, [[[1.0, 3.0, 0.0]]], atol=1e-6)


def test_order_of_the_dict_and_other_features_do_not_matter(model):
    features = batch()
    expected = model(features)
    turned = {"another": np.zeros(3), **dict(reversed(features.items()))}
    np.testing.assert_array_equal(model(turned), expected)


def layers_of(model, kind):
    return [layer for layer in model.layers if type(layer) is kind]


def test_each_option_of_the_network_is_there(model, request):
    _, options = NETWORKS[request.node.callspec.params["model"]]
    config = TrainConfig(units=3, embedding_size=2, **options)
    recurrent = layers_of(model, MaskedBiLSTM)
    assert [layer.units for layer in recurrent] == [3] * config.layers
    dropouts = layers_of(model, keras.layers.Dropout)
    assert [layer.rate for layer in dropouts] == [config.dropout] * config.layers
    norms = layers_of(model, keras.layers.LayerNormalization)
    assert len(norms) == config.layers * config.layer_norm
    added = layers_of(model, keras.layers.Add)
    assert len(added) == (config.layers - 1) * config.residual
    sizes = {layer.name: layer.output_dim for layer in layers_of(model, keras.layers.Embedding)}
    ids = ["pairs", *(["place"] if config.context == "embed" else [])]
    assert sizes == {f"{name}_embedding": 2 for name in ids}
    poolings = [type(layer) for layer in model.layers if layer.name.startswith("pooling")]
    in_layer = config.pooling == "last" and not config.residual
    expected = {
        "last": LastStepPooling,
        "mean": MeanPooling,
        "max": MaxPooling,
        "attention": AttentionPooling,
    }
    per_step = len(model.output_shape) == 3
    assert poolings == ([] if per_step or in_layer else [expected[config.pooling]])


def test_dropout_is_there_in_training_only(model):
    features = batch()
    evaluated, trained = (
        np.asarray(model(features, training=training)) for training in (False, True)
    )
    np.testing.assert_array_equal(evaluated, model(features))
    assert np.abs(evaluated - trained).max() > 1e-3


def test_survives_saving_and_loading(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(batch()), model(batch()))


@pytest.mark.parametrize(
    "name", ["logits", "bilstm_0", "logits_", "with space", "größe", "a.b", "row"]
)
def test_features_may_have_any_name(name, tmp_path):
    model = build_network(
        [NetworkInput(Feature(name, "float32"), mean=np.zeros(1), variance=np.ones(1))],
        NetworkOutput(2),
        TrainConfig(units=2),
    )
    features = {name: np.ones((1, 3), np.float32), "mask": np.ones((1, 3), bool)}
    expected = model(features)
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(features), expected)


@pytest.mark.parametrize("place", [".near:build", "nowhere:build", ":build", "lengthwise.model:no"])
def test_a_network_that_cannot_be_found_is_told_in_a_line(place):
    with pytest.raises(UsageError, match=r"cannot be found: .*; write it as module:function"):
        find_builder(place)
