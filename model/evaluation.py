"""Evaluation: how good a trained model is on a split, averaged over its rows."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from lengthwise.dataset import InputError, Manifest, SchemaError
from lengthwise.model.reader import read_dataset
from lengthwise.model.run import Run
from lengthwise.model.task import Classification, load_plan
from lengthwise.model.training import batch_size_of


def evaluate(
    run_dir: str | os.PathLike[str],
    dataset_path: str | os.PathLike[str],
    split: str = "test",
    *,
    checkpoint: str = "best",
) -> dict[str, float | int]:
    """Measures a trained classifier.

    Loss and accuracy are means over the rows of the split: each row counts once, whatever the size
    of its batch, and sums are kept in double precision.

    Args:
        run_dir: what `train` left.
        dataset_path: the dataset that it was trained on, or another with the same features.
        split: the split to measure on.
        checkpoint: "best" or "last".

    Returns:
        "loss" (mean cross-entropy in nats), "accuracy" and "rows".

    Raises:
        LengthwiseError: run, dataset or split cannot be used, or do not fit together.

    Example:
        >>> evaluate("nowhere", "dataset")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no run here (config.json is missing); \
make one with `lengthwise train`
    """
    run = Run.load(run_dir)
    manifest = Manifest.load(dataset_path)
    if manifest.records(split) == 0:
        raise InputError(f"{manifest.root}: split '{split}' has no rows to evaluate on")
    _check_fit(run, manifest)
    task = Classification(
        run.label, np.array(run.classes, np.int64), run.inputs.features, dict(run.num_ids)
    )
    model = run.load_model(checkpoint)
    data = read_dataset(
        manifest, split, batch_size=batch_size_of(run.config), shuffle=False, label=run.label
    )

    @tf.function(reduce_retracing=True)
    def measure(features: dict[str, tf.Tensor], index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(features, training=False)  # (B, C)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(index, logits)
        return losses, tf.equal(tf.argmax(logits, axis=-1), index)

    rows, loss, correct = 0, 0.0, 0
    for features, label in data:
        index = task.class_index(label.numpy())
        if (index < 0).any():
            raise InputError(
                f"{manifest.root}: split '{split}' has the label {label.numpy()[index < 0][0]}, "
                f"which the model of {run.path} has never seen"
            )
        losses, hits = measure(features, tf.constant(index))
        rows += len(index)
        loss += float(np.sum(losses.numpy(), dtype=np.float64))
        correct += int(np.sum(hits.numpy()))
    return {"loss": loss / rows, "accuracy": correct / rows, "rows": rows}


def _check_fit(run: Run, manifest: Manifest) -> None:
    """Raises SchemaError unless the model can take the features of the dataset."""
    plan = load_plan(manifest)
    for feature in run.inputs.features:
        name = feature.name
        if feature not in manifest.schema.features:
            there = manifest.schema[name].describe() if name in manifest.schema.names else "missing"
            raise SchemaError(
                f"{manifest.root}: the model of {run.path} takes {feature.describe()}, which here "
                f"is {there}"
            )
        if feature.dtype == "int64" and not (
            plan.statistics[name].low >= 0 and plan.statistics[name].high < run.num_ids[name]
        ):
            raise SchemaError(
                f"{manifest.root}: '{name}' has ids from {plan.statistics[name].low} to "
                f"{plan.statistics[name].high}, the model of {run.path} knows those below "
                f"{run.num_ids[name]}; build both datasets with the same ids"
            )
