"""Losses over real items only: rows, steps of rows, or values of a row's label.

Every loss is a mean with weights, sum(weight * loss) / sum(weight). An item that is not there, a
step of padding or a row that only fills a batch, has weight 0, and whatever stands in its place, be
it NaN, reaches neither the loss nor a gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lengthwise.model.configuration import TrainConfig
from lengthwise.model.task import CLASSIFY, MULTILABEL, REGRESS, TAG, Task


class LossTerms(NamedTuple):
    """What a loss is the mean of; all of one shape, that of the items.

    The items are (B,) for `classify`, (B, K) for `multilabel`, (B, D) for `regress` and (B, T) for
    `tag`.
    """

    losses: tf.Tensor  # float32, 0 where there is no item
    weights: tf.Tensor  # float32, of the classes; 0 where there is no item
    real: tf.Tensor  # float32, 1 for an item, 0 where there is none
    targets: tf.Tensor  # int64 number of the class, or float32 numbers; 0 where there is no item
    outputs: tf.Tensor  # float32, with one more axis for classes; 0 where there is no item


def loss_terms(
    task: Task,
    outputs: Any,
    labels: Any,
    *,
    mask: Any,
    weights: Any = None,
    class_weights: np.ndarray | None = None,
) -> LossTerms:
    """Compares what a network gave with the labels.

    Cross-entropy in nats for classes and tags, binary cross-entropy for each of several labels,
    squares of differences in units of the label's deviation for numbers.

    Args:
        task: says what the outputs mean.
        outputs: of the network; see `lengthwise.model.task`.
        labels: as `read_dataset` gives them.
        mask: (B, T) bool, True at real steps; used to tag.
        weights: 0 for rows (B,) or steps (B, T) that are not there, else 1; as `read_dataset` gives
            them with `pad_remainder`. By default all rows, or all real steps, are there.
        class_weights: (C,) of each class, or (2,) of 0 and 1 of several labels.

    Example:
        >>> from lengthwise.dataset import Feature
        >>> label = Feature("y", "int64", sequence=False, label=True)
        >>> task = Task("classify", label, (), {}, classes=(3, 7))
        >>> terms = loss_terms(task, [[0.0, 0.0]], [7], mask=None)
        >>> round(float(terms.losses[0]), 4), int(terms.targets[0])
        (0.6931, 1)
    """
    outputs = tf.cast(outputs, tf.float32)
    labels = tf.convert_to_tensor(labels)
    real = _real(task, outputs, mask, weights)  # (B,) or (B, T) bool
    outputs = tf.where(tf.expand_dims(real, -1), outputs, 0.0)
    if task.kind in (CLASSIFY, TAG):
        classes = tf.constant(task.classes, tf.int64)
        known = tf.where(real, tf.cast(labels, tf.int64), classes[0])
        targets = tf.cast(tf.searchsorted(classes, tf.reshape(known, [-1])), tf.int64)
        targets = tf.reshape(targets, tf.shape(known))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)
    else:
        real = tf.broadcast_to(real[:, tf.newaxis], tf.shape(outputs))
        targets = tf.reshape(labels, tf.shape(outputs))
        targets = tf.where(real, targets, tf.zeros((), targets.dtype))
        if task.kind == MULTILABEL:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(targets, tf.float32), outputs)
        else:
            targets = tf.cast(targets, tf.float32)
            scale = tf.constant([size or 1.0 for size in task.scale], tf.float32)
            losses = tf.square((outputs - targets) / scale)
    present = tf.cast(real, tf.float32)
    weighted = present
    if class_weights is not None and task.kind != REGRESS:
        weighted = present * tf.gather(tf.constant(class_weights, tf.float32), targets)
    return LossTerms(tf.where(real, losses, 0.0), weighted, present, targets, outputs)


def balanced_class_weights(task: Task, config: TrainConfig) -> np.ndarray | None:
    """Weights with which all classes weigh the same in total, (C,); None where there are none.

    The weight of class c is N / (C · n_c), so that an average item has weight 1. Counts are those
    of the plan, over all splits.

    Source: G. King, L. Zeng, "Logistic regression in rare events data", Political Analysis 9
    (2001); the "balanced" of scikit-learn.

    Example:
        >>> from lengthwise.dataset import Feature
        >>> label = Feature("y", "int64", sequence=False, label=True)
        >>> task = Task("classify", label, (), {}, classes=(3, 7), counts=(30, 10))
        >>> balanced_class_weights(task, TrainConfig(class_weights="balanced"))
        array([0.66666667, 2.        ])
    """
    if config.class_weights == "none" or task.kind == REGRESS:
        return None
    counts = np.array(task.counts, np.float64)
    there = counts > 0
    return np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 1.0)


def _real(task: Task, outputs: tf.Tensor, mask: Any, weights: Any) -> tf.Tensor:
    if weights is not None:
        return tf.convert_to_tensor(weights) > 0
    if task.kind == TAG:
        return tf.convert_to_tensor(mask)
    return tf.ones(tf.shape(outputs)[:1], tf.bool)
