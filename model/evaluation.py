"""Evaluation: how good a trained network is on a split, over its real items."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import InputError, Manifest, SchemaError
from lengthwise.dataset.document import to_json
from lengthwise.dataset.schema import MASK
from lengthwise.model.losses import loss_terms
from lengthwise.model.metrics import TaskMetrics
from lengthwise.model.run import EVALUATION_FOLDER, METRICS_NAME, Run, replace_text, write_table
from lengthwise.model.strategies import RunData
from lengthwise.model.task import CLASSIFY, MULTILABEL, TAG, Task, load_plan

# A table of more cells is no longer read by anybody.
_MOST_CONFUSED_CLASSES = 512


def evaluate(
    run_dir: str | os.PathLike[str],
    dataset_path: str | os.PathLike[str],
    split: str = "test",
    *,
    checkpoint: str = "best",
) -> dict[str, Any]:
    """Measures a trained network.

    All numbers are over the real items of the split: rows, values of a row's label, or real steps
    to tag. Each counts once, whatever the size of its batch, and sums are kept in double precision.

    Args:
        run_dir: what `train` left.
        dataset_path: the dataset that it was trained on, or another built with the same plan.
        split: the split to measure on.
        checkpoint: "best" or "last".

    Returns:
        "loss" without weights of classes; "accuracy" and "macro_f1", or "rmse" and "mae" (see
        `TaskMetrics`); "rows", "items";
        "buckets": the same for each bucket, with its "max_length";
        "classes": for each class "name", "precision", "recall", "f1", "items", "given";
        "confusion": (C, C) lists, items of a class (line) by the class given (column), for
        `classify` and `tag` of at most 512 classes.

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
    check_fit(run, manifest)
    task, network = run.task, run.load_model(checkpoint)
    counter = _Counter(task)

    @tf.function(reduce_retracing=True)
    def measure(features: dict[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = network(features, training=False)
        terms = loss_terms(task, outputs, labels, mask=features[MASK])
        counter.metrics.update_state(terms, features[MASK])
        return terms.real, terms.targets, tf.argmax(terms.outputs, axis=-1)

    # One process measures, on however many the run was trained.
    config = dataclasses.replace(run.config, strategy="none")
    data = RunData(manifest, config, task.label.name, tf.distribute.get_strategy())
    for features, labels in data.read(split, shuffle=False):
        max_length = int(features[MASK].shape[1])
        counter.begin(max_length, len(features[MASK]))
        _check_classes(task, features, labels, place=f"{manifest.root}: split '{split}'", run=run)
        counter.count(*measure(features, labels))
    return counter.report()


def write_evaluation(
    run_dir: str | os.PathLike[str], split: str, report: dict[str, Any], *, checkpoint: str = "best"
) -> Path:
    """Writes a report of `evaluate` into the run folder, with tables and plots.

    Args:
        run_dir: the run folder.
        split: what was measured.
        report: of `evaluate`.
        checkpoint: what was measured.

    Returns:
        The folder `evaluation/SPLIT`, `evaluation/SPLIT-last` for the last epoch.
    """
    # Matplotlib takes a while to load, and only who draws needs it.
    from lengthwise.model.plots import plot_buckets, plot_confusion

    name = split if checkpoint == "best" else f"{split}-{checkpoint}"
    folder = Path(run_dir) / EVALUATION_FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {key: value for key, value in report.items() if key != "confusion"}
    replace_text(
        folder / METRICS_NAME, to_json({"split": split, "checkpoint": checkpoint, **numbers})
    )
    write_table(folder / "buckets.csv", report["buckets"])
    plot_buckets(folder / "buckets.png", report["buckets"], title=f"{split}: numbers by length")
    if "classes" in report:
        write_table(folder / "classes.csv", report["classes"])
    if "confusion" in report:
        names = [item["name"] for item in report["classes"]]
        lines = [
            {"class": name, **dict(zip(names, line, strict=True))}
            for name, line in zip(names, report["confusion"], strict=True)
        ]
        if len({*names, "class"}) == len(names) + 1:
            write_table(folder / "confusion.csv", lines)
        plot_confusion(folder / "confusion.png", np.array(report["confusion"]), names, title=split)
    return folder


def check_fit(run: Run, manifest: Manifest) -> None:
    """Raises SchemaError unless the network can take the features of the dataset.

    A dataset of another build fits if its ids mean the same strings and its floats were normalised
    alike; `lengthwise build --plan` makes such a one.
    """
    label = run.task.label
    if label not in manifest.schema.features:
        there = _described(manifest, label.name)
        raise SchemaError(
            f"{manifest.root}: the model of {run.path} predicts {label.describe()}, which here is "
            f"{there}"
        )
    if manifest.fingerprint == run.fingerprint:
        return
    plan, own = load_plan(manifest), run.plan
    for feature in run.task.inputs:
        name = feature.name
        if feature not in manifest.schema.features:
            raise SchemaError(
                f"{manifest.root}: the model of {run.path} takes {feature.describe()}, which here "
                f"is {_described(manifest, name)}"
            )
        if feature.dtype == "int64" and not (
            plan.statistics[name].low >= 0 and plan.statistics[name].high < run.task.num_ids[name]
        ):
            raise SchemaError(
                f"{manifest.root}: '{name}' has ids from {plan.statistics[name].low} to "
                f"{plan.statistics[name].high}, the model of {run.path} knows those below "
                f"{run.task.num_ids[name]}; build both datasets with the same plan"
            )
    for feature in (*run.task.inputs, label):
        name = feature.name
        if plan.vocabularies.get(name) != own.vocabularies.get(name):
            raise SchemaError(
                f"{manifest.root}: the ids of '{name}' stand for other strings than those that the "
                f"model of {run.path} was trained on; build with `--plan {run.path}/plan.json`"
            )
        if plan.normalizations.get(name) != own.normalizations.get(name):
            raise SchemaError(
                f"{manifest.root}: '{name}' is normalised by other constants than those that the "
                f"model of {run.path} was trained on; build with `--plan {run.path}/plan.json`"
            )


class _Counter:
    """Sums of one bucket after another; the reader gives them in their order."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.metrics = TaskMetrics(task)
        self.buckets: list[dict[str, Any]] = []
        self.rows = 0
        self._max_length = 0
        self._sums = [np.zeros(v.shape) for v in self.metrics.variables]
        classes = task.output_size
        confused = task.kind in (CLASSIFY, TAG) and classes <= _MOST_CONFUSED_CLASSES
        self.confusion = np.zeros((classes, classes), np.int64) if confused else None

    def begin(self, max_length: int, rows: int) -> None:
        """Tells that the next batch is of a bucket."""
        if max_length != self._max_length:
            self._end_bucket()
            self._max_length, self._bucket_rows = max_length, 0
        self._bucket_rows += rows
        self.rows += rows

    def count(self, real: tf.Tensor, targets: tf.Tensor, given: tf.Tensor) -> None:
        if self.confusion is not None:
            chosen = real.numpy().ravel() > 0
            cells = targets.numpy().ravel() * self.task.output_size + given.numpy().ravel()
            counts = np.bincount(cells[chosen], minlength=self.confusion.size)
            self.confusion += counts.reshape(self.confusion.shape)

    def report(self) -> dict[str, Any]:
        self._end_bucket()
        for variable, value in zip(self.metrics.variables, self._sums, strict=True):
            variable.assign(value)
        report: dict[str, Any] = {**self._numbers(), "rows": self.rows}
        report["items"] = int(float(self.metrics.items))
        report["buckets"] = self.buckets
        if hasattr(self.metrics, "there"):
            report["classes"] = self._classes()
        if self.confusion is not None:
            report["confusion"] = self.confusion.tolist()
        return report

    def _numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.metrics.result().items()}

    def _end_bucket(self) -> None:
        if self._max_length:
            self.buckets.append(
                {
                    "max_length": self._max_length,
                    "rows": self._bucket_rows,
                    "items": int(float(self.metrics.items)),
                    **self._numbers(),
                }
            )
            for total, variable in zip(self._sums, self.metrics.variables, strict=True):
                total += np.asarray(variable)
            self.metrics.reset_state()

    def _classes(self) -> list[dict[str, Any]]:
        right, given, there = (
            np.asarray(v) for v in (self.metrics.right, self.metrics.given, self.metrics.there)
        )
        precision = right / np.maximum(given, 1)
        recall = right / np.maximum(there, 1)
        f1 = 2 * right / np.maximum(given + there, 1)
        return [
            {
                "name": self.task.class_name(i),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "items": int(there[i]),
                "given": int(given[i]),
            }
            for i in range(len(there))
        ]


def _check_classes(task: Task, features: Any, labels: Any, *, place: str, run: Run) -> None:
    if task.kind in (CLASSIFY, TAG):
        values = labels.numpy()
        if task.kind == TAG:
            values = values[features[MASK].numpy()]
        unknown = task.class_index(values) < 0
    elif task.kind == MULTILABEL:
        values = labels.numpy().ravel()
        unknown = (values != 0) & (values != 1)
    else:
        return
    if unknown.any():
        raise InputError(
            f"{place} has the label {values[unknown][0]}, which the model of {run.path} has never "
            "seen; train with rows of it, or leave them out"
        )


def _described(manifest: Manifest, name: str) -> str:
    return manifest.schema[name].describe() if name in manifest.schema.names else "missing"
