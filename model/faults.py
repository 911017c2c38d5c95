"""Which rows make a loss that is no number."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    model: FitModel, data: RunData, split: str, *, epoch: int, step: int, loss: float
) -> TrainingError:
    """An error that names the step, the bucket and the rows of a loss that is no number.

    Args:
        model: with the weights from before the step.
        data: of the run.
        split: the training split.
        epoch, step: from 0; the step is counted within the epoch.
        loss: what it was.
    """
    bucket, rows, culprits = 0, [], []
    options = data.read_options
    for replica in range(options["num_replicas"]):
        epochs = Epochs(data.manifest, split, ReadOptions(**options, epoch=epoch, replica=replica))
        schedule = epochs.schedule(epoch)
        number, bucket_step = schedule[step]
        bucket = epochs.buckets[number].layout.max_length
        numbers = schedule.rows(number, bucket_step, replica=replica)
        arrays = epochs.read(step)
        features, labels, *_ = epochs.decoder.structure(
            dict(zip(epochs.decoder.names, arrays, strict=True))
        )
        finite = _finite_rows(model, features, labels)
        there = numbers >= 0
        rows += numbers[there].tolist()
        culprits += numbers[there & ~finite].tolist()
    named = culprits or rows
    places = [_place(data.manifest, split, bucket, row) for row in sorted(named)[:_NAMED_ROWS]]
    more = f" and {len(named) - len(places)} more" if len(named) > len(places) else ""
    which = "of these rows:" if culprits else "though of no row by itself; the batch has the rows"
    return TrainingError(
        f"epoch {epoch + 1}, step {step + 1}: the loss is {loss} in a batch of {len(rows)} rows of "
        f"bucket {bucket} of split '{split}', {which} {', '.join(places)}{more}; look for NaN and "
        "very large values in them, or lower --learning-rate"
    )


def _finite_rows(model: FitModel, features: Any, labels: Any) -> np.ndarray:
    """(B,) bool, whether the loss of a row is a number."""
    outputs = model.network(features, training=False)
    terms = loss_terms(model.task, outputs, labels, mask=features[MASK])
    finite = np.isfinite(np.asarray(terms.losses))
    return np.logical_and.reduce(finite.reshape(len(finite), -1), axis=1)


def _place(manifest: Manifest, split: str, max_length: int, row: int) -> str:
    """File and record of a row of a bucket."""
    for shard in manifest.shards_of(split, max_length):
        if row < shard.records:
            return f"{shard.name} record {row}"
        row -= shard.records
    return f"row {row}"
