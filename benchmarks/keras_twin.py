"""What `lengthwise train` and `lengthwise evaluate` do, in plain Keras.

The twin has the same rows, network, loss, optimizer, learning rate and number of batches:
`bucket_by_sequence_length` over ragged tensors in memory, told the boundaries that Lengthwise
planned, and `Bidirectional(LSTM)` with the mask of the real steps. The weights of the best epoch
are kept and measured. Options have the names of `lengthwise train`; those that no data set of
`train_real_data.py` needs, the twin does not know.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset import Manifest, Plan
from lengthwise.model import Run, read_dataset


def train_twin(
    dataset: str, options: Mapping[str, Any], seed: int, run_folder: str
) -> dict[str, float]:
    """Trains, and measures on the split `test`.

    Args:
        dataset: the dataset folder; its rows are taken, not its batches.
        options: of `lengthwise train`.
        seed: of weights, dropout and the order of rows.
        run_folder: of `lengthwise train`, whose network must have as many weights.

    Returns:
        "accuracy", "loss", and "seconds per epoch": CPU time of the whole process from the end of
        the first epoch, which has the tracing, to the end of the last, by the epochs between.
    """
    epochs = options["epochs"]
    clock = _EpochClock()
    keras.utils.set_random_seed(seed)
    manifest, plan = Manifest.load(dataset), Plan.load(Path(dataset) / "plan.json")
    splits = {name: _rows(manifest, name) for name in manifest.splits}
    per_step = options.get("task") == "tag"
    batch = options["batch_size"]

    def batches(split: str) -> Any:
        return _batches(splits[split], manifest, batch, per_step=per_step, shuffle=split == "train")

    model: Any = _network(manifest, plan, splits["train"][0], options)
    other: Any = Run.load(run_folder).load_model("best")
    if model.count_params() != other.count_params():
        raise ValueError(f"{model.count_params()} weights here, {other.count_params()} there")
    lengths = next(iter(splits["train"][0].values())).row_lengths().numpy()
    buckets = np.bincount(np.searchsorted(manifest.max_lengths, lengths))
    steps = epochs * int(np.ceil(buckets / batch).sum())
    rate: Any = options["learning_rate"]
    if options.get("schedule") == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
        # By default XLA compiles anew for every bucket, which takes longer than the training.
        jit_compile=False,
    )
    validation = batches("val") if "val" in splits else None
    with tempfile.TemporaryDirectory() as folder:
        best = str(Path(folder, "best.weights.h5"))
        keep = keras.callbacks.ModelCheckpoint(
            best,
            monitor="loss" if validation is None else "val_loss",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        )
        model.fit(
            batches("train"),
            validation_data=validation,
            epochs=epochs,
            shuffle=False,
            callbacks=[keep, clock],
            verbose=0,
        )
        model.load_weights(best)
    measured = model.evaluate(batches("test"), verbose=0, return_dict=True)
    return {
        "accuracy": float(measured["accuracy"]),
        "loss": float(measured["loss"]),
        "seconds per epoch": clock.seconds_per_epoch,
    }


class _EpochClock(keras.callbacks.Callback):
    """CPU time of this process at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ends.append(time.process_time())

    @property
    def seconds_per_epoch(self) -> float:
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def _rows(manifest: Manifest, split: str) -> tuple[dict[str, Any], Any]:
    """All rows of a split in memory; sequences as ragged tensors."""
    read = list(read_dataset(manifest, split, batch_size=4096, shuffle=False, ragged=True))
    names = [feature.name for feature in manifest.schema.sequences if not feature.label]
    features = {name: tf.concat([batch[name] for batch, _ in read], 0) for name in names}
    return features, tf.concat([labels for _, labels in read], 0)


def _batches(
    rows: Any,
    manifest: Manifest,
    batch: int,
    *,
    per_step: bool,
    shuffle: bool,
) -> Any:
    features, _ = rows
    names = list(features)

    def with_mask(row: dict[str, Any], label: Any) -> Any:
        row = {name: tf.convert_to_tensor(value) for name, value in row.items()}
        mask = tf.ones(tf.shape(row[names[0]])[:1], tf.bool)
        label = tf.convert_to_tensor(label)
        weight = tf.cast(mask, tf.float32) if per_step else tf.ones(())
        return {**row, "mask": mask}, label, weight

    data: Any = tf.data.Dataset.from_tensor_slices(rows)
    if shuffle:
        data = data.shuffle(int(data.cardinality()), seed=0)
    ends = list(manifest.max_lengths)
    return (
        data.map(with_mask)
        .bucket_by_sequence_length(
            lambda row, label, weight: tf.shape(row["mask"])[0],
            bucket_boundaries=[end + 1 for end in ends],
            bucket_batch_sizes=[batch] * (len(ends) + 1),
            pad_to_bucket_boundary=True,
        )
        .prefetch(2)
    )


def _network(
    manifest: Manifest, plan: Plan, rows: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    mask = keras.Input((None,), dtype="bool", name="mask")
    inputs, vectors = [], []
    for name in rows:
        feature = manifest.schema[name]
        given = keras.Input((None, *feature.shape), dtype=feature.dtype, name=name)
        inputs.append(given)
        if feature.dtype == "int64":
            ids = len(plan.vocabularies[name]) + 2  # padding, unknown
            vectors.append(keras.layers.Embedding(ids, options["embedding_size"])(given))
            continue
        vector = keras.layers.Reshape((-1, feature.size))(given)
        if name not in plan.normalizations:
            steps = rows[name].flat_values.numpy().reshape(-1, feature.size)
            vector = keras.layers.Normalization(mean=steps.mean(0), variance=steps.var(0))(vector)
        vectors.append(vector)
    hidden = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(vectors)
    per_step, layers = options.get("task") == "tag", options.get("layers", 1)
    pooling = None if per_step else options.get("pooling", "last")
    for layer in range(layers):
        every = pooling != "last" or layer < layers - 1
        lstm = keras.layers.LSTM(options["units"], return_sequences=every)
        hidden = keras.layers.Bidirectional(lstm)(hidden, mask=mask)
        hidden = keras.layers.Dropout(options["dropout"])(hidden)
    if pooling == "mean":
        hidden = keras.layers.GlobalAveragePooling1D()(hidden, mask=mask)
    elif pooling == "max":  # Keras's layer for it takes no mask
        padding = keras.ops.where(keras.ops.expand_dims(mask, -1), 0.0, -1e9)
        hidden = keras.layers.GlobalMaxPooling1D()(hidden + padding)
    (label,) = manifest.schema.labels
    classes = int(plan.statistics[label.name].high) + 1
    return keras.Model([mask, *inputs], keras.layers.Dense(classes)(hidden))
