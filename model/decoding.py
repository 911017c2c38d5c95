"""From framed records to the arrays of a batch, and to the structure that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lengthwise.dataset import Feature, Schema, SchemaError, UsageError
from lengthwise.dataset.schema import LENGTH, MASK, RESERVED_SUFFIX
from lengthwise.model.shards import BucketRows

FORMS = ("dict", "tuple")


class BatchDecoder:
    """Decodes the records of any bucket of a dataset.

    Args:
        schema: of the dataset.
        label: the feature to predict; by default the labels of the schema.
        sample_weight: whether batches carry weights.
        form: "dict" or "tuple" of features.

    Raises:
        SchemaError: there is no such feature.
        UsageError: an unknown form, or weights without a label.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        label: str | None = None,
        sample_weight: bool = False,
        form: str = "dict",
    ) -> None:
        if label is not None and label not in schema.names:
            raise SchemaError(
                f"no feature '{label}' to predict; there are: {', '.join(schema.names)}"
            )
        if form not in FORMS:
            raise UsageError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
        schema_labels = tuple(feature.name for feature in schema.labels)
        self.schema = schema
        self.labels = schema_labels if label is None else (label,)
        # Labels that are not asked for are left out: as inputs they would give the answer away.
        hidden = {*self.labels, *schema_labels}
        self.features = tuple(
            stored
            for name in schema.names
            for stored in _stored_names(schema[name], as_input=name not in hidden)
        )
        self.sample_weight = sample_weight
        self.form = form
        if sample_weight and not self.labels:
            raise UsageError("sample weights need a label; this dataset has none, give `label`")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays that `decode` gives, in their order."""
        weights = [_weight_of(label) for label in self.labels] if self.sample_weight else []
        return (MASK, LENGTH, *self.features, *self.labels, *weights)

    def specs(self, steps: int | None) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Name -> dtype and shape per row of the arrays, for a bucket of `steps`."""
        specs: dict[str, tuple[str, tuple[int | None, ...]]] = {
            MASK: ("bool", (steps,)),
            LENGTH: ("int32", ()),
        }
        for name in (*self.features, *self.labels):
            feature = self.schema[name.removesuffix(RESERVED_SUFFIX)]
            shape = (steps, *feature.shape) if feature.sequence else feature.shape
            specs[name] = ("bool" if name.endswith(RESERVED_SUFFIX) else feature.dtype, shape)
        for label in self.labels if self.sample_weight else ():
            specs[_weight_of(label)] = ("float32", (steps,) if self.schema[label].sequence else ())
        return specs

    def decode(self, bucket: BucketRows, rows: np.ndarray) -> list[np.ndarray]:
        """Reads the features of rows.

        Args:
            bucket: their bucket.
            rows: (B,) int64, their numbers in it; a negative one stands for no row.

        Returns:
            In the order of `names`: mask (B, T) bool, length (B,) int32, features, labels, and for
            each label its weights (B,) or (B, T) float32 if they are asked for.
        """
        names = (MASK, LENGTH, *self.features, *self.labels)
        arrays = bucket.read(rows, [bucket.layout[name] for name in names])
        arrays[1] = arrays[1].astype(np.int32)
        mask, length = arrays[0], arrays[1]
        for label in self.labels if self.sample_weight else ():
            # Rows that only fill a batch are the only ones of length 0.
            real = mask if self.schema[label].sequence else length > 0
            arrays.append(real.astype(np.float32))
        return arrays

    def structure(self, values: Mapping[str, Any]) -> Any:
        """Arranges named arrays or tensors as `(features, label, …)`; see `read_dataset`."""
        names = (*self.features, MASK, LENGTH)
        features: Any = {name: values[name] for name in names}
        if self.form == "tuple":
            features = tuple(features.values())
        if not self.labels:
            return features
        label = self._per_label(lambda name: values[name])
        if not self.sample_weight:
            return features, label
        return features, label, self._per_label(lambda name: values[_weight_of(name)])

    def _per_label(self, of: Callable[[str], Any]) -> Any:
        if len(self.labels) == 1:
            return of(self.labels[0])
        return {name: of(name) for name in self.labels}


def _stored_names(feature: Feature, *, as_input: bool) -> list[str]:
    """A feature and which of its elements were observed; of a label only the latter."""
    observed = [feature.observed_name] if feature.element_mask else []
    return [feature.name, *observed] if as_input else observed


def _weight_of(label: str) -> str:
    # Not the name of any feature: those are printable.
    return f"\0{label}"
