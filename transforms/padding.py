"""Padding: ragged rows become one array, and a mask that says what is real."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import PValue

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.schema import RESERVED_SUFFIX, Schema
from lengthwise.transforms.ragged import RaggedRows, usable_rows


def slot_mask(lengths: np.ndarray, max_length: int, *, side: str = "right") -> np.ndarray:
    """The slots that hold a step of a row, observed or not.

    Args:
        lengths: (n,) integers within [0, max_length].
        max_length: T.
        side: which side is padded, `right` or `left`.

    Returns:
        (n, T) bool.

    Raises:
        InputError: a length is negative or above T.

    Example:
        >>> slot_mask(np.array([1, 2]), 2)
        array([[ True, False],
               [ True,  True]])
    """
    lengths = np.asarray(lengths)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= max_length:
        raise InputError(
            f"lengths must lie within [0, {max_length}], found {lengths.min()} to {lengths.max()}"
        )
    if len(lengths) < max_length:
        if side == "left":
            return np.arange(max_length, 0, -1) <= lengths[:, None]
        return np.arange(max_length) < lengths[:, None]
    # Rows of a triangle: cheaper than comparing every slot, once there are as many rows as slots.
    triangle = np.tri(max_length + 1, max_length, -1, dtype=np.bool_)
    if side == "left":
        triangle = np.ascontiguousarray(triangle[:, ::-1])
    return triangle[lengths]


def pad_rows(
    values: np.ndarray,
    lengths: np.ndarray,
    max_length: int,
    *,
    value: float = 0,
) -> np.ndarray:
    """Pads ragged rows on the right.

    Args:
        values: (N, *shape), the steps of all rows one after another.
        lengths: (n,) integers, steps of each row; they add up to N.
        max_length: T, no row is longer.
        value: what stands in padding. The mask, not the value, says what is padding.

    Returns:
        (n, T, *shape), the dtype of `values`.

    Raises:
        InputError: a row is longer than T, or the lengths do not add up.

    Example:
        >>> pad_rows(np.array([1, 2, 3]), np.array([2, 1]), 3)
        array([[1, 2, 0],
               [3, 0, 0]])
    """
    lengths = np.asarray(lengths)
    slots = slot_mask(lengths, max_length)
    if lengths.sum() != len(values):
        raise InputError(
            f"the lengths add up to {lengths.sum()}, but there are {len(values)} steps"
        )
    padded = np.full((len(lengths), max_length, *values.shape[1:]), value, values.dtype)
    if padded.size:
        # A step is moved as one opaque value, whatever its shape.
        step = np.dtype((np.void, padded[0, 0].nbytes))
        steps = np.ascontiguousarray(values).reshape(-1).view(step)
        padded.reshape(-1).view(step).reshape(slots.shape)[slots] = steps
    return padded


@dataclass(frozen=True)
class PaddedBatch:
    """Rows of one bucket, padded.

    Attributes:
        features: name -> (n, T, *shape) for sequences, (n, *shape) for features per row;
            `<name>__observed` -> (n, T, *shape) bool for sequences with missing elements.
        length: (n,) int64, steps before padding.
        mask: (n, T) bool, True at real, observed steps.
    """

    features: dict[str, np.ndarray]
    length: np.ndarray
    mask: np.ndarray

    def __len__(self) -> int:
        return len(self.length)


def pad_batch(rows: RaggedRows, max_length: int) -> PaddedBatch:
    """Pads all features of ragged rows, and makes their mask.

    Raises:
        InputError: a row is longer than `max_length`.
    """
    features = {
        name: pad_rows(values, rows.lengths, max_length) for name, values in rows.values.items()
    }
    features.update(rows.contexts)
    for name, elements in rows.elements.items():
        features[f"{name}{RESERVED_SUFFIX}"] = pad_rows(elements, rows.lengths, max_length)
    return PaddedBatch(features, rows.lengths, observed_mask(rows, max_length))


def observed_mask(rows: RaggedRows, max_length: int, *, side: str = "right") -> np.ndarray:
    """(n, T) bool: slots that hold an observed step; `side` is the one that is padded."""
    mask = slot_mask(rows.lengths, max_length, side=side)
    if rows.observed is not None:
        mask[mask] = rows.observed
    return mask


class PadToBucket(beam.PTransform):
    """Pads the rows of each batch to the max_length of its bucket.

    Input: `(max_length, pa.RecordBatch)`, as `BucketByLength` gives.
    Output: `(max_length, PaddedBatch)`.

    Args:
        schema: the features.

    Raises:
        InputError: a row cannot be used, or is longer than its bucket.

    Example:
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> batch = pa.record_batch({"tokens": [[1, 2], [3]]})
        >>> with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ...     _ = (pipeline | beam.Create([(4, batch)])
        ...          | PadToBucket(Schema.from_arrow(batch.schema))
        ...          | beam.MapTuple(lambda t, padded: print(padded.features["tokens"])))
        [[1 2 0 0]
         [3 0 0 0]]
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._schema = schema

    def expand(self, input_or_inputs: beam.PCollection) -> PValue:
        return input_or_inputs | "PadRows" >> beam.Map(_pad, self._schema)


def _pad(element: tuple[int, pa.RecordBatch], schema: Schema) -> tuple[int, PaddedBatch]:
    max_length, batch = element
    return max_length, pad_batch(usable_rows(batch, schema), max_length)
