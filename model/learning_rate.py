"""Learning rates that follow from the number of updates, and fall where nothing gets better."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.configuration import TrainConfig


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up, then constant, cosine, or what is left of it on plateaus.

    The rate after u updates is rate · factor · min(1, (u + 1) / warm-up) · shape(u), where the
    shape is 1, or falls from 1 to 0 along half a cosine between the end of the warm-up and the last
    update. The factor is 1 until `lower` is called.

    Args:
        config: the options.
        steps: batches of the whole run.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017,
        without restarts, https://arxiv.org/abs/1608.03983

    Example:
        >>> config = TrainConfig(learning_rate=0.5, warmup_steps=2, schedule="cosine")
        >>> rate = LearningRate(config, steps=6)
        >>> [round(float(rate(step)), 3) for step in range(7)]
        [0.25, 0.5, 0.5, 0.427, 0.25, 0.073, 0.0]
    """

    def __init__(self, config: TrainConfig, *, steps: int) -> None:
        self.config = config
        self.updates = max(1, steps // config.accumulate_steps)
        self.factor = keras.Variable(1.0, trainable=False, name="factor")

    def __call__(self, step: Any) -> Any:
        config = self.config
        # Keras counts batches, whether or not they made an update.
        update = tf.cast(tf.convert_to_tensor(step) // config.accumulate_steps, tf.float32)
        rate = config.learning_rate * tf.convert_to_tensor(self.factor)
        if config.warmup_steps:
            rate *= tf.minimum(1.0, (update + 1.0) / config.warmup_steps)
        if config.schedule == "cosine":
            falling = max(1, self.updates - config.warmup_steps)
            done = tf.clip_by_value((update - config.warmup_steps) / falling, 0.0, 1.0)
            rate *= 0.5 * (1.0 + tf.cos(math.pi * done))
        return rate

    def lower(self) -> None:
        """Multiplies the rate by `plateau_factor`."""
        self.factor.assign(self.factor * self.config.plateau_factor)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("the rate of a run follows from its options, and is not saved")


def build_optimizer(config: TrainConfig, rate: LearningRate) -> Any:
    """Adam, or AdamW, with clipping, accumulation and, in half precision, loss scaling."""
    accumulate = config.accumulate_steps if config.accumulate_steps > 1 else None
    options: dict[str, Any] = {
        "learning_rate": rate,
        # Under a strategy the gradient is clipped once it is whole, not on each replica.
        "global_clipnorm": config.clip_norm if config.strategy == "none" else None,
        "gradient_accumulation_steps": accumulate,
    }
    if config.weight_decay:
        optimizer = keras.optimizers.AdamW(weight_decay=config.weight_decay, **options)
    else:
        optimizer = keras.optimizers.Adam(**options)
    if config.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
