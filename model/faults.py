"""Which rows make a loss, or a gradient, that is no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import LengthwiseError, Manifest
from lengthwise.dataset.schema import MASK
from lengthwise.model.epochs import Epochs
from lengthwise.model.fit_model import FitModel
from lengthwise.model.losses import loss_terms
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.strategies import RunData

_NAMED_ROWS = 5


class TrainingError(LengthwiseError):
    """Training cannot go on."""


def bad_batch(
    model: FitModel, data: RunData, split: str, *, epoch: int, step: int
) -> TrainingError:
    """An error that names step, bucket and rows of a loss, or gradient, that is no number.

    Args:
        model: with the weights from before the step.
        data: of the run.
        split: the training split.
        epoch, step: from 0; the step is counted within the epoch.
    """
    bucket, rows, culprits = 0, [], []
    for replica in range(data.read_options["num_replicas"]):
        epochs = Epochs(
            data.manifest, split, ReadOptions(**data.read_options, epoch=epoch, replica=replica)
        )
        bucket, numbers, features, labels = _batch(epochs, epoch, step)
        finite = _finite_rows(model, features, labels)
        there = numbers >= 0
        rows += numbers[there].tolist()
        culprits += numbers[there & ~finite].tolist()
    which = "of these rows:" if culprits else "though of no row by itself; the batch has the rows"
    places = _places(data.manifest, split, bucket, culprits or rows)
    return TrainingError(
        f"epoch {epoch + 1}, step {step + 1}: the loss or its gradient is no number in a batch of "
        f"{len(rows)} rows of bucket {bucket} of split '{split}', {which} {places}; look for NaN "
        "and very large values in them, or lower --learning-rate"
    )


def bad_validation(model: FitModel, data: RunData, split: str, *, epoch: int) -> TrainingError:
    """An error that names bucket and rows of a validation loss that is no number.

    Args:
        model: with the weights at the end of the epoch.
        data: of the run.
        split: the validation split.
        epoch: from 0.
    """
    # All rows, whoever measured them.
    options = {**data.read_options, "num_replicas": 1, "shuffle": False}
    epochs = Epochs(data.manifest, split, ReadOptions(**options))
    for step in range(len(epochs)):
        bucket, numbers, features, labels = _batch(epochs, 0, step)
        outputs = model.network(features, training=False)
        losses = loss_terms(model.task, outputs, labels, mask=features[MASK]).losses.numpy()
        finite = np.isfinite(losses.reshape(len(losses), -1)).all(axis=1)
        culprits = numbers[(numbers >= 0) & ~finite].tolist()
        if culprits:
            return TrainingError(
                f"epoch {epoch + 1}: the loss is no number in bucket {bucket} of split '{split}', "
                f"of these rows: {_places(data.manifest, split, bucket, culprits)}; look for NaN "
                "and very large values in them"
            )
    return TrainingError(f"epoch {epoch + 1}: the loss of split '{split}' is no number")


def _batch(epochs: Epochs, epoch: int, step: int) -> tuple[int, np.ndarray, Any, Any]:
    """Bucket, numbers of the rows in it, features and labels of a batch."""
    schedule = epochs.schedule(epoch)
    bucket, bucket_step = schedule[step]
    numbers = schedule.rows(bucket, bucket_step, replica=epochs.options.replica)
    arrays = epochs.read_together(epoch, bucket, np.array([bucket_step]))
    features, labels, *_ = epochs.decoder.structure(
        dict(zip(epochs.decoder.names, arrays, strict=True))
    )
    return epochs.buckets[bucket].layout.max_length, numbers, features, labels


def _finite_rows(model: FitModel, features: Any, labels: Any) -> np.ndarray:
    """(B,) bool, whether the loss of a row and its gradient are numbers."""
    finite = []
    for row in range(len(features[MASK])):
        one = {name: value[row : row + 1] for name, value in features.items()}
        with tf.GradientTape() as tape:
            outputs = model.network(one, training=False)
            terms = loss_terms(model.task, outputs, labels[row : row + 1], mask=one[MASK])
            loss = tf.reduce_sum(terms.losses)
        gradients = tape.gradient(loss, model.network.trainable_variables)
        norm = tf.linalg.global_norm([g for g in gradients if g is not None])
        finite.append(bool(tf.math.is_finite(loss + norm)))
    return np.array(finite)


def _places(manifest: Manifest, split: str, max_length: int, rows: list[int]) -> str:
    """Files and records of rows of a bucket, the first few of them."""
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    named = sorted(rows)[:_NAMED_ROWS]
    return ", ".join(_place(manifest, split, max_length, row) for row in named) + more


def _place(manifest: Manifest, split: str, max_length: int, row: int) -> str:
    """File and record of a row of a bucket."""
    for shard in manifest.shards_of(split, max_length):
        if row < shard.records:
            return f"{shard.name} record {row}"
        row -= shard.records
    return f"row {row}"
