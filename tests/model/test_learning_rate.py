"""The learning rate over a run, and what the optimizer makes of the options."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from lengthwise.model import TrainConfig
from lengthwise.model.journal import Journal
from lengthwise.model.learning_rate import LearningRate, build_optimizer

GRADIENTS = np.array([[0.3, -0.1], [0.1, 0.2], [-0.2, 0.4], [0.6, 0.0]], np.float32)


def weights_after(optimizer, gradients):
    variable = keras.Variable(np.array([1.0, -2.0], np.float32))
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return np.asarray(variable)


def optimizer_of(**options):
    config = TrainConfig(**{"learning_rate": 0.1, "clip_norm": 1e9, **options})
    return build_optimizer(config, LearningRate(config, steps=4))


def test_accumulated_batches_make_one_update_of_their_mean_gradient():
    found = weights_after(optimizer_of(accumulate_steps=2), GRADIENTS)
    means = GRADIENTS.reshape(2, 2, 2).mean(axis=1)
    np.testing.assert_allclose(found, weights_after(keras.optimizers.Adam(0.1), means), rtol=1e-6)


def test_the_gradient_is_clipped_as_a_whole():
    found = weights_after(optimizer_of(clip_norm=0.1), GRADIENTS)
    lengths = np.linalg.norm(GRADIENTS, axis=1, keepdims=True)
    clipped = GRADIENTS * np.minimum(1, 0.1 / lengths)
    np.testing.assert_allclose(found, weights_after(keras.optimizers.Adam(0.1), clipped), rtol=1e-6)


def test_weight_decay_makes_adam_adamw():
    found = weights_after(optimizer_of(weight_decay=0.5), GRADIENTS)
    theirs = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    np.testing.assert_allclose(found, weights_after(theirs, GRADIENTS), rtol=1e-6)
    assert np.abs(found - weights_after(optimizer_of(), GRADIENTS)).max() > 0.1


def test_half_precision_scales_the_loss():
    assert isinstance(optimizer_of(precision="mixed_float16"), keras.optimizers.LossScaleOptimizer)
    for precision in ("float32", "mixed_bfloat16"):
        assert type(optimizer_of(precision=precision)) is keras.optimizers.Adam


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"schedule": "cosine"}, [0.5 + 0.5 * np.cos(np.pi * i / 6) for i in range(6)]),
        ({"schedule": "cosine", "accumulate_steps": 2}, [1, 1, 0.75, 0.75, 0.25, 0.25]),
        (
            {"schedule": "cosine", "warmup_steps": 2},
            [0.5, *(0.5 + 0.5 * np.cos(np.pi * max(0, i - 2) / 4) for i in range(1, 6))],
        ),
        # Two batches make an update, and the rate follows updates.
        ({"warmup_steps": 2, "accumulate_steps": 2}, [0.5, 0.5, 1, 1, 1, 1]),
        ({"schedule": "plateau", "warmup_steps": 2}, [0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_the_rate_follows_the_schedule(options, expected):
    rate = LearningRate(TrainConfig(learning_rate=1.0, **options), steps=6)
    np.testing.assert_allclose([float(rate(step)) for step in range(6)], expected, rtol=1e-5)


def judged(values, **options):
    """Rate after each epoch whose number to be judged by is given, and what the journal knows."""
    config = TrainConfig(learning_rate=1.0, epochs=99, **options)
    rate = LearningRate(config, steps=99)
    fitted: Any = SimpleNamespace(stop_training=False)
    run: Any = SimpleNamespace(config=config)
    data: Any = None
    journal = Journal(
        run, fitted, rate, data, steps_per_epoch=1, validation_split="val", writes=False
    )
    rates = []
    for epoch, value in enumerate(values, 1):
        journal._judge(value, epoch)
        rates.append(float(rate(0)))
    return rates, journal.progress, fitted.stop_training


def test_the_rate_falls_after_epochs_that_were_no_better():
    options = {"schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5}
    rates, progress, stopped = judged([5, 4, 4, 6, 4, 3.9, 4, 4, 4], **options)
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert (progress.best_epoch, progress.best, stopped) == (6, 3.9, False)


def test_training_stops_after_epochs_that_were_no_better():
    # 0.6 is not better than 0.6, and a higher accuracy is.
    _, progress, stopped = judged([0.5, 0.6, 0.6, 0.7, 0.7], patience=2, monitor="accuracy")
    assert (progress.best_epoch, progress.waited, stopped) == (4, 1, False)
    values = [0.5, 0.6, 0.6, 0.4]
    rates, progress, stopped = judged(values, patience=2, plateau_patience=1, monitor="accuracy")
    # Only its schedule lowers the rate.
    assert rates == [1, 1, 1, 1]
    assert (progress.best_epoch, progress.stopped, stopped) == (2, True, True)
