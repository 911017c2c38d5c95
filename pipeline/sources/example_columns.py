"""What the features of records mean as columns: steps, vectors, values per row, nulls, faults.

    a feature of a record              list of steps          value per row
    absent                             null                   null
    without values                     []                     null
    of another kind than the column    wrong type             wrong type
    7 values, steps of 3               ragged inner vectors
    2 values                                                  wrong type

A step of a feature list without values is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from lengthwise.dataset.nested import shape_of
from lengthwise.pipeline.sources.example_message import (
    BYTES,
    FLOAT,
    INT64,
    ExampleValue,
    FeatureValue,
)
from lengthwise.pipeline.sources.fitting import with_shape
from lengthwise.pipeline.sources.source import NOT_UTF8, RAGGED_VECTORS, WRONG_TYPE

# The kind of a feature that a record does not have; 0 is one that it has without values.
NO_ENTRY = -1


@dataclass(frozen=True)
class FeatureRows:
    """One feature of many records, or of many steps; of a kind that the column takes.

    Attributes:
        kinds: (n,) int8, `NO_ENTRY` where it is absent.
        counts: (n,) values of each.
        values: all values, one after another.
    """

    kinds: np.ndarray
    counts: np.ndarray
    values: pa.Array


@dataclass(frozen=True)
class ListRows:
    """One feature list of many records.

    Attributes:
        present: (n,) bool.
        num_steps: (n,) steps of each.
        steps: the features of all steps, one after another.
    """

    present: np.ndarray
    num_steps: np.ndarray
    steps: FeatureRows


def kinds_of(type_: pa.DataType) -> tuple[tuple[int, ...], pa.DataType]:
    """The kinds of features that a column takes, and the type of its values."""
    _, _, leaf = shape_of(type_)
    if pa.types.is_floating(leaf):
        return (FLOAT, INT64), leaf
    if pa.types.is_integer(leaf):
        return (INT64,), leaf
    if pa.types.is_null(leaf):
        return (), leaf
    return (BYTES,), pa.binary() if pa.types.is_binary(leaf) else pa.string()


def array_of(rows: FeatureRows | ListRows, type_: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """The column, a value a record, and the faults of records."""
    if isinstance(rows, ListRows):
        return _array_of_lists(rows, type_)
    sequence, shape, _ = shape_of(type_)
    size = math.prod(shape)
    counts = rows.counts
    absent = rows.kinds == NO_ENTRY
    if sequence:
        ragged = counts % size != 0
        lengths = np.where(ragged, 0, counts // size)
        items = _vectors(_without(rows, ragged), shape)
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        mask = pa.array(absent) if absent.any() else None
        array = pa.ListArray.from_arrays(pa.array(offsets), items, mask=mask)
        return array, _faults(ragged, RAGGED_VECTORS)
    uneven = (counts != size) & (counts > 0)
    array = _one_each(_without(rows, uneven), shape)
    return array, _faults(uneven, RAGGED_VECTORS if shape else WRONG_TYPE)


def _array_of_lists(rows: ListRows, type_: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    sequence, shape, _ = shape_of(type_)
    offsets = np.concatenate(([0], np.cumsum(rows.num_steps)))
    if not sequence:
        return pa.nulls(len(rows.present), type_), _faults(rows.present, WRONG_TYPE)
    steps = rows.steps
    uneven = (steps.counts != math.prod(shape)) & (steps.counts > 0)
    items = _one_each(_without(steps, uneven), shape)
    mask = None if rows.present.all() else pa.array(~rows.present)
    array = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items, mask=mask)
    row_of_step = np.repeat(np.arange(len(rows.present)), rows.num_steps)
    return array, dict.fromkeys(row_of_step[uneven].tolist(), RAGGED_VECTORS)


def value_of(example: ExampleValue, column: pa.Field) -> tuple[Any, str | None]:
    """What one record has in a column, as Python has it, and its fault."""
    sequence, shape, leaf = shape_of(column.type)
    name = column.name.encode()
    wanted, _ = kinds_of(column.type)
    if name in example.lists:
        if not sequence:
            return None, WRONG_TYPE
        steps = [_one(step, shape, leaf, wanted) for step in example.lists[name]]
        faults = [fault for _, fault in steps if fault is not None]
        fault = WRONG_TYPE if WRONG_TYPE in faults else next(iter(faults), None)
        return [value for value, _ in steps], fault
    if name not in example.features:
        return None, None
    feature = example.features[name]
    if not sequence:
        return _one(feature, shape, leaf, wanted, uneven=RAGGED_VECTORS if shape else WRONG_TYPE)
    if feature.kind not in (0, *wanted):
        return None, WRONG_TYPE
    if len(feature) % math.prod(shape):
        return None, RAGGED_VECTORS
    values, fault = _plain(feature, leaf)
    return _nested(values, (-1, *shape)), fault


def _one(
    feature: FeatureValue,
    shape: tuple[int, ...],
    leaf: pa.DataType,
    wanted: Iterable[int],
    *,
    uneven: str = RAGGED_VECTORS,
) -> tuple[Any, str | None]:
    """A step, or a value per row; null where the feature has no values."""
    if feature.kind not in (0, *wanted):
        return None, WRONG_TYPE
    if len(feature) == 0:
        return None, None
    if len(feature) != math.prod(shape):
        return None, uneven
    values, fault = _plain(feature, leaf)
    return (_nested(values, shape) if shape else values[0]), fault


def _plain(feature: FeatureValue, leaf: pa.DataType) -> tuple[list[Any], str | None]:
    values = feature.values
    if isinstance(values, np.ndarray):
        if pa.types.is_floating(leaf):
            values = values.astype(np.float32 if leaf == pa.float32() else np.float64)
        return cast(list[Any], values.tolist()), None
    if not pa.types.is_string(leaf):
        return values, None
    try:
        return [value.decode("utf-8") for value in values], None
    except UnicodeDecodeError:
        return [None] * len(values), NOT_UTF8


def _nested(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """A flat list as lists of lists of these sizes; the first may be -1."""
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values


def _without(rows: FeatureRows, dropped: np.ndarray) -> FeatureRows:
    """The rows with those that are dropped left without values."""
    if not dropped.any():
        return rows
    values = rows.values.filter(pa.array(np.repeat(~dropped, rows.counts)))
    return FeatureRows(rows.kinds, np.where(dropped, 0, rows.counts), values)


def _vectors(rows: FeatureRows, shape: tuple[int, ...]) -> pa.Array:
    items = rows.values
    for size in reversed(shape):
        items = pa.FixedSizeListArray.from_arrays(items, size)
    return items


def _one_each(rows: FeatureRows, shape: tuple[int, ...]) -> pa.Array:
    """One value, or vector, for each; null where there are no values."""
    items = _vectors(rows, shape)
    some = rows.counts > 0
    if some.all():
        return items
    positions = np.cumsum(some) - 1
    if len(items) == 0:
        return pa.nulls(len(some), with_shape(rows.values.type, shape))
    return items.take(pa.array(np.where(some, positions, 0), mask=~some))


def _faults(rows: np.ndarray, reason: str) -> dict[int, str]:
    return dict.fromkeys(np.flatnonzero(rows).tolist(), reason)
