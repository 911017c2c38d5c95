"""From the steps of a sequence to one vector: over real steps only, and zeros for an empty row."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.masked_recurrence import joined_mask
from lengthwise.model.masking import zero_masked_steps


def last_steps(values: Any, *, mask: Any = None, length: Any = None) -> tf.Tensor:
    """Where both directions of a BiLSTM end: the forward one at a row's last real step, the
    backward one at its first.

    It is what a BiLSTM with `return_sequences=False` gives. `values[:, -1]` is not: it is padding
    forward, and the state after a single step backward.

    Args:
        values: (B, T, 2·H), the concatenated outputs of both directions.
        mask, length: which steps are real; all by default.

    Returns:
        (B, 2·H); zeros for a row without any real step.

    Example:
        >>> values = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
        >>> last_steps(values, length=[2]).numpy().tolist()
        [[3.0, 2.0]]
    """
    values, mask = _values_and_mask(values, mask, length)
    units = values.shape[2] // 2
    # One more step, of zeros, is where rows without any real step end.
    more = [[0, 0], [0, 1]]
    values = tf.pad(values, [*more, [0, 0]])
    steps = tf.range(1, tf.shape(mask)[1] + 1)
    last, first = (
        tf.argmax(tf.pad(tf.where(mask, rank, -1), more), axis=1, output_type=tf.int32)
        for rank in (steps, tf.reverse(steps, [0]))
    )
    forward = tf.gather(values[:, :, :units], last, batch_dims=1)
    backward = tf.gather(values[:, :, units:], first, batch_dims=1)
    return tf.concat([forward, backward], axis=-1)


def mean_steps(values: Any, *, mask: Any = None, length: Any = None) -> tf.Tensor:
    """Mean over the real steps of each row; zeros where there is none.

    Example:
        >>> mean_steps(tf.constant([[[1.0], [3.0], [99.0]]]), length=[2]).numpy().tolist()
        [[2.0]]
    """
    values, mask = _values_and_mask(values, mask, length)
    # Sums over many steps lose too much in half precision, or are past its range.
    dtype = tf.float64 if values.dtype == tf.float64 else tf.float32
    total = tf.reduce_sum(tf.cast(zero_masked_steps(values, mask), dtype), axis=1)
    count = tf.reduce_sum(tf.cast(mask, dtype), axis=1, keepdims=True)
    return tf.cast(total / tf.maximum(count, 1.0), values.dtype)


def max_steps(values: Any, *, mask: Any = None, length: Any = None) -> tf.Tensor:
    """Largest value over the real steps of each row; zeros where there is none.

    Example:
        >>> max_steps(tf.constant([[[-1.0], [-3.0], [99.0]]]), length=[2]).numpy().tolist()
        [[-1.0]]
    """
    values, mask = _values_and_mask(values, mask, length)
    lowest = tf.constant(values.dtype.min, values.dtype)
    largest = tf.reduce_max(tf.where(mask[:, :, tf.newaxis], values, lowest), axis=1)
    real_rows = tf.reduce_any(mask, axis=1, keepdims=True)
    return tf.where(real_rows, largest, tf.zeros((), values.dtype))


def _values_and_mask(values: Any, mask: Any, length: Any) -> tuple[tf.Tensor, tf.Tensor]:
    values = tf.convert_to_tensor(values)
    mask = joined_mask(values, mask, length)
    return values, tf.ones(tf.shape(values)[:2], tf.bool) if mask is None else mask


class _Pooling(keras.layers.Layer):
    """Takes (B, T, D) and a mask or length, gives (B, D)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        return (input_shape[0], input_shape[2])


@keras.saving.register_keras_serializable(package="lengthwise")
class LastStepPooling(_Pooling):
    """Last real step of both directions of a BiLSTM; see `last_steps`."""

    def call(self, inputs: Any, mask: Any = None, length: Any = None) -> Any:
        return last_steps(inputs, mask=mask, length=length)


@keras.saving.register_keras_serializable(package="lengthwise")
class MeanPooling(_Pooling):
    """Mean over real steps; see `mean_steps`."""

    def call(self, inputs: Any, mask: Any = None, length: Any = None) -> Any:
        return mean_steps(inputs, mask=mask, length=length)


@keras.saving.register_keras_serializable(package="lengthwise")
class MaxPooling(_Pooling):
    """Largest value over real steps; see `max_steps`."""

    def call(self, inputs: Any, mask: Any = None, length: Any = None) -> Any:
        return max_steps(inputs, mask=mask, length=length)


@keras.saving.register_keras_serializable(package="lengthwise")
class AttentionPooling(_Pooling):
    """Weighted mean over real steps, with learned weights: softmax(v · tanh(W·x + b)) · x.

    Args:
        units: size of the hidden layer that scores a step.
        **kwargs: of `keras.layers.Layer`.

    Source: Yang et al., Hierarchical Attention Networks, 2016, https://aclanthology.org/N16-1174
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(
            units, activation="tanh", dtype=self.dtype_policy, name="hidden"
        )
        self.score = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="score")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:2], self.units))
        self.built = True

    def call(self, inputs: Any, mask: Any = None, length: Any = None) -> Any:
        values, mask = _values_and_mask(inputs, mask, length)
        values = zero_masked_steps(values, mask)
        scores = tf.cast(self.score(self.hidden(values))[:, :, 0], tf.float32)  # (B, T)
        # Not minus infinity: a row without any real step would be 0/0.
        scores = tf.where(mask, scores, scores.dtype.min)
        weights = tf.nn.softmax(scores, axis=1)
        return tf.einsum("bt,btd->bd", tf.cast(weights, values.dtype), values)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
