"""Brings Arrow columns to the types that were asked for; rows that do not fit are broken.

Steps of a sequence are scalars or vectors of one size. Formats without types give vectors as lists
of any size:

    list<list<double>>  [[1, 2], [3, 4]]   ->   list<fixed_size_list<double, 2>>
                        [[1, 2], [3]]      ->   broken: ragged inner vectors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from lengthwise.dataset.nested import is_list
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.huggingface import huggingface_shapes
from lengthwise.pipeline.sources.source import (
    NOT_UTF8,
    RAGGED_VECTORS,
    TOO_LARGE,
    BrokenRow,
    SourceBatch,
)


def plain_columns(columns: pa.Schema, shapes: Mapping[str, tuple[int, ...]]) -> pa.Schema:
    """The types that the columns of a typed file are given.

    Args:
        columns: as they are in the file.
        shapes: column -> shape of a step, where the file has lists of lists.
    """
    shapes = {**huggingface_shapes(columns), **shapes}
    return pa.schema(
        [
            pa.field(
                column.name, shaped_type(_without_encoding(column.type), shapes.get(column.name))
            )
            for column in columns
        ]
    )


def with_shape(type_: pa.DataType, shape: Sequence[int]) -> pa.DataType:
    """A vector or matrix of such values.

    Example:
        >>> with_shape(pa.int8(), (4, 3))
        FixedSizeListType(fixed_size_list<item: fixed_size_list<item: int8>[3]>[4])
    """
    for size in reversed(shape):
        type_ = pa.list_(type_, size)
    return type_


def nested_lists(type_: pa.DataType) -> tuple[int, pa.DataType]:
    """How many lists of any length are in one another, and the type inside of them."""
    depth = 0
    while is_list(type_):
        depth, type_ = depth + 1, type_.value_type
    return depth, type_


def shaped_type(type_: pa.DataType, shape: Sequence[int] | None) -> pa.DataType:
    """Lists of lists as steps of one shape; a type that the shape does not fit stays.

    Example:
        >>> shaped_type(pa.list_(pa.list_(pa.float64())), (2,))
        ListType(list<item: fixed_size_list<item: double>[2]>)
    """
    if shape is None:
        return type_
    depth, leaf = nested_lists(type_)
    if depth == len(shape) + 1:
        return pa.list_(with_shape(leaf, shape))
    return with_shape(leaf, shape) if depth == len(shape) else type_


def fit_rows(
    batch: pa.RecordBatch,
    first_row: int,
    numbers: np.ndarray | None,
    columns: pa.Schema,
    options: SourceOptions,
    *,
    raw: Callable[[int], str] | None = None,
    broken: Sequence[BrokenRow] = (),
) -> SourceBatch:
    """Rows in the types that were asked for, without those that do not fit.

    Args:
        batch: rows with the columns of `columns`, possibly of other types.
        first_row: number of the first row in the file.
        numbers: (n,) row numbers; None where they are consecutive.
        columns: names and types.
        options: how to read.
        raw: position in the batch -> text of the row.
        broken: rows that are known to be broken and are not in the batch.
    """
    n = batch.num_rows
    reasons: dict[str, np.ndarray] = {}
    arrays = []
    for column, array in zip(columns, batch.columns, strict=True):
        if array.type != column.type:
            array, bad = _fit(array, column.type)
            _add(reasons, RAGGED_VECTORS, bad)
        arrays.append(array)
        if _has_strings(array.type):
            _add(reasons, NOT_UTF8, _not_utf8(array))
    if batch.nbytes > options.max_row_bytes:
        _add(reasons, TOO_LARGE, _row_bytes(arrays) > options.max_row_bytes)
    rows = pa.RecordBatch.from_arrays(arrays, schema=columns)
    if not reasons:
        if numbers is None:
            return SourceBatch(rows, first_row, None, tuple(broken))
        return SourceBatch.of(rows, numbers, tuple(broken))
    row_numbers = np.arange(first_row, first_row + n) if numbers is None else numbers
    found: dict[int, BrokenRow] = {}
    for reason, bad in reasons.items():
        for row in np.flatnonzero(bad).tolist():
            text = raw(row) if raw else ""
            found.setdefault(row, BrokenRow(int(row_numbers[row]), reason, text))
    good = np.ones(n, np.bool_)
    good[list(found)] = False
    rows = rows.filter(pa.array(good))
    everything = sorted([*broken, *found.values()], key=lambda broken_row: broken_row.row)
    return SourceBatch.of(rows, row_numbers[good], tuple(everything))


def _add(reasons: dict[str, np.ndarray], reason: str, bad: np.ndarray | None) -> None:
    if bad is not None and bad.any():
        reasons[reason] = bad | reasons[reason] if reason in reasons else bad


def _without_encoding(type_: pa.DataType) -> pa.DataType:
    """A type without what only says how values are stored: dictionaries, views, extensions."""
    if isinstance(type_, pa.BaseExtensionType):
        return _without_encoding(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return _without_encoding(type_.value_type)
    if type_ == pa.string_view():
        return pa.string()
    if type_ == pa.binary_view():
        return pa.binary()
    if pa.types.is_fixed_size_list(type_):
        inner = _without_encoding(type_.value_type)
        return type_ if inner == type_.value_type else pa.list_(inner, type_.list_size)
    if pa.types.is_large_list(type_):
        inner = _without_encoding(type_.value_type)
        return type_ if inner == type_.value_type else pa.large_list(inner)
    if pa.types.is_list(type_):
        inner = _without_encoding(type_.value_type)
        return type_ if inner == type_.value_type else pa.list_(inner)
    return type_


def _fit(array: pa.Array, target: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """The array as `target`, and (n,) bool: True where vectors in it have another size."""
    if array.type == target:
        return array, None
    if isinstance(array, pa.ExtensionArray):
        return _fit(array.storage, target)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), target), None
    if is_list(array.type) and pa.types.is_fixed_size_list(target):
        return _fit_vectors(array, target)
    if is_list(array.type) and is_list(target):
        offsets = array.offsets.to_numpy()
        items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        offsets = offsets - offsets[0]
        items, bad = _fit(items, target.value_type)
        kind = pa.LargeListArray if pa.types.is_large_list(target) else pa.ListArray
        width = np.int64 if pa.types.is_large_list(target) else np.int32
        mask = array.is_null() if array.null_count else None
        fitted = kind.from_arrays(pa.array(offsets.astype(width)), items, type=target, mask=mask)
        if bad is None:
            return fitted, None
        so_far = np.concatenate(([0], np.cumsum(bad)))
        return fitted, np.asarray(so_far[offsets[1:]] > so_far[offsets[:-1]])
    if pa.types.is_fixed_size_list(array.type) and pa.types.is_fixed_size_list(target):
        size = target.list_size
        items = array.values.slice(array.offset * size, len(array) * size)
        items, bad = _fit(items, target.value_type)
        mask = array.is_null() if array.null_count else None
        fitted = pa.FixedSizeListArray.from_arrays(items, type=target, mask=mask)
        return fitted, None if bad is None else np.asarray(bad.reshape(-1, size).any(axis=1))
    return array.cast(target), None


def _fit_vectors(array: pa.Array, target: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Lists of any size as vectors of one; those of another size become null."""
    size = target.list_size
    offsets = array.offsets.to_numpy()
    valid = np.ones(len(array), np.bool_)
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
    whole = valid & (np.diff(offsets) == size)
    bad = valid & ~whole
    mask = None
    if whole.all():
        items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    else:
        index = np.where(whole, offsets[:-1], 0)[:, None] + np.arange(size)  # (n, size)
        missing = np.broadcast_to(~whole[:, None], index.shape)
        items = array.values.take(pa.array(index.reshape(-1), mask=missing.reshape(-1)))
        mask = pa.array(~whole)
    items, bad_items = _fit(items, target.value_type)
    if bad_items is not None:
        bad |= bad_items.reshape(-1, size).any(axis=1)
    fitted = pa.FixedSizeListArray.from_arrays(items, type=target, mask=mask)
    return fitted, bad if bad.any() else None


