"""Training: from a dataset folder to a run folder."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from lengthwise.dataset import InputError, LengthwiseError, Manifest, ManifestError, Schema
from lengthwise.dataset.document import to_json
from lengthwise.dataset.schema import MASK
from lengthwise.model.batching import TokenBudget
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.moments import feature_moments
from lengthwise.model.networks import NetworkInput, build_classifier
from lengthwise.model.progress import TrainingProgress
from lengthwise.model.reader import read_dataset
from lengthwise.model.run import HISTORY_NAME, METRICS_NAME, Run, replace_text, write_history
from lengthwise.model.task import Classification, classification

VALIDATION_SPLITS = ("val", "validation")
# Mean and variance of so many steps are as good as those of all.
_MOMENT_STEPS = 1 << 20
_NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy")


class TrainingError(LengthwiseError):
    """Training cannot go on."""


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training run.

    Attributes:
        run: the run folder.
        history: for each epoch "epoch", "loss", "accuracy", "seconds", and with a validation split
            "val_loss" and "val_accuracy". Averages are over rows.
        best_epoch: from 1, the epoch of `best.keras`.
        seconds: from the first step to the end of the last epoch.
    """

    run: Run
    history: tuple[Mapping[str, float], ...]
    best_epoch: int
    seconds: float

    @property
    def best(self) -> Mapping[str, float]:
        """The numbers of the best epoch."""
        return self.history[self.best_epoch - 1]


