"""Metrics of a task, as sums over real items; nothing is a mean of means of batches."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.losses import LossTerms
from lengthwise.model.task import MULTILABEL, REGRESS, Task


class TaskMetrics(keras.metrics.Metric):
    """All numbers of a task in one metric, so that they are measured together and in the graph.

    Sums are kept in double precision: a single one would lose rows above 2**24.

    Args:
        task: says what there is to measure.
        name: of the metric.

    Returns of `result`, a dict of scalars:
        loss: mean with the weights of the classes.
        accuracy: share of items (rows, labels of rows, steps) that are right.
        macro_f1: mean over classes of 2·right / (given + there); of the classes that are there or
            were given. For `multilabel` over the labels.
        rmse, mae: `regress`: in the unit of the label, over all its numbers.
    """

    def __init__(self, task: Task, name: str = "numbers") -> None:
        super().__init__(name=name)
        self.task = task
        size = task.output_size

        def total(name: str, shape: tuple[int, ...] = ()) -> Any:
            return self.add_variable(shape, "zeros", dtype="float64", name=name)

        self.loss, self.weight, self.items = total("loss"), total("weight"), total("items")
        if task.kind == REGRESS:
            self.squares, self.absolutes = total("squares"), total("absolutes")
        else:
            self.hits = total("hits")
            self.right, self.given = total("right", (size,)), total("given", (size,))
            self.there = total("there", (size,))
        self.steps, self.slots = total("steps"), total("slots")

    def update_state(self, terms: LossTerms, mask: Any) -> None:  # pyright: ignore
        """Adds a batch.

        Args:
            terms: of the batch.
            mask: (B, T) bool, to count real steps and slots.
        """
        real = terms.real
        self._add(self.loss, tf.cast(terms.losses * terms.weights, tf.float64))
        self._add(self.weight, tf.cast(terms.weights, tf.float64))
        self._add(self.items, tf.cast(real, tf.float64))
        self._add(self.steps, tf.cast(mask, tf.float64))
        self._add(self.slots, tf.cast(tf.size(mask), tf.float64))
        if self.task.kind == REGRESS:
            error = tf.cast(terms.outputs - terms.targets, tf.float64)
            error *= tf.cast(real, tf.float64)
            self._add(self.squares, tf.square(error))
            self._add(self.absolutes, tf.abs(error))
            return
        if self.task.kind == MULTILABEL:
            there = tf.cast(terms.targets, tf.float64) * tf.cast(real, tf.float64)  # (B, K)
            # As in predictions: a probability of one half is enough.
            given = tf.cast(terms.outputs >= 0, tf.float64) * tf.cast(real, tf.float64)
            self._add(
                self.hits, tf.cast(tf.equal(there, given), tf.float64) * tf.cast(real, tf.float64)
            )
            for variable, values in (
                (self.there, there),
                (self.given, given),
                (self.right, there * given),
            ):
                variable.assign_add(tf.reduce_sum(values, axis=0))
            return
        classes = self.task.output_size
        chosen = tf.argmax(terms.outputs, axis=-1)
        counted = tf.reshape(tf.cast(real, tf.float64), [-1])
        hit = counted * tf.reshape(tf.cast(tf.equal(chosen, terms.targets), tf.float64), [-1])
        self._add(self.hits, hit)
        targets, chosen = tf.reshape(terms.targets, [-1]), tf.reshape(chosen, [-1])
        for variable, numbers, classes_of in (
            (self.there, counted, targets),
            (self.given, counted, chosen),
            (self.right, hit, targets),
        ):
            variable.assign_add(tf.math.unsorted_segment_sum(numbers, classes_of, classes))

    def spoil(self, spoilt: tf.Tensor) -> None:
        """Makes the loss no number, () bool: where a gradient was none."""
        self.loss.assign_add(tf.where(spoilt, tf.constant(math.nan, tf.float64), 0.0))

    def result(self) -> dict[str, Any]:
        loss = self.loss / tf.maximum(self.weight, 1e-300)
        items = tf.maximum(tf.convert_to_tensor(self.items), 1.0)
        if self.task.kind == REGRESS:
            return {
                "loss": loss,
                "rmse": tf.sqrt(self.squares / items),
                "mae": self.absolutes / items,
            }
        both = tf.convert_to_tensor(self.given) + tf.convert_to_tensor(self.there)
        scores = tf.math.divide_no_nan(2.0 * self.right, both)
        seen = tf.maximum(tf.reduce_sum(tf.cast(both > 0, tf.float64)), 1.0)
        return {
            "loss": loss,
            "accuracy": self.hits / items,
            "macro_f1": tf.reduce_sum(scores) / seen,
        }

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("metrics of a run are made from its task, not saved")

    def _add(self, variable: Any, values: tf.Tensor) -> None:
        variable.assign_add(tf.reduce_sum(values))


def better(name: str, value: float, than: float) -> bool:
    """Whether a number of a metric is better than another; nothing is better than NaN.

    Example:
        >>> better("loss", 1.0, 2.0), better("val_accuracy", 0.5, 0.6)
        (True, False)
    """
    higher = name.removeprefix("val_") in ("accuracy", "macro_f1")
    return value > than if higher else value < than
