"""The types of JSON columns, inferred from the first rows, and why a line does not fit them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from lengthwise.dataset.reading import DECLARED_TYPES, SourceOptions
from lengthwise.pipeline.sources.columns import wider_type
from lengthwise.pipeline.sources.fitting import is_list, nested_lists, shaped_type, with_shape
from lengthwise.pipeline.sources.source import (
    BROKEN_LINE,
    INFINITE,
    OUT_OF_RANGE,
    WRONG_TYPE,
)

MAX_COLUMNS = 10_000

_LEAVES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_INT64 = range(-(2**63), 2**63)


def infer_columns(lines: Iterable[bytes], options: SourceOptions) -> pa.Schema:
    """The types that hold the values of all these lines; what is no row is passed over.

    Numbers without a point are integers, unless others in the column have one. Lists of lists are
    vectors per step, of the size of the first one there is.
    """
    types: dict[str, pa.DataType] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for line in lines:
        if not line:
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict):
            continue
        for name, value in row.items():
            if name not in types and len(types) >= MAX_COLUMNS:
                continue
            known = types.get(name, pa.null())
            types[name] = _wider(known, _type_of(value))
            if name not in shapes and isinstance(value, list) and value:
                shape = _shape_of(value)
                if name in options.contexts:
                    shapes[name] = (len(value), *(shape or ()))
                elif shape is not None:
                    shapes[name] = shape
    return pa.schema(
        [
            (name, _column_type(name, type_, shapes.get(name), options))
            for name, type_ in types.items()
        ]
    )


def type_to_parse(type_: pa.DataType) -> pa.DataType:
    """The type as JSON has it: vectors are lists like any other."""
    if pa.types.is_fixed_size_list(type_) or is_list(type_):
        return pa.list_(type_to_parse(type_.value_type))
    if pa.types.is_integer(type_):
        return pa.int64()
    return pa.float64() if pa.types.is_floating(type_) else type_


def fault_of(line: bytes, columns: pa.Schema) -> str | None:
    """Why a line cannot be parsed as these columns; None where nothing is seen.

    Sees only what Arrow does not take either. Arrow knows more words for infinity, goes deeper into
    what is not asked for, and does not look whether that is UTF-8.
    """
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"), strict=False)
    except json.JSONDecodeError:
        return None if b"Inf" in line else BROKEN_LINE
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return BROKEN_LINE
    faults = (_fault(row.get(column.name), column.type) for column in columns)
    fault = next(filter(None, faults), None)
    return None if fault == INFINITE and b"Inf" in line else fault


def _wider(known: pa.DataType, found: pa.DataType) -> pa.DataType:
    # Where two rows disagree, the first is believed and the other broken.
    wider = wider_type(known, found)
    return known if wider is None else wider


def _type_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, list):
        return pa.list_(_type_of_items(value))
    return _LEAVES.get(type(value), pa.struct([]))


def _type_of_items(items: list[Any]) -> pa.DataType:
    known: pa.DataType = pa.null()
    kinds = set(map(type, items))
    for kind in (bool, int, float, str):
        if kind in kinds:
            known = _wider(known, _LEAVES[kind])
    if dict in kinds:
        known = _wider(known, pa.struct([]))
    if list in kinds:
        for item in items:
            if isinstance(item, list):
                known = _wider(known, pa.list_(_type_of_items(item)))
    return known


def _shape_of(steps: list[Any]) -> tuple[int, ...] | None:
    """The sizes of the first step that is a list; None where there is none."""
    for step in steps:
        if isinstance(step, list) and step:
            inner = _shape_of(step)
            return (len(step), *(inner or ()))
    return None


def _column_type(
    name: str, type_: pa.DataType, shape: tuple[int, ...] | None, options: SourceOptions
) -> pa.DataType:
    depth, leaf = nested_lists(type_)
    unseen = pa.types.is_null(leaf)
    if name in options.types:
        # Without a value to be seen, only what is declared says that it is a sequence.
        depth = max(depth, int(pa.types.is_null(type_) and name in options.sequences))
        leaf = DECLARED_TYPES[options.types[name]]
    plain = leaf
    for _ in range(depth):
        plain = pa.list_(plain)
    if unseen and name in options.sequences and name in options.shapes:
        # Lists without a value do not show how deep they are.
        return pa.list_(with_shape(leaf, options.shapes[name]))
    if depth > 0 and name in options.shapes:
        return shaped_type(plain, options.shapes[name])
    if name in options.contexts and shape is not None and len(shape) == depth:
        return with_shape(leaf, shape)
    if name not in options.contexts and shape is not None and len(shape) == depth - 1:
        return pa.list_(with_shape(leaf, shape))
    return plain


def _fault(value: Any, type_: pa.DataType) -> str | None:
    """Why a value is not of a type; None where it is."""
    if value is None:
        return None
    if pa.types.is_fixed_size_list(type_) or is_list(type_):
        if not isinstance(value, list):
            return WRONG_TYPE
        return next(filter(None, (_fault(item, type_.value_type) for item in value)), None)
    if pa.types.is_boolean(type_):
        return None if isinstance(value, bool) else WRONG_TYPE
    if pa.types.is_integer(type_):
        if not isinstance(value, int) or isinstance(value, bool):
            return WRONG_TYPE
        return None if value in _INT64 else OUT_OF_RANGE
    if pa.types.is_floating(type_):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return WRONG_TYPE
        return INFINITE if value in (float("inf"), float("-inf")) else None
    if pa.types.is_struct(type_):
        return None if isinstance(value, dict) else WRONG_TYPE
    return None if isinstance(value, str) else WRONG_TYPE
