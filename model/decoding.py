"""From framed records to the arrays of a batch, and to the structure that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import RecordLayout, Schema, SchemaError
from lengthwise.dataset.schema import LENGTH, MASK


class BatchDecoder:
    """Decodes the records of any bucket of a dataset.

    Args:
        schema: of the dataset.
        label: the feature to predict; by default the labels of the schema.

    Raises:
        SchemaError: there is no such feature.
    """

    def __init__(self, schema: Schema, *, label: str | None = None) -> None:
        if label is not None and label not in schema.names:
            raise SchemaError(
                f"no feature '{label}' to predict; there are: {', '.join(schema.names)}"
            )
        schema_labels = tuple(feature.name for feature in schema.labels)
        self.schema = schema
        self.labels = schema_labels if label is None else (label,)
        # Labels that are not asked for are left out: as inputs they would give the answer away.
        self.features = tuple(
            name for name in schema.names if name not in (*self.labels, *schema_labels)
        )

    def specs(self, max_lengths: set[int]) -> tuple[list[str], list[tf.TensorSpec]]:
        """Names and specifications of the arrays that `decode` gives for these buckets."""
        steps = next(iter(max_lengths)) if len(max_lengths) == 1 else None
        specs = {
            MASK: tf.TensorSpec((None, steps), tf.bool),
            LENGTH: tf.TensorSpec((None,), tf.int32),
        }
        for name in (*self.features, *self.labels):
            feature = self.schema[name]
            per_row = (steps, *feature.shape) if feature.sequence else feature.shape
            specs[name] = tf.TensorSpec((None, *per_row), tf.dtypes.as_dtype(feature.dtype))
        return list(specs), list(specs.values())

    def decode(self, layout: RecordLayout, framed: np.ndarray) -> list[np.ndarray]:
        """Reads the features of a batch.

        Args:
            layout: of the batch's bucket.
            framed: (B, stride) uint8.

        Returns:
            In the order of `specs`: mask (B, T) bool, length (B,) int32, then features and labels.
        """
        names = (*self.features, *self.labels)
        return [
            layout.decode_field(MASK, framed),
            layout.decode_field(LENGTH, framed).astype(np.int32),
            *(layout.decode_field(name, framed) for name in names),
        ]

    def structure(self, tensors: Mapping[str, Any]) -> Any:
        """Arranges named tensors as `(features, label)`; see `read_dataset`."""
        features = {name: tensors[name] for name in (*self.features, MASK, LENGTH)}
        if not self.labels:
            return features
        if len(self.labels) == 1:
            return features, tensors[self.labels[0]]
        return features, {name: tensors[name] for name in self.labels}
