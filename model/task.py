"""What a run learns from a dataset: which features go in, and what comes out.

| task | label | network gives | what it means |
|---|---|---|---|
| `classify` | an integer per row | (B, C) logits | softmax; logit i stands for `classes[i]` |
| `multilabel` | integers 0 and 1, (K,) per row | (B, K) logits | sigmoid, each label by itself |
| `regress` | numbers per row, D of them | (B, D) | the numbers, in the unit of the label |
| `tag` | an integer per step | (B, T, C) logits | softmax; logit i stands for `classes[i]` |

The command line calls `multilabel` `classify` too: the label tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import crc32c
import numpy as np

from lengthwise.dataset import CorruptDataError, Feature, Manifest, Plan, SchemaError
from lengthwise.dataset.document import Fields
from lengthwise.dataset.manifest import PLAN_NAME
from lengthwise.dataset.options import MAX_INT64
from lengthwise.dataset.schema import CLASSES, NUMBERS
from lengthwise.model.configuration import TrainConfig

CLASSIFY, MULTILABEL, REGRESS, TAG = "classify", "multilabel", "regress", "tag"
KINDS = (CLASSIFY, MULTILABEL, REGRESS, TAG)

# An embedding of more rows than this is a number mistaken for an id.
MAX_IDS = 1 << 24


@dataclass(frozen=True)
class Task:
    """Inputs and output of a network; everything that says what its numbers mean.

    Attributes:
        kind: one of `KINDS`.
        label: the feature to predict.
        inputs: the features that the network sees, in the order of the schema.
        num_ids: name -> ids are below this, for every integer input.
        classes: `classify` and `tag`: the values of the label, ascending; logit i stands for
            classes[i]. Empty otherwise.
        names: `classify` and `tag` of a label of strings: the string of each class. Empty
            otherwise.
        counts: how often each class came in the dataset, over all splits; `multilabel`: how often
            0 and 1. Empty for a regression.
        shift, scale: `regress`: mean and deviation of each of the label's numbers over training
            rows, which the loss is measured in; the network gives the numbers themselves.
    """

    kind: str
    label: Feature
    inputs: tuple[Feature, ...]
    num_ids: Mapping[str, int]
    classes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    shift: tuple[float, ...] = field(default=())
    scale: tuple[float, ...] = field(default=())

    @property
    def output_size(self) -> int:
        """Size of the last axis of what the network gives."""
        return len(self.classes) if self.kind in (CLASSIFY, TAG) else self.label.size

    @property
    def per_step(self) -> bool:
        """Whether the network gives something for each step."""
        return self.kind == TAG

    def class_index(self, labels: np.ndarray) -> np.ndarray:
        """Numbers of the classes of labels, -1 where there is no such class.

        Example:
            >>> label = Feature("y", "int64", sequence=False, label=True)
            >>> task = Task("classify", label, (), {}, classes=(3, 7))
            >>> task.class_index(np.array([7, 3, 5]))
            array([ 1,  0, -1])
        """
        classes = np.array(self.classes, np.int64)
        index = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        return np.where(classes[index] == labels, index, -1)

    def class_name(self, index: int) -> str:
        """The name of a class for people; of `multilabel`, the position in the label.

        Example:
            >>> label = Feature("y", "int64", sequence=False, label=True)
            >>> Task("classify", label, (), {}, classes=(3, 7)).class_name(1)
            '7'
        """
        if self.names:
            return self.names[index]
        return str(self.classes[index] if self.classes else index)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "label": self.label.to_json(),
            "inputs": [feature.to_json() for feature in self.inputs],
            "num_ids": dict(sorted(self.num_ids.items())),
            "classes": list(self.classes),
            "names": list(self.names),
            "counts": list(self.counts),
            "shift": list(self.shift),
            "scale": list(self.scale),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Task:
        """Reads what `to_json` wrote.

        Raises:
            LengthwiseError: the error of `fields` where it contradicts itself.
        """
        task = cls(
            kind=fields.text("kind"),
            label=Feature.from_json(fields.nested("label")),
            inputs=tuple(Feature.from_json(item) for item in fields.objects("inputs")),
            num_ids=fields.counts("num_ids"),
            classes=tuple(fields.integers("classes", low=-MAX_INT64 - 1)),
            names=tuple(fields.texts("names")),
            counts=tuple(fields.integers("counts")),
            shift=tuple(fields.numbers("shift")),
            scale=tuple(fields.numbers("scale")),
        )
        if task.kind not in KINDS:
            raise fields.fail(f"the kind {task.kind[:40]!r} is not known")
        if sorted(set(task.classes)) != list(task.classes):
            raise fields.fail("'classes' must ascend")
        has_classes = task.kind in (CLASSIFY, TAG)
        if has_classes != bool(task.classes) or (
            task.names and len(task.names) != len(task.classes)
        ):
            raise fields.fail("'classes' and 'names' do not fit the kind")
        if task.kind == REGRESS and not len(task.shift) == len(task.scale) == task.label.size:
            raise fields.fail("'shift' and 'scale' do not fit the label")
        missing = [f.name for f in task.inputs if f.dtype == "int64" and f.name not in task.num_ids]
        if missing:
            raise fields.fail(f"'num_ids' does not name {missing[0][:80]!r}")
        return task


def find_task(manifest: Manifest, plan: Plan, config: TrainConfig) -> Task:
    """Reads the task from the schema and the plan of a dataset.

    Args:
        manifest: of the dataset.
        plan: of the dataset; see `load_plan`.
        config: `task`, `label` and `inputs` count here.

    Returns:
        The task; `shift` and `scale` of a regression are 0 and 1, as they are measured later.

    Raises:
        SchemaError: label or inputs are missing, or cannot be used for this task.
    """
    label = _label(manifest, config)
    kind = _kind(manifest, plan, config, label)
    inputs = _inputs(manifest, config, label)
    classes, counts, names = _classes(manifest, plan, label, kind)
    return Task(
        kind=kind,
        label=label,
        inputs=inputs,
        num_ids={
            feature.name: _num_ids(manifest, plan, feature)
            for feature in inputs
            if feature.dtype == "int64"
        },
        classes=classes,
        names=names,
        counts=counts,
        shift=(0.0,) * label.size if kind == REGRESS else (),
        scale=(1.0,) * label.size if kind == REGRESS else (),
    )


def load_plan(manifest: Manifest) -> Plan:
    """The plan that a dataset was built with.

    Raises:
        CorruptDataError: it is missing or was changed.
    """
    path = manifest.root / PLAN_NAME
    try:
        changed = crc32c.crc32c(path.read_bytes()) != manifest.plan_crc32c
    except OSError as reason:
        raise CorruptDataError(f"{path}: cannot be read: {reason.strerror}") from None
    if changed:
        raise CorruptDataError(f"{path}: was changed after the build; build the dataset again")
    return Plan.load(path)


def _label(manifest: Manifest, config: TrainConfig) -> Feature:
    schema = manifest.schema
    labels = [feature.name for feature in schema.labels]
    if config.label is not None and config.label not in labels:
        raise SchemaError(
            f"{manifest.root}: no label '{config.label}'; "
            + (f"there are: {', '.join(labels)}" if labels else "the dataset has no label")
        )
    if config.label is None and len(labels) != 1:
        raise SchemaError(
            f"{manifest.root}: the dataset has the labels {', '.join(labels)}; choose with --label"
            if labels
            else f"{manifest.root}: the dataset has no label; name one to `lengthwise build` "
            "with --label"
        )
    return schema[config.label or labels[0]]


def _kind(manifest: Manifest, plan: Plan, config: TrainConfig, label: Feature) -> str:
    """Which of `KINDS` the option and the label make; SchemaError where they do not fit."""
    integer, scalar = label.dtype == "int64", not label.shape
    if config.task == "tag" and label.sequence and integer and scalar:
        return TAG
    if config.task == "regress" and not label.sequence and label.encoding == NUMBERS:
        return REGRESS
    if config.task == "classify" and not label.sequence and integer:
        found = plan.statistics[label.name]
        if scalar:
            return CLASSIFY
        if label.encoding == NUMBERS and 0 <= found.low and found.high <= 1:
            return MULTILABEL
    needs = {
        "classify": "one integer or string per row, or a vector of 0 and 1",
        "regress": "numbers per row",
        "tag": "one integer or string per step",
    }[config.task]
    fitting = "tag" if label.sequence and integer and scalar else None
    if not label.sequence:
        fitting = "classify" if integer and scalar and config.task != "classify" else None
        fitting = "regress" if label.encoding == NUMBERS and config.task != "regress" else fitting
    raise SchemaError(
        f"{manifest.root}: --task {config.task} needs {needs}, but the label is "
        f"{label.describe()}"
        + (f"; it fits --task {fitting}" if fitting and fitting != config.task else "")
    )


def _classes(
    manifest: Manifest, plan: Plan, label: Feature, kind: str
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Classes, how often each came, and their names."""
    if kind == REGRESS:
        return (), (), ()
    values = plan.statistics[label.name].values
    if label.encoding == CLASSES:
        names = tuple(plan.vocabularies[label.name])
        return tuple(range(len(names))), _counts(values or {}, range(len(names))), names
    if values is None:
        raise SchemaError(
            f"{manifest.root}: label '{label.name}' has no count of values in {PLAN_NAME}: give it "
            "to `lengthwise build` as --label; it must have at most 4096 different values"
        )
    if kind == MULTILABEL:
        return (), _counts(values, (0, 1)), ()
    classes = tuple(sorted(values))
    return classes, _counts(values, classes), ()


