"""The classifier: what enters, and that padding does not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from lengthwise.dataset import Feature
from lengthwise.model import NetworkInput, TrainConfig, build_classifier

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


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_classifier(INPUTS, 4, TrainConfig(units=3, layers=2, embedding_size=2))


def test_padding_changes_no_logit(model):
    features = batch()
    expected = model(features)
    longer = {}
    for name, values in features.items():
        if values.ndim > 1 and name != "age":
            widths = [(0, 0), (0, 4), *[(0, 0)] * (values.ndim - 2)]
            fill = 0 if name in ("mask", "pairs") else np.nan
            values = np.pad(values, widths, constant_values=fill)
        longer[name] = values
    for name in ("frames", "pressure"):
        longer[name][~longer["mask"]] = np.nan
    np.testing.assert_allclose(model(longer), expected, atol=1e-6)


def test_each_row_alone_gives_the_same_logits(model):
    features = batch()
    together = model(features)
    for row, length in enumerate(features["length"]):
        alone = {
            name: values[row : row + 1, :length]
            if values.ndim > 1 and name != "age"
            else values[row : row + 1]
            for name, values in features.items()
        }
        np.testing.assert_allclose(model(alone)[0], together[row], atol=1e-6)


@pytest.mark.parametrize("name", ["frames", "pressure", "pairs", "age", "place"])
def test_every_feature_reaches_the_logits(model, name):
    features = batch()
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


def test_survives_saving_and_loading(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(batch()), model(batch()))


@pytest.mark.parametrize(
    "name", ["logits", "bilstm_0", "logits_", "with space", "größe", "a.b", "row"]
)
def test_features_may_have_any_name(name, tmp_path):
    model = build_classifier(
        [NetworkInput(Feature(name, "float32"), mean=np.zeros(1), variance=np.ones(1))],
        2,
        TrainConfig(units=2),
    )
    features = {name: np.ones((1, 3), np.float32), "mask": np.ones((1, 3), bool)}
    expected = model(features)
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(features), expected)
