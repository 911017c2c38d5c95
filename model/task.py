"""What a run learns from a dataset: which features go in, and which classes come out."""

from __future__ import annotations

from dataclasses import dataclass

import crc32c
import numpy as np

from lengthwise.dataset import CorruptDataError, Feature, Manifest, Plan, SchemaError
from lengthwise.dataset.manifest import PLAN_NAME
from lengthwise.model.configuration import TrainConfig

# An embedding of more rows than this is a number mistaken for an id.
MAX_IDS = 1 << 24


@dataclass(frozen=True)
class Classification:
    """The task `classify`: one class for each row.

    Attributes:
        label: the feature to predict.
        classes: (C,) int64 ascending, the values of the label; logit i stands for classes[i].
        inputs: the features that the network sees, in the order of the schema.
        num_ids: name -> ids are below this, for every integer input.
    """

    label: str
    classes: np.ndarray
    inputs: tuple[Feature, ...]
    num_ids: dict[str, int]

    def class_index(self, labels: np.ndarray) -> np.ndarray:
        """Numbers of the classes of labels, -1 where there is no such class.

        Example:
            >>> task = Classification("y", np.array([3, 7]), (), {})
            >>> task.class_index(np.array([7, 3, 5]))
            array([ 1,  0, -1])
        """
        index = np.minimum(np.searchsorted(self.classes, labels), len(self.classes) - 1)
        return np.where(self.classes[index] == labels, index, -1)


def classification(manifest: Manifest, config: TrainConfig) -> Classification:
    """Reads the task from the schema and the plan of a dataset.

    Args:
        manifest: of the dataset.
        config: `label` and `inputs` count here.

    Raises:
        SchemaError: label or inputs are missing, or cannot be used for this task.
        CorruptDataError: the plan is not the one that the dataset was built with.
    """
    plan = load_plan(manifest)
    label = _label(manifest, config)
    values = plan.statistics[label.name].values
    if values is None:
        raise SchemaError(
            f"{manifest.root}: label '{label.name}' has no count of values in {PLAN_NAME}: give it "
            "to `lengthwise build` as --label; it must have at most 4096 different values"
        )
    inputs = _inputs(manifest, config, label)
    num_ids = {
        feature.name: _num_ids(manifest, plan, feature)
        for feature in inputs
        if feature.dtype == "int64"
    }
    return Classification(label.name, np.array(sorted(values), np.int64), inputs, num_ids)


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
    feature = schema[config.label or labels[0]]
    if feature.sequence or feature.shape or feature.dtype != "int64":
        raise SchemaError(
            f"{manifest.root}: --task classify needs one integer per row, but the label is "
            f"{feature.describe()}"
        )
    return feature


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
    low, high = int(plan.statistics[feature.name].low), int(plan.statistics[feature.name].high)
    if low < 0 or high >= MAX_IDS:
        raise SchemaError(
            f"{manifest.root}: integer feature '{feature.name}' has values from {low} to {high}, "
            f"which are no ids within [0, {MAX_IDS - 1}]; make it a float column, or choose other "
            "features with --input"
        )
    return high + 1
