"""A padded batch has the loss, the gradients and the metrics of its rows one at a time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import Feature
from lengthwise.model import NetworkInput, NetworkOutput, TrainConfig, build_network
from lengthwise.model.fit_model import FitModel
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
