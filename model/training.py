"""Training: from a dataset folder to a run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from lengthwise.dataset import InputError, Manifest, ManifestError, Plan
from lengthwise.dataset.document import to_json
from lengthwise.dataset.manifest import PLAN_NAME
from lengthwise.model.batching import TokenBudget
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.faults import TrainingError
from lengthwise.model.fit_model import FitModel
from lengthwise.model.journal import Journal
from lengthwise.model.learning_rate import LearningRate, build_optimizer
from lengthwise.model.losses import balanced_class_weights
from lengthwise.model.moments import feature_moments
from lengthwise.model.networks import (
    NetworkBuilder,
    NetworkInput,
    NetworkOutput,
    build_network,
    check_network,
    find_builder,
)
from lengthwise.model.numpy_reader import as_numpy
from lengthwise.model.progress import TrainingProgress
from lengthwise.model.run import CURVES_NAME, METRICS_NAME, Run, replace_text
from lengthwise.model.strategies import RunData, is_chief, make_strategy, wait_for_all
from lengthwise.model.task import REGRESS, Task, find_task, load_plan

__all__ = ["TrainResult", "TrainingError", "train"]

VALIDATION_SPLITS = ("val", "validation")
# Mean and variance of so many steps are as good as those of all.
_MOMENT_STEPS = 1 << 20


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training run.

    Attributes:
        run: the run folder.
        history: for each epoch "epoch", the numbers of the task ("loss" and what `TaskMetrics`
            measures) over all items of the epoch, with a validation split the same as "val_…",
            "learning_rate", "real_steps_per_second", "padding", "seconds".
        best_epoch: from 1, the epoch of `best.keras`.
        seconds: of work, over all starts of the run.
        resumed_at: steps that were done before this start; 0 where it began anew.
        unseen: classes that came in validation and never in training: name -> items.
    """

    run: Run
    history: tuple[Mapping[str, float], ...]
    best_epoch: int
    seconds: float
    resumed_at: int = 0
    unseen: Mapping[str, int] | None = None

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
    build_model: NetworkBuilder | None = None,
    fresh: bool = False,
) -> TrainResult:
    """Trains a network on a dataset, or goes on with a run that was stopped.

    Seeds Python, NumPy and TensorFlow and makes TensorFlow's operations deterministic for the rest
    of the process: the same call gives the same weights on the same machine. A run that was killed,
    at whatever step, and is started again, ends with the weights of one that never was.

    Args:
        dataset_path: the dataset folder.
        run_dir: the folder for checkpoints, history and metrics; if the same run is in it already,
            it goes on where it was.
        config: the options.
        console: where progress is shown; None shows nothing.
        build_model: makes the network, in place of `config.build_model`; see `build_network`.
        fresh: begin again, whatever the run in the folder has done so far.

    Raises:
        LengthwiseError: dataset, label, split or run folder cannot be used, or a loss is no number.

    Example:
        >>> train("nowhere", "run")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    config = config or TrainConfig()
    if build_model is not None:
        place = f"{build_model.__module__}:{build_model.__qualname__}"
        config = replace(config, build_model=place)
    builder = build_model or (
        find_builder(config.build_model) if config.build_model else build_network
    )
    manifest = Manifest.load(dataset_path)
    plan = load_plan(manifest)
    task = find_task(manifest, plan, config)
    validation_split = find_validation_split(manifest, config)
    if manifest.records(config.split) == 0:
        raise InputError(f"{manifest.root}: split '{config.split}' has no rows to train on")

    # Before any operation runs: workers of a cluster can only meet at the start.
    strategy = make_strategy(config.strategy)
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    task, inputs = _measured(manifest, task, config, plan)
    run = Run(
        path=Path(run_dir),
        config=config,
        task=task,
        fingerprint=manifest.fingerprint,
        plan_crc32c=manifest.plan_crc32c,
    )
    data = RunData(manifest, config, task.label.name, strategy)
    steps_per_epoch = data.steps(config.split)
    with strategy.scope(), _precision(config.precision):
        network = builder(inputs, NetworkOutput.of(task), config)
        if config.build_model:
            check_network(
                network, NetworkOutput.of(task), place=f"--build-model {config.build_model}"
            )
        rate = LearningRate(config, steps=steps_per_epoch * config.epochs)
        model = fit_model(network, task, config, rate)

    writes = is_chief(strategy)
    with run.held() if writes else nullcontext():
        if writes:
            run.create(manifest.root / PLAN_NAME, fresh=fresh)
        # All take up the same state, so nobody may look for it before it is known to be of this
        # run.
        wait_for_all(strategy)
        journal = Journal(
            run,
            model,
            rate,
            data,
            steps_per_epoch=steps_per_epoch,
            validation_split=validation_split,
            writes=writes,
        )
        journal.resume()
        progress = journal.progress
        resumed_at = progress.epoch * steps_per_epoch + progress.step
        _fit(model, journal, data, validation_split, console=console if writes else None)
        result = TrainResult(
            run,
            tuple(progress.history),
            progress.best_epoch,
            progress.seconds,
            resumed_at,
            dict(progress.unseen),
        )
        if writes:
            # Matplotlib takes a while to load, and only who draws needs it.
            from lengthwise.model.plots import plot_curves

            plot_curves(run.path / CURVES_NAME, result.history, best_epoch=result.best_epoch)
            _write_metrics(result, manifest, validation_split)
    return result


def fit_model(network: Any, task: Task, config: TrainConfig, rate: LearningRate) -> FitModel:
    """A network with loss, metrics and optimizer, ready for `fit`."""
    model: Any = FitModel(
        network,
        task,
        class_weights=balanced_class_weights(task, config),
        clip_norm=config.clip_norm,
    )
    # XLA would compile anew for the length of each bucket.
    model.compile(optimizer=build_optimizer(config, rate), jit_compile=False)
    # Variables that a first step would make cost a second trace of it.
    model.optimizer.build(network.trainable_variables)
    return model


def _fit(
    model: Any,
    journal: Journal,
    data: RunData,
    validation_split: str | None,
    *,
    console: Console | None,
) -> None:
    config, spe, progress = journal.config, journal.steps_per_epoch, journal.progress
    validation: dict[str, Any] = {}
    if validation_split is not None:
        validation = {
            "validation_data": data.read(validation_split, shuffle=False),
            "validation_steps": data.steps(validation_split),
        }
    shown = TrainingProgress(
        console,
        # Sums over workers are not for one of them to ask for.
        model if config.strategy == "none" else None,
        epochs=config.epochs,
        steps_per_epoch=spe,
        done=progress.epoch * spe + progress.step,
    )
    try:
        with shown:
            while not journal.finished:
                # What is left of an epoch is a fit of its own, as it has fewer steps.
                first = progress.epoch * spe + progress.step
                model.fit(
                    data.read(config.split, epochs=config.epochs, start_step=first),
                    initial_epoch=progress.epoch,
                    epochs=progress.epoch + 1 if progress.step else config.epochs,
                    steps_per_epoch=spe - progress.step,
                    shuffle=False,
                    callbacks=[journal, shown],
                    verbose=0,
                    **validation,
                )
    finally:
        journal.close()


def find_validation_split(manifest: Manifest, config: TrainConfig) -> str | None:
    """The split that chooses the best epoch; None where there is none.

    Raises:
        ManifestError: there is no such split, or it has no rows.
    """
    split = config.validation_split
    if split is None:
        there = [s for s in VALIDATION_SPLITS if s in manifest.splits and s != config.split]
        if not there:
            return None
        split = there[0]
    if manifest.records(split) == 0:
        raise ManifestError(
            f"{manifest.root}: split '{split}' has no rows to validate on; build again with a "
            "larger share for it, or name another with --validation-split"
        )
    return split


def _measured(
    manifest: Manifest, task: Task, config: TrainConfig, plan: Plan
) -> tuple[Task, list[NetworkInput]]:
    """The task with mean and deviation of its label, and the inputs with theirs.

    Args:
        manifest: of the dataset.
        task: whose inputs and label are measured, over real training steps.
        config: `normalize` counts here.
        plan: features that it normalises stay as they are.

    Raises:
        InputError: the values of a feature spread so far that float32 has no number for it.
    """
    measured, built = [], plan.normalizations
    if config.normalize:
        measured = [f for f in task.inputs if f.dtype == "float32" and f.name not in built]
        if task.kind == REGRESS and task.label.name not in built:
            measured.append(task.label)
    moments = {}
    if measured:
        batches = as_numpy(
            manifest,
            config.split,
            batch_size=TokenBudget(1 << 16),
            seed=config.seed,
            label=task.label.name,
        )
        moments = feature_moments(
            ({**features, task.label.name: label} for features, label in batches),
            measured,
            max_steps=_MOMENT_STEPS,
        )
        _check_moments(manifest, plan, moments)
    inputs = []
    for feature in task.inputs:
        mean, variance = moments.get(feature.name, (None, None))
        inputs.append(
            NetworkInput(feature, task.num_ids.get(feature.name, 0), mean=mean, variance=variance)
        )
    if task.label.name in moments:
        mean, variance = moments[task.label.name]
        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        task = replace(task, shift=tuple(mean.tolist()), scale=tuple(scale.tolist()))
    return task, inputs


def _check_moments(
    manifest: Manifest, plan: Plan, moments: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    for name, (_, variance) in moments.items():
        # Divided by an infinite deviation, every value would silently become 0.
        if (variance > np.finfo(np.float32).max).any():
            low, high = plan.statistics[name].low, plan.statistics[name].high
            raise InputError(
                f"{manifest.root}: '{name}' has values from {low:g} to {high:g}, which float32 "
                "cannot bring to variance 1; where such a value stands for a missing one, make it "
                "null, or leave the feature out"
            )


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _write_metrics(result: TrainResult, manifest: Manifest, validation_split: str | None) -> None:
    config = result.run.config
    document = {
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "stopped_early": len(result.history) < config.epochs,
        "best": dict(result.best),
        "last": dict(result.history[-1]),
        "train_split": config.split,
        "train_rows": manifest.records(config.split),
        "validation_split": validation_split,
        "validation_rows": manifest.records(validation_split) if validation_split else 0,
        "classes_unseen_in_training": dict(result.unseen or {}),
        "seconds": round(result.seconds, 3),
    }
    replace_text(result.run.path / METRICS_NAME, to_json(document))