def _has_strings(type_: pa.DataType) -> bool:
    while is_list(type_) or pa.types.is_fixed_size_list(type_):
        type_ = type_.value_type
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _not_utf8(array: pa.Array) -> np.ndarray | None:
    """(n,) bool, True where a string in the row is not UTF-8; None where all are."""
    try:
        array.validate(full=True)
        return None
    except pa.ArrowInvalid:
        bad = np.zeros(len(array), np.bool_)
    for row in range(len(array)):
        try:
            array[row].as_py()
        except UnicodeDecodeError:
            bad[row] = True
    return bad


def _row_bytes(arrays: Sequence[pa.Array]) -> np.ndarray:
    """(n,) int64: bytes that the values of each row take."""
    return np.sum([_bytes_of_items(array) for array in arrays], axis=0)


def _bytes_of_items(array: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        items = array.values.slice(array.offset * size, len(array) * size)
        return _bytes_of_items(items).reshape(-1, size).sum(axis=1)
    if is_list(array.type):
        offsets = array.offsets.to_numpy()
        items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        so_far = np.concatenate(([0], np.cumsum(_bytes_of_items(items))))
        return np.diff(so_far[offsets - offsets[0]])
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        return np.diff(_offsets(array, np.int32)) + 4
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        return np.diff(_offsets(array, np.int64)) + 8
    try:
        width = max(1, array.type.bit_width // 8)
    except ValueError:
        width = 1  # structs and others, which no feature is made of
    return np.full(len(array), width, np.int64)


def _offsets(array: pa.Array, dtype: type) -> np.ndarray:
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array) + 1]
    return offsets.astype(np.int64)