def _counts(values: Mapping[int, int], classes: Any) -> tuple[int, ...]:
    return tuple(values.get(value, 0) for value in classes)


def _inputs(manifest: Manifest, config: TrainConfig, label: Feature) -> tuple[Feature, ...]:
    schema = manifest.schema
    usable = [feature for feature in schema.features if not feature.label]
    for name in config.inputs or ():
        if name not in [feature.name for feature in usable]:
            raise SchemaError(
                f"{manifest.root}: no feature '{name}' to use as --input; there are: "
                f"{', '.join(feature.name for feature in usable)}"
            )
    inputs = tuple(f for f in usable if config.inputs is None or f.name in config.inputs)
    for feature in inputs:
        if "/" in feature.name:
            raise SchemaError(
                f"{manifest.root}: '{feature.name}' cannot name an input: Keras takes no '/' in "
                "names; rename the column, or choose other features with --input"
            )
    if not any(feature.sequence for feature in inputs):
        raise SchemaError(
            f"{manifest.root}: to predict '{label.name}' the network needs a sequence feature; "
            f"name one with --input: {', '.join(f.name for f in usable if f.sequence) or 'none'}"
        )
    return inputs


def _num_ids(manifest: Manifest, plan: Plan, feature: Feature) -> int:
    if feature.encoding != NUMBERS:
        return plan.num_ids(feature.name)
    low, high = int(plan.statistics[feature.name].low), int(plan.statistics[feature.name].high)
    if low < 0 or high >= MAX_IDS:
        raise SchemaError(
            f"{manifest.root}: integer feature '{feature.name}' has values from {low} to {high}, "
            f"which are no ids within [0, {MAX_IDS - 1}]; make it a float column, or choose other "
            "features with --input"
        )
    return high + 1