def train(
    dataset_path: str | os.PathLike[str],
    run_dir: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    console: Console | None = None,
) -> TrainResult:
    """Trains a classifier on a dataset.

    Seeds Python, NumPy and TensorFlow and makes TensorFlow's operations deterministic for the rest
    of the process: the same call gives the same weights on the same machine.

    Args:
        dataset_path: the dataset folder.
        run_dir: the folder for checkpoints, history and metrics; the same run may be in it already.
        config: the options.
        console: where progress is shown; None shows nothing.

    Raises:
        LengthwiseError: dataset, label, split or run folder cannot be used; the loss is no number.

    Example:
        >>> train("nowhere", "run")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    config = config or TrainConfig()
    manifest = Manifest.load(dataset_path)
    task = classification(manifest, config)
    validation_split = _validation_split(manifest, config)
    if manifest.records(config.split) == 0:
        raise InputError(f"{manifest.root}: split '{config.split}' has no rows to train on")

    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    run = Run(
        path=Path(run_dir),
        config=config,
        label=task.label,
        classes=tuple(task.classes.tolist()),
        inputs=Schema(task.inputs),
        num_ids=task.num_ids,
        fingerprint=manifest.fingerprint,
    )
    data, steps_per_epoch = _training_data(manifest, task, config)
    validation_data = None
    if validation_split is not None:
        validation_data = _read(manifest, task, config, validation_split, shuffle=False)
    # Any, because Keras's arguments have no types, and a checker guesses them from their defaults.
    model: Any = build_classifier(
        _network_inputs(manifest, task, config), len(task.classes), config
    )
    compile_classifier(model, config)

    run.create()
    record = _RunRecord(run, monitor="val_loss" if validation_split else "loss")
    progress = TrainingProgress(console, epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    started = time.perf_counter()
    with progress:
        model.fit(
            data,
            epochs=config.epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            shuffle=False,
            callbacks=[record, progress],
            verbose=0,
        )
    result = TrainResult(
        run, tuple(record.history), record.best_epoch, time.perf_counter() - started
    )
    _write_metrics(result, manifest, validation_split)
    return result


def compile_classifier(model: Any, config: TrainConfig) -> None:
    """Gives a classifier its optimizer, loss and metric."""
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate, global_clipnorm=config.clip_norm),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        # XLA would compile anew for the length of each bucket.
        jit_compile=False,
    )
    # Variables that a first step would make cost a second trace of it.
    model.optimizer.build(model.trainable_variables)


class _RunRecord(keras.callbacks.Callback):
    """Writes history and checkpoints after every epoch."""

    def __init__(self, run: Run, *, monitor: str) -> None:
        super().__init__()
        self.run = run
        self.monitor = monitor
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._least = math.inf
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        numbers = {name: float((logs or {})[name]) for name in _NUMBERS if name in (logs or {})}
        seconds = round(time.perf_counter() - self._started, 3)
        self.history.append({"epoch": epoch + 1, **numbers, "seconds": seconds})
        write_history(self.run.path / HISTORY_NAME, self.history)
        if not all(math.isfinite(value) for value in numbers.values()):
            raise TrainingError(
                f"epoch {epoch + 1}: the loss is {numbers[self.monitor]}; look for NaN and very "
                "large values in the input, or lower --learning-rate"
            )
        self.run.save_model(self.model, "last")
        if numbers[self.monitor] < self._least:
            self._least, self.best_epoch = numbers[self.monitor], epoch + 1
            best = self.run.checkpoint("best")
            temporary = best.with_name(f".{best.name}")
            shutil.copyfile(self.run.checkpoint("last"), temporary)
            os.replace(temporary, best)


def _validation_split(manifest: Manifest, config: TrainConfig) -> str | None:
    if config.validation_split is None:
        there = [s for s in VALIDATION_SPLITS if s in manifest.splits and manifest.records(s)]
        return there[0] if there and there[0] != config.split else None
    if manifest.records(config.validation_split) == 0:
        raise ManifestError(
            f"{manifest.root}: split '{config.validation_split}' has no rows to validate on"
        )
    return config.validation_split


def _training_data(
    manifest: Manifest, task: Classification, config: TrainConfig
) -> tuple[tf.data.Dataset, int]:
    """All epochs as one dataset, which Keras reads on from epoch to epoch; and the steps of one."""
    data = _read(manifest, task, config, config.split, epochs=config.epochs)
    return data, int(data.cardinality()) // config.epochs


def _read(
    manifest: Manifest, task: Classification, config: TrainConfig, split: str, **options: Any
) -> tf.data.Dataset:
    """Batches of the inputs and the numbers of their classes."""
    classes = tf.constant(task.classes)
    names = [feature.name for feature in task.inputs]

    def prepare(features: Mapping[str, tf.Tensor], label: tf.Tensor) -> Any:
        kept = {name: features[name] for name in (*names, MASK)}
        return kept, tf.searchsorted(classes, label)

    data = read_dataset(
        manifest,
        split,
        batch_size=batch_size_of(config),
        seed=config.seed,
        label=task.label,
        **options,
    )
    return data.map(prepare)


def batch_size_of(config: TrainConfig) -> int | TokenBudget:
    """What the options say about batches, as the reader takes it."""
    if config.token_budget is None:
        return config.batch_size
    return TokenBudget(config.token_budget)


def _network_inputs(
    manifest: Manifest, task: Classification, config: TrainConfig
) -> list[NetworkInput]:
    floats = [feature for feature in task.inputs if feature.dtype == "float32"]
    moments = {}
    if floats and config.normalize:
        batches = read_dataset(
            manifest,
            config.split,
            batch_size=TokenBudget(1 << 16),
            seed=config.seed,
            label=task.label,
        )
        moments = feature_moments(
            (features for features, _ in batches.as_numpy_iterator()),
            floats,
            max_steps=_MOMENT_STEPS,
        )
    inputs = []
    for feature in task.inputs:
        mean, variance = moments.get(feature.name, (None, None))
        inputs.append(
            NetworkInput(feature, task.num_ids.get(feature.name, 0), mean=mean, variance=variance)
        )
    return inputs


def _write_metrics(result: TrainResult, manifest: Manifest, validation_split: str | None) -> None:
    config = result.run.config
    document = {
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "best": dict(result.best),
        "last": dict(result.history[-1]),
        "train_split": config.split,
        "train_rows": manifest.records(config.split),
        "validation_split": validation_split,
        "validation_rows": manifest.records(validation_split) if validation_split else 0,
        "seconds": round(result.seconds, 3),
    }
    replace_text(result.run.path / METRICS_NAME, to_json(document))
