"""The order of the steps of a group: by number, or by time."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.pipeline.sources.source import NULL_ORDER, WRONG_TYPE

# Floats hold all integers up to here.
_EXACT = 2.0**53
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")


def order_of_steps(
    cells: pa.Array, offsets: np.ndarray, ignored: set[int]
) -> tuple[np.ndarray | None, dict[int, str]]:
    """Sorts the steps of each group; equal ones stay as they stand.

    A group is ordered by numbers, or by times of ISO 8601; it cannot have both.

    Args:
        cells: (n,) strings, the values that order the steps.
        offsets: (g + 1,) where each group begins.
        ignored: groups that are broken anyway.

    Returns:
        (n,) positions of the steps in their order, None where they are in order; and the groups
        that cannot be ordered, with the reason.

    Example:
        >>> order_of_steps(pa.array(["2", "10", "9", "1"]), np.array([0, 3, 4]), set())
        (array([0, 2, 1, 3]), {})
    """
    groups = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    faults: dict[int, str] = {}
    if pa.types.is_string(cells.type):
        cells = pc.utf8_trim_whitespace(cells)
        keys = _numbers(cells)
        if keys is None:
            keys, faults = _ranks(cells, offsets, ignored)
    else:
        missing = cells.is_null().to_numpy(zero_copy_only=False)
        faults = dict.fromkeys(np.unique(groups[missing]).tolist(), NULL_ORDER)
        keys = cells.cast(_wide(cells.type)).fill_null(0).to_numpy(zero_copy_only=False)
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        faults.update(dict.fromkeys(np.unique(groups[np.isnan(keys)]).tolist(), NULL_ORDER))
    if not ((groups[1:] == groups[:-1]) & ~(keys[1:] >= keys[:-1])).any():
        return None, faults
    return np.lexsort((keys, groups)), faults


def _wide(type_: pa.DataType) -> pa.DataType:
    return pa.float64() if pa.types.is_floating(type_) else pa.int64()


def _numbers(cells: pa.Array) -> np.ndarray | None:
    """Numbers that order all cells exactly; None where not all cells are of one kind."""
    for type_ in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            cast = cells.cast(type_)
        except pa.ArrowException:
            continue
        if pa.types.is_timestamp(type_):
            cast = cast.cast(pa.int64())
        keys = cast.to_numpy(zero_copy_only=False)
        if keys.dtype.kind == "f" and (np.abs(keys) >= _EXACT).any():
            continue
        return keys
    return None


def _ranks(
    cells: pa.Array, offsets: np.ndarray, ignored: set[int]
) -> tuple[np.ndarray, dict[int, str]]:
    """Ranks of the steps, group by group, where cells are of several kinds."""
    ranks = np.zeros(len(cells), np.int64)
    faults: dict[int, str] = {}
    for group, (start, stop) in enumerate(_pairs(offsets)):
        if group in ignored or start == stop:
            continue
        keys = _numbers(cells.slice(start, stop - start))
        if keys is None:
            texts = cells.slice(start, stop - start).to_pylist()
            values = [_value(text) for text in texts]
            numbers = [value for value in values if value is not None]
            if len(numbers) < len(values):
                faults[group] = NULL_ORDER if {"", "nan"} & set(texts) else WRONG_TYPE
                continue
            keys = np.empty(len(numbers), np.int64)
            keys[sorted(range(len(numbers)), key=numbers.__getitem__)] = np.arange(len(numbers))
        elif keys.dtype.kind == "f" and np.isnan(keys).any():
            faults[group] = NULL_ORDER
            continue
        ranks[start:stop] = np.argsort(np.argsort(keys, kind="stable"), kind="stable")
    return ranks, faults


def _pairs(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)


def _value(text: str) -> int | float | None:
    """A number that Python compares exactly with any other."""
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return None if number != number else number
