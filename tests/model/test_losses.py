"""A padded batch has the loss, the gradients and the metrics of its rows one at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import Feature
from lengthwise.model import (
    MeanPooling,
    NetworkInput,
    NetworkOutput,
    TrainConfig,
    build_network,
)
from lengthwise.model.fit_model import FitModel
from lengthwise.model.learning_rate import LearningRate, build_optimizer
from lengthwise.model.losses import balanced_class_weights, loss_terms
from lengthwise.model.metrics import TaskMetrics
from lengthwise.model.task import Task

FRAMES = Feature("frames", "float32", (2,))


def label_of(dtype, shape=(), *, sequence=False):
    return Feature("y", dtype, shape, sequence=sequence, label=True)


TASKS = {
    "classify": Task("classify", label_of("int64"), (FRAMES,), {}, (3, 7, 9), counts=(5, 2, 1)),
    "multilabel": Task("multilabel", label_of("int64", (3,)), (FRAMES,), {}, counts=(7, 2)),
    "regress": Task(
        "regress", label_of("float32", (2,)), (FRAMES,), {}, shift=(5.0, -1.0), scale=(2.0, 0.5)
    ),
    "scalar": Task("regress", label_of("float32"), (FRAMES,), {}, shift=(5.0,), scale=(2.0,)),
    "tag": Task(
        "tag", label_of("int64", sequence=True), (FRAMES,), {}, (3, 7, 9), counts=(9, 4, 2)
    ),
}
LENGTHS = np.array([5, 1, 3, 4])


def padded_batch(task, total_steps=8, seed=0):
    """Features, labels and weights of four rows and one that only fills the batch.

    Padding holds NaN, or what is no class.
    """
    rng = np.random.default_rng(seed)
    mask = np.arange(total_steps) < LENGTHS[:, np.newaxis]
    mask[0, 2] = False  # a missing step
    frames = rng.normal(size=(4, total_steps, 2)).astype(np.float32)
    frames[~mask] = np.nan
    rows = (4, total_steps) if task.kind == "tag" else (4,)
    labels = {
        "classify": lambda: rng.choice(task.classes, rows),
        "tag": lambda: np.where(mask, rng.choice(task.classes, rows), -1),
        "multilabel": lambda: rng.integers(0, 2, (*rows, 3)),
        "regress": lambda: rng.normal(size=(*rows, *task.label.shape)).astype(np.float32),
    }[task.kind]()
    filler = np.nan if task.kind == "regress" else -1
    pad = [(0, 1)]
    features = {
        "frames": np.pad(frames, [*pad, (0, 0), (0, 0)], constant_values=np.nan),
        "mask": np.pad(mask, [*pad, (0, 0)]),
    }
    labels = np.pad(labels, pad + [(0, 0)] * (labels.ndim - 1), constant_values=filler)
    weights = features["mask"] if task.kind == "tag" else np.array([1, 1, 1, 1, 0])
    return features, labels, weights.astype(np.float32)


def alone(features, labels, row):
    length = LENGTHS[row]
    label = labels[row : row + 1]
    if label.ndim == 2 and label.shape[1] == features["mask"].shape[1]:
        label = label[:, :length]
    return {name: value[row : row + 1, :length] for name, value in features.items()}, label


@pytest.fixture(scope="module", params=TASKS)
def case(request):
    """A task, its network, and a padded batch."""
    task = TASKS[request.param]
    keras.utils.set_random_seed(1)
    network = build_network(
        [NetworkInput(FRAMES)], NetworkOutput.of(task), TrainConfig(units=3, dropout=0.0)
    )
    return task, network, padded_batch(task)


def mean_loss(terms):
    return tf.reduce_sum(terms.losses * terms.weights), tf.reduce_sum(terms.weights)


@pytest.mark.parametrize("balanced", [False, True])
def test_loss_and_gradients_are_those_of_the_rows_one_at_a_time(case, balanced):
    task, network, (features, labels, weights) = case
    config = TrainConfig(class_weights="balanced" if balanced else "none")
    class_weights = balanced_class_weights(task, config)
    variables = network.trainable_variables
    with tf.GradientTape() as tape:
        terms = loss_terms(
            task,
            network(features),
            labels,
            mask=features["mask"],
            weights=weights,
            class_weights=class_weights,
        )
        total, weight = mean_loss(terms)
        loss = total / weight
    gradients = tape.gradient(loss, variables)

    with tf.GradientTape() as tape:
        sums = []
        for row in range(4):
            one, label = alone(features, labels, row)
            terms = loss_terms(
                task, network(one), label, mask=one["mask"], class_weights=class_weights
            )
            sums.append(mean_loss(terms))
        expected = tf.add_n([s for s, _ in sums]) / tf.add_n([w for _, w in sums])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for ours, theirs in zip(gradients, tape.gradient(expected, variables), strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs), rtol=1e-4, atol=1e-6
        )


def test_metrics_are_those_of_the_rows_one_at_a_time(case):
    task, network, (features, labels, weights) = case
    together, apart = TaskMetrics(task), TaskMetrics(task)
    terms = loss_terms(task, network(features), labels, mask=features["mask"], weights=weights)
    together.update_state(terms, features["mask"])
    for row in range(4):
        one, label = alone(features, labels, row)
        apart.update_state(loss_terms(task, network(one), label, mask=one["mask"]), one["mask"])
    result, expected = together.result(), apart.result()
    assert set(result) == set(expected)
    for name in result:
        assert float(result[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    assert float(together.items) == float(apart.items)
    assert float(together.steps) == LENGTHS.sum() - 1
    assert float(together.slots) == 5 * 8


def test_the_numbers_are_those_of_the_formulas(case):
    task, _, (features, labels, weights) = case
    rng = np.random.default_rng(2)
    shape = (5, 8, 3) if task.kind == "tag" else (5, task.output_size)
    outputs = rng.normal(size=shape).astype(np.float32)
    terms = loss_terms(task, outputs, labels, mask=features["mask"], weights=weights)
    metrics = TaskMetrics(task)
    metrics.update_state(terms, features["mask"])
    found = {name: float(value) for name, value in metrics.result().items()}
    real = weights > 0
    given, there = outputs[real].astype(np.float64), labels[real]
    if task.kind == "regress":
        error = given - there.reshape(given.shape)
        assert found["loss"] == pytest.approx(np.mean((error / task.scale) ** 2), rel=1e-5)
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
        assert found["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
        return
    if task.kind == "multilabel":
        index = there
        losses = np.log1p(np.exp(given)) - there * given
        pairs = [(given[:, k] > 0, there[:, k] > 0) for k in range(3)]
        hits = (given > 0) == (there > 0)
    else:
        index = np.searchsorted(task.classes, there)
        losses = np.log(np.exp(given).sum(-1)) - given[np.arange(len(index)), index]
        hits = given.argmax(-1) == index
        pairs = [(given.argmax(-1) == c, index == c) for c in range(3)]
    scores = [2 * (g & t).sum() / (g.sum() + t.sum()) for g, t in pairs if (g | t).any()]
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(hits.mean())
    assert found["macro_f1"] == pytest.approx(np.mean(scores))
    options = {"mask": features["mask"], "weights": weights}
    balanced: Any = balanced_class_weights(task, TrainConfig(class_weights="balanced"))
    total, weight = mean_loss(loss_terms(task, outputs, labels, class_weights=balanced, **options))
    expected = np.average(losses, weights=balanced[index])
    assert float(total / weight) == pytest.approx(expected, rel=1e-5)


TOKEN = Feature("token", "int64")


def trained_on(batches, optimizer):
    """Changes of the weights of a small network of ids by a step on each batch."""
    label = label_of("int64")
    task = Task("classify", label, (TOKEN,), {"token": 3}, (3, 7))
    keras.utils.set_random_seed(3)
    config = TrainConfig(units=2, embedding_size=2, dropout=0.0)
    network = build_network([NetworkInput(TOKEN, 3)], NetworkOutput.of(task), config)
    model = FitModel(network, task)
    model.compile(optimizer=optimizer)
    before = network.get_weights()
    for tokens, labels in batches:
        tokens = np.array(tokens)
        model.train_step(({"token": tokens, "mask": np.ones(tokens.shape, bool)}, labels))
    return [new - old for old, new in zip(before, network.get_weights(), strict=True)]


# The same id again and again, as most words are.
TOKENS, LABELS = [[1, 1, 1, 2], [1, 1, 2, 1], [2, 1, 1, 1], [1, 2, 1, 1]], [3, 3, 3, 7]


def test_the_gradient_of_an_embedding_counts_an_id_that_comes_often_once():
    changes = trained_on([(TOKENS, LABELS)], keras.optimizers.SGD(1.0, global_clipnorm=0.01))
    norm = np.sqrt(sum(np.square(change).sum() for change in changes))
    assert norm == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("clip", [1e9, 0.01])
def test_accumulated_batches_make_the_step_of_the_large_batch(clip):
    halves = [(TOKENS[:2], LABELS[:2]), (TOKENS[2:], LABELS[2:])] * 2
    config = TrainConfig(clip_norm=clip, accumulate_steps=2)
    found = trained_on(halves, build_optimizer(config, LearningRate(config, steps=4)))
    config = TrainConfig(clip_norm=clip)
    whole = [(TOKENS, LABELS)] * 2
    expected = trained_on(whole, build_optimizer(config, LearningRate(config, steps=2)))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_gradient_of_a_scaled_loss_is_clipped_as_if_it_were_not_scaled(case):
    task, network, _ = case
    model: Any = FitModel(network, task, clip_norm=0.5)
    model.compile(optimizer=build_optimizer(TrainConfig(precision="mixed_float16"), 0.1))
    model.optimizer.build(network.trainable_variables)
    scale = float(model.optimizer.scale_loss(1.0))
    assert scale > 1
    (clipped,) = model._reduced([tf.constant([3.0 * scale, 4.0 * scale])], 1)
    np.testing.assert_allclose(clipped, [0.3 * scale, 0.4 * scale], rtol=1e-6)


def test_a_step_of_training_has_dropout_and_the_losses_of_layers():
    task = TASKS["classify"]
    features, labels, weights = padded_batch(task)
    frames = keras.Input((None, 2), name="frames")
    mask = keras.Input((None,), dtype="bool", name="mask")
    pooled = MeanPooling()(frames, mask=mask)
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="dense")
    network = keras.Model([frames, mask], keras.layers.Dropout(0.99)(dense(pooled)))
    model = FitModel(network, task)
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    before = network.get_weights()[0]
    model.train_step((features, labels, weights))
    # All that is left of the logits are a few; the gradient of the regularizer is the kernel.
    change = before - network.get_weights()[0]
    assert np.isclose(change, before, atol=1e-6).mean() >= 0.5


def test_a_label_of_several_is_given_at_one_half_as_in_predictions():
    task = TASKS["multilabel"]
    terms = loss_terms(task, np.zeros((1, 3), np.float32), [[1, 1, 0]], mask=None)
    metrics = TaskMetrics(task)
    metrics.update_state(terms, np.ones((1, 2), bool))
    assert np.asarray(metrics.given).tolist() == [1, 1, 1]
    assert float(metrics.hits) == 2


def test_sums_of_metrics_count_beyond_what_float32_does():
    task = TASKS["classify"]
    metrics = TaskMetrics(task)
    metrics.items.assign(2.0**24)
    features, labels, _ = padded_batch(task)
    terms = loss_terms(task, np.zeros((1, 3), np.float32), labels[:1], mask=None)
    metrics.update_state(terms, features["mask"][:1])
    assert float(metrics.items) == 2.0**24 + 1


def test_nan_in_padding_does_no_harm_to_a_step_of_training(case):
    task, network, batch = case
    model = FitModel(network, task)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    logs = model.train_step(batch)
    assert np.isfinite(float(logs["loss"]))
    assert all(np.isfinite(weights).all() for weights in network.get_weights())


def test_a_loss_that_is_no_number_leaves_the_weights_alone(case):
    task, network, (features, labels, weights) = case
    bad = {**features, "frames": np.full_like(features["frames"], np.nan)}
    model = FitModel(network, task)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    before = network.get_weights()
    logs = model.train_step((bad, labels, weights))
    assert np.isnan(float(logs["loss"]))
    for one, two in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_balanced_weights_make_all_classes_weigh_the_same():
    config = TrainConfig(class_weights="balanced")
    for task in TASKS.values():
        weights = balanced_class_weights(task, config)
        if task.kind == "regress":
            assert weights is None
        else:
            shares = weights * np.array(task.counts)
            np.testing.assert_allclose(shares, shares[0])
            assert shares.sum() == pytest.approx(sum(task.counts))


def test_a_class_that_never_came_takes_no_weight_from_the_others():
    task = dataclasses.replace(TASKS["classify"], counts=(5, 0, 1))
    weights = balanced_class_weights(task, TrainConfig(class_weights="balanced"))
    np.testing.assert_allclose(weights, [6 / (2 * 5), 1, 6 / (2 * 1)])


def test_macro_f1_is_over_the_classes_that_are_there_or_given():
    task = TASKS["classify"]
    outputs = np.array([[9, 0, 0], [0, 9, 0]], np.float32)
    metrics = TaskMetrics(task)
    metrics.update_state(loss_terms(task, outputs, [3, 3], mask=None), np.ones((2, 1), bool))
    # Of 3 two thirds; of 7, which was given and is not there, nothing; 9 is neither.
    assert float(metrics.result()["macro_f1"]) == pytest.approx((2 / 3 + 0) / 2)
