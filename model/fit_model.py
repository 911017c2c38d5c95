"""The step of training and of validation: what `keras.Model.fit` runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset.schema import MASK
from lengthwise.model.losses import LossTerms, loss_terms
from lengthwise.model.metrics import TaskMetrics
from lengthwise.model.task import Task


class FitModel(keras.Model):
    """A network with its task around it, for `fit` alone; the network is what is saved.

    The loss of a batch is the mean over its real items, over all replicas together; so the weights
    are the same on however many replicas a batch is spread.

    Args:
        network: takes a dict of features, gives what `task` says.
        task: says what outputs and labels mean.
        class_weights: (C,) of each class, in the loss of training; see `loss_terms`.
        clip_norm: norm to clip the gradient to where there is more than one replica; with one, the
            optimizer does it.
    """

    def __init__(
        self,
        network: keras.Model,
        task: Task,
        *,
        class_weights: np.ndarray | None = None,
        clip_norm: float = np.inf,
    ) -> None:
        super().__init__(name="fit")
        self.network: Any = network
        self.task = task
        self.class_weights = class_weights
        self.clip_norm = clip_norm
        self.numbers = TaskMetrics(task)
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        return [self.numbers]

    def call(self, features: Any, training: bool | None = None) -> Any:
        return self.network(features, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self.network(features, training=True)
            terms = self._terms(outputs, features, labels, weights, self.class_weights)
            total, weight = _sum_over_replicas(
                [tf.reduce_sum(terms.losses * terms.weights), tf.reduce_sum(terms.weights)]
            )
            mine = tf.reduce_sum(terms.losses * terms.weights) / tf.maximum(weight, 1e-30)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            extra = [tf.cast(loss, tf.float32) for loss in self.network.losses]
            mine += tf.add_n(extra) / replicas if extra else 0.0
            scaled = self.optimizer.scale_loss(mine)
        unconnected = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(scaled, variables, unconnected_gradients=unconnected)
        # An embedding has as many parts of a gradient for an id as it came; norm and squares of the
        # gradient are those of their sum.
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if replicas > 1:
            gradients = self._reduced(gradients, replicas)
        finite = tf.math.is_finite(total)
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # That one looks for the largest scale at which gradients are numbers.
            finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
        # Weights stay what they were before a loss or gradient that is no number, to look for its
        # rows.
        gradients = [tf.where(finite, gradient, tf.zeros_like(gradient)) for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        self.numbers.update_state(terms, features[MASK])
        self.numbers.spoil(~finite)
        return self._logs()

    def test_step(self, data: Any) -> dict[str, Any]:
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self.network(features, training=False)
        self.numbers.update_state(
            self._terms(outputs, features, labels, weights, None), features[MASK]
        )
        return self._logs()

    def _logs(self) -> dict[str, Any]:
        logs = self.numbers.result()
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes their mean over workers along an axis, which a scalar has not.
            return {name: tf.expand_dims(value, 0) for name, value in logs.items()}
        return logs

    def _terms(
        self, outputs: Any, features: Any, labels: Any, weights: Any, class_weights: Any
    ) -> LossTerms:
        return loss_terms(
            self.task,
            outputs,
            labels,
            mask=features[MASK],
            weights=weights,
            class_weights=class_weights,
        )

    def _reduced(self, gradients: list[Any], replicas: int) -> list[Any]:
        """Gradients of all replicas together, clipped, and so that their sum is that again."""
        whole = _sum_over_replicas(gradients)
        # Gradients in half precision are those of a scaled loss.
        whole, _ = tf.clip_by_global_norm(whole, self.optimizer.scale_loss(self.clip_norm))
        return [gradient / replicas for gradient in whole]

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        # All of it is built; Keras would read a batch to find that out.
        return None


def _sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
