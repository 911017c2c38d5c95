"""Nested lists: steps that are vectors or matrices, and the values at the bottom of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def is_list(type_: pa.DataType) -> bool:
    """Whether it is a list of any length."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_)


def shape_of(type_: pa.DataType) -> tuple[bool, tuple[int, ...], pa.DataType]:
    """Whether a type has steps, the shape of a step (or of the whole), and the type of a value.

    Example:
        >>> shape_of(pa.list_(pa.list_(pa.float32(), 16)))
        (True, (16,), DataType(float))
    """
    sequence = is_list(type_)
    if sequence:
        type_ = type_.value_type
    shape = []
    while pa.types.is_fixed_size_list(type_):
        shape.append(type_.list_size)
        type_ = type_.value_type
    return sequence, tuple(shape), type_


def leaf_values(items: pa.Array, size: int) -> tuple[pa.Array, np.ndarray | None]:
    """The innermost values of nested fixed-size lists, and which of them are missing.

    Args:
        items: (n,) of values, or of fixed-size lists of any depth.
        size: values of one item.

    Returns:
        (n * size,) values, nulls kept in place; (n, size) bool, True where a value, a list that it
        is in or the item is null, None where nothing is.

    Example:
        >>> items = pa.array([[1, 2], [None, 4]], pa.list_(pa.int64(), 2))
        >>> values, missing = leaf_values(items, 2)
        >>> len(values), missing.tolist()
        (4, [[False, False], [True, False]])
    """
    n, missing = len(items), None
    while True:
        if items.null_count:
            null = items.is_null().to_numpy(zero_copy_only=False)
            null = np.repeat(null, n * size // len(null)).reshape(n, size)
            missing = null if missing is None else missing | null
        if not pa.types.is_fixed_size_list(items.type):
            return items, missing
        inner = items.type.list_size
        items = items.values.slice(items.offset * inner, len(items) * inner)
