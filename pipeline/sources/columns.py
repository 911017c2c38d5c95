"""One type for each column of all files, where files do not say their types.

A line of JSON that says `3` may stand in a column of floats, and a file whose first rows have only
nulls says nothing. So inferred types give way: null to anything, integers to floats.

    a.jsonl  x: list<int64>                      both are read as
    b.jsonl  x: list<double>   y: list<int64>    x: list<double>  y: list<int64>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from lengthwise.dataset.nested import is_list
from lengthwise.pipeline.sources.source import COLUMNS, ROLES, UNSEEN_ROLES, SourceFile


def agree_on_columns(files: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
    """Gives inferred columns one type in all files.

    Columns that no type fits stay as they are; what uses them says so.
    """
    if not any(file.leaves_open for file in files):
        return tuple(files)
    types: dict[str, pa.DataType | None] = {}
    for file in sorted(files, key=lambda file: UNSEEN_ROLES in file.leaves_open):
        for column in file.columns:
            known = types.setdefault(column.name, pa.null())
            if known is not None:
                types[column.name] = _wider_in(file, known, column.type)
    open_ended = [file for file in files if COLUMNS in file.leaves_open]
    more = list(dict.fromkeys(name for file in open_ended for name in file.columns.names))
    return tuple(
        replace(file, columns=_agreed(file, types, more)) if file.leaves_open else file
        for file in files
    )


def _wider_in(file: SourceFile, known: pa.DataType, found: pa.DataType) -> pa.DataType | None:
    if UNSEEN_ROLES in file.leaves_open and is_list(found) and not pa.types.is_null(known):
        # Others have seen which role it is.
        found = found if is_list(known) else found.value_type
    # Where roles are open, a column that seemed to have one value per row gives way.
    if ROLES in file.leaves_open and is_list(known) != is_list(found):
        known, found = (type_ if is_list(type_) else pa.list_(type_) for type_ in (known, found))
    return wider_type(known, found)


def _agreed(
    file: SourceFile, types: dict[str, pa.DataType | None], more: Sequence[str]
) -> pa.Schema:
    own = {column.name: column.type for column in file.columns}
    if COLUMNS in file.leaves_open:
        own = {**own, **{name: own.get(name, pa.null()) for name in more}}
    columns = []
    for name, type_ in own.items():
        agreed = types[name]
        columns.append((name, known_type(type_ if agreed is None else agreed)))
    return pa.schema(columns)


def columns_to_read(files: Sequence[SourceFile], names: Sequence[str]) -> pa.Schema:
    """The columns that units are asked for; their types count where files do not say them."""
    columns = next((file for file in files if file.leaves_open), files[0]).columns
    return pa.schema([columns.field(name) for name in names])


def known_type(type_: pa.DataType) -> pa.DataType:
    """Lists that had no value yet as lists of floats."""
    vector = pa.types.is_fixed_size_list(type_)
    if not is_list(type_) and not vector:
        return type_
    inner = type_.value_type
    inner = pa.float64() if pa.types.is_null(inner) else known_type(inner)
    return pa.list_(inner, type_.list_size if vector else -1)


def wider_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none.

    Example:
        >>> wider_type(pa.list_(pa.int64()), pa.list_(pa.float32()))
        ListType(list<item: double>)
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return pa.int64()
    if _is_number(one) and _is_number(other):
        return pa.float64()
    if _is_string(one) and _is_string(other):
        return pa.string()
    if is_list(one) and is_list(other):
        inner = wider_type(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_fixed_size_list(one) and pa.types.is_fixed_size_list(other):
        inner = wider_type(one.value_type, other.value_type)
        same = one.list_size == other.list_size
        return pa.list_(inner, one.list_size) if same and inner is not None else None
    if is_list(one) and pa.types.is_fixed_size_list(other):
        one, other = other, one
    if pa.types.is_fixed_size_list(one) and is_list(other):
        # Vectors of unknown size, where a file begins with empty sequences only.
        inner = wider_type(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner, one.list_size)
    return None


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _is_string(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
