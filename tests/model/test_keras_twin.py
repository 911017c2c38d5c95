"""The same weights and batches give the same training in plain Keras, step by step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import Feature, Schema
from lengthwise.model import TrainConfig, build_network, read_dataset, train

SCHEMA = Schema(
    (
        Feature("frames", "float32", (2,)),
        Feature("phase", "int64", label=True),
        Feature("token", "int64"),
        Feature("word", "int64", sequence=False, label=True),
    )
)
EPOCHS = 2
COMMON = {
    "units": 3,
    "embedding_size": 2,
    "epochs": EPOCHS,
    "batch_size": 8,
    "dropout": 0.0,
    "seed": 3,
}
# Clipping takes part: the gradient is often longer than that.
CASES = {
    "classify": {"label": "word", "schedule": "cosine", "clip_norm": 0.3, "learning_rate": 0.03},
    "tag": {"label": "phase", "task": "tag", "class_weights": "balanced", "layers": 2},
}


def make_rows(count, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(rng.integers(1, 13))
        frames = rng.normal([3.0, -1.0], [2.0, 0.1], (length, 2)).astype(np.float32)
        token = rng.integers(0, 5, length)
        rows.append(
            {
                "frames": frames,
                "token": token,
                "phase": np.where(token > 0, 4 + (frames[:, 0] > 3), 9),
                "word": 7 + 2 * int(token.sum() % 3),
            }
        )
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_rows):
    path = tmp_path_factory.mktemp("data") / "dataset"
    return write_rows(path, {"train": make_rows(50, 0), "val": make_rows(20, 1)}, schema=SCHEMA)


class SummingAdam(keras.optimizers.Adam):
    """Keras's Adam squares the parts of an embedding's gradient, one for each time an id came."""

    def apply(self, grads, trainable_variables=None):
        return super().apply([tf.convert_to_tensor(part) for part in grads], trainable_variables)


def keras_network(steps, config, classes):
    """Plain Keras layers in the order of ours, so that weights can be copied."""
    mask = keras.Input((None,), dtype="bool", name="mask")
    frames = keras.Input((None, 2), name="frames")
    token = keras.Input((None,), dtype="int64", name="token")
    normal = keras.layers.Normalization(mean=steps.mean(0), variance=steps.var(0))(frames)
    vectors = keras.layers.Embedding(5, config.embedding_size)(token)
    hidden = keras.layers.Concatenate()([normal, vectors])
    for _ in range(config.layers):
        lstm = keras.layers.LSTM(config.units, return_sequences=config.task == "tag")
        hidden = keras.layers.Bidirectional(lstm)(hidden, mask=mask)
    return keras.Model([mask, frames, token], keras.layers.Dense(classes)(hidden))


@pytest.mark.parametrize("name", CASES)
def test_losses_and_weights_are_those_of_keras(dataset, tmp_path, monkeypatch, name):
    monkeypatch.setenv("LENGTHWISE_KERNEL", "hybrid")  # traced in half the time
    config = TrainConfig(**{**COMMON, **CASES[name]})
    first = []

    def ours(inputs, output, config):
        network = build_network(inputs, output, config)
        first[:] = [weights.copy() for weights in network.get_weights()]
        return network

    result = train(dataset, tmp_path / "run", config, build_model=ours)
    task = result.run.task
    classes = np.array(task.classes)
    per_class = np.ones(len(classes))
    if config.class_weights == "balanced":
        counts = np.array(task.counts)
        per_class = counts.sum() / (len(counts) * counts)

    def batches(split, **options):
        read = read_dataset(dataset, split, batch_size=8, label=config.label, **options)
        for features, labels in read.as_numpy_iterator():
            there = features["mask"] if config.task == "tag" else np.ones(len(labels), bool)
            index = np.searchsorted(classes, np.where(there, labels, classes[0]))
            inputs = [features[name] for name in ("mask", "frames", "token")]
            yield inputs, index[..., np.newaxis], there.astype(np.float32)

    steps = np.concatenate([x[1][x[0]] for x, _, _ in batches("train", shuffle=False)])
    twin = keras_network(steps.astype(np.float64), config, len(classes))
    twin.set_weights(first)
    total = EPOCHS * len(read_dataset(dataset, "train", batch_size=8))
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, total)
    twin.compile(
        SummingAdam(rate, global_clipnorm=config.clip_norm),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        # XLA would compile anew for each bucket.
        jit_compile=False,
    )
    for epoch, row in enumerate(result.history):
        losses, weights = [], []
        for inputs, index, there in batches("train", seed=config.seed, epoch=epoch):
            weight = there * per_class[index[..., 0]]
            twin.reset_metrics()  # older Keras gives the mean of all batches so far
            losses.append(float(twin.train_on_batch(inputs, index, sample_weight=weight)))
            weights.append(weight.sum())
        # The loss of a batch is a mean; over an epoch each item counts once.
        assert row["loss"] == pytest.approx(np.average(losses, weights=weights), abs=1e-5)
        losses, weights = [], []
        for inputs, index, there in batches("val", shuffle=False):
            logits = tf.cast(twin(inputs, training=False), tf.float64)
            parts = tf.nn.sparse_softmax_cross_entropy_with_logits(index[..., 0], logits)
            losses.append(float(np.sum(parts * there)))
            weights.append(there.sum())
        assert row["val_loss"] == pytest.approx(np.sum(losses) / np.sum(weights), abs=1e-5)
    last = result.run.load_model("last").get_weights()
    for mine, theirs, before in zip(last, twin.get_weights(), first, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert np.abs(mine - before).max() > 0.01
