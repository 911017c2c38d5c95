"""Columns of many `tf.train.Example` or `SequenceExample` records at once.

    Example          a feature is a list of values: the steps of a sequence, or one value per row
    SequenceExample  a feature list has a feature per step; the context has values per row

Records in the usual encoding are read together by `wire`; the others one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lengthwise.pipeline.sources.example_columns import (
    NO_ENTRY,
    FeatureRows,
    ListRows,
    array_of,
    kinds_of,
    value_of,
)
from lengthwise.pipeline.sources.example_message import BYTES, INT64, parse_example
from lengthwise.pipeline.sources.source import BROKEN_RECORD
from lengthwise.pipeline.sources.wire import (
    Spans,
    decode_varints,
    gathered,
    read_field,
    repeated_fields,
    spans_equal,
    whole_field,
)

_FIRST, _SECOND, _THIRD = 0x0A, 0x12, 0x1A
_KIND_OF_TAG = np.zeros(256, np.int8)
_KIND_OF_TAG[[_FIRST, _SECOND, _THIRD]] = 1, 2, 3

# Records with more are read one by one, so that a single one cannot make all others wait.
_MOST_FEATURES = 1 << 10
_MOST_ITEMS = 1 << 12


@dataclass(frozen=True)
class ExampleRows:
    """What was read of some records.

    Attributes:
        arrays: the columns, one value a record; what stands at faulty ones means nothing.
        faults: position of a record -> why it is broken.
    """

    arrays: list[pa.Array]
    faults: dict[int, str]


def read_examples(data: np.ndarray, records: Spans, columns: pa.Schema) -> ExampleRows:
    """Reads columns of records.

    Args:
        data: (m,) uint8, padded for `wire`.
        records: (n,) where each record is.
        columns: names and types.
    """
    odd = np.zeros(len(records), np.bool_)
    features, lists = _parts(data, records, odd)
    of_features = _entries(data, features, odd)
    of_lists = _entries(data, lists, odd)
    arrays, reasons = [], []
    for column in columns:
        name = column.name.encode()
        rows_with_list, feature_lists = _named(data, of_lists, name, odd)
        rows_with_feature, messages = _named(data, of_features, name, odd)
        if len(rows_with_list):
            odd[np.setdiff1d(rows_with_feature, rows_with_list)] = True
            rows = _list_rows(data, len(records), rows_with_list, feature_lists, column.type, odd)
        else:
            rows = _feature_rows(data, len(records), rows_with_feature, messages, column.type, odd)
        array, reason = array_of(rows, column.type)
        arrays.append(array)
        reasons.append(reason)
    faults = {
        row: text for reason in reversed(reasons) for row, text in reason.items() if not odd[row]
    }
    if odd.any():
        arrays = _with_odd_rows(data, records, np.flatnonzero(odd), columns, arrays, faults)
    return ExampleRows(arrays, faults)


def _parts(data: np.ndarray, records: Spans, odd: np.ndarray) -> tuple[Spans, Spans]:
    """Features (or context) and feature lists of each record; marks odd records."""
    at, stops = records.starts, records.stops
    parts = []
    for tag in (_FIRST, _SECOND):
        here = np.flatnonzero((at < stops) & (data[at] == tag))
        field, wrong = read_field(data, at[here], stops[here], tag)
        odd[here[wrong]] = True
        starts, ends = at.copy(), at.copy()
        starts[here], ends[here] = field.starts, field.stops
        parts.append(Spans(starts, ends))
        at = ends
    odd |= at != stops
    return parts[0], parts[1]


@dataclass(frozen=True)
class _Entries:
    """Entries of the maps of some records, in the order of records.

    Attributes:
        owners: (k,) positions of records.
        keys, values: (k,) where they are.
    """

    owners: np.ndarray
    keys: Spans
    values: Spans


def _entries(data: np.ndarray, maps: Spans, odd: np.ndarray) -> _Entries:
    owners, entries, wrong = repeated_fields(data, maps, _FIRST, most=_MOST_FEATURES)
    odd |= wrong
    keys, wrong_keys = read_field(data, entries.starts, entries.stops, _FIRST)
    values, wrong_values = read_field(data, keys.stops, entries.stops, _SECOND)
    good = ~(wrong_keys | wrong_values | (values.stops != entries.stops))
    odd[owners[~good]] = True
    kept = np.flatnonzero(good)
    return _Entries(owners[kept], keys.select(kept), values.select(kept))


def _named(
    data: np.ndarray, entries: _Entries, name: bytes, odd: np.ndarray
) -> tuple[np.ndarray, Spans]:
    """The entries of one key, at most one a record; marks records that have two."""
    found = np.flatnonzero(spans_equal(data, entries.keys, name))
    owners = entries.owners[found]
    again = owners[1:] == owners[:-1]
    if again.any():
        odd[owners[1:][again]] = True
        found, owners = found[~odd[owners]], owners[~odd[owners]]
    return owners, entries.values.select(found)


def _feature_rows(
    data: np.ndarray,
    n: int,
    owners: np.ndarray,
    messages: Spans,
    type_: pa.DataType,
    odd: np.ndarray,
) -> FeatureRows:
    """The feature of one name in each record."""
    kinds, values, counts, wrong = _features(data, messages, type_)
    odd[owners[wrong]] = True
    kinds_of_rows = np.full(n, NO_ENTRY, np.int8)
    kinds_of_rows[owners] = kinds
    counts_of_rows = np.zeros(n, np.int64)
    counts_of_rows[owners] = counts
    return FeatureRows(kinds_of_rows, counts_of_rows, values)


def _list_rows(
    data: np.ndarray,
    n: int,
    owners: np.ndarray,
    lists: Spans,
    type_: pa.DataType,
    odd: np.ndarray,
) -> ListRows:
    """The feature list of one name in each record."""
    of_list, steps, wrong = repeated_fields(data, lists, _FIRST, most=_MOST_ITEMS)
    odd[owners[wrong]] = True
    kinds, values, counts, wrong = _features(data, steps, type_)
    odd[owners[of_list[wrong]]] = True
    present = np.zeros(n, np.bool_)
    present[owners] = True
    num_steps = np.bincount(owners[of_list], minlength=n)
    return ListRows(present, num_steps, FeatureRows(kinds, counts, values))


def _features(
    data: np.ndarray, messages: Spans, type_: pa.DataType
) -> tuple[np.ndarray, pa.Array, np.ndarray, np.ndarray]:
    """Kinds (k,), values of those kinds that the type takes, counts (k,), odd (k,) bool."""
    tags = data[messages.starts]
    empty = messages.lengths == 0
    kinds = np.where(empty, 0, _KIND_OF_TAG[tags]).astype(np.int8)
    lists, odd = whole_field(data, messages, tags)
    wanted, leaf = kinds_of(type_)
    odd |= ~empty & ~np.isin(kinds, wanted)
    counts = np.zeros(len(messages), np.int64)
    parts, positions = [], []
    for kind in wanted:
        here = np.flatnonzero((kinds == kind) & ~odd)
        if kind == BYTES:
            values, own_counts, wrong = _byte_values(data, lists.select(here), leaf)
        else:
            values, own_counts, wrong = _number_values(data, lists.select(here), kind)
        odd[here[wrong]] = True
        counts[here] = own_counts
        parts.append(values)
        positions.append(here)
    return kinds, _merged(parts, positions, counts, leaf), counts, odd


def _merged(
    parts: Sequence[pa.Array],
    positions: Sequence[np.ndarray],
    counts: np.ndarray,
    leaf: pa.DataType,
) -> pa.Array:
    """The values of several kinds in the order of the messages that have them."""
    filled = [i for i, values in enumerate(parts) if len(values)]
    if len(filled) <= 1:
        return parts[filled[0]].cast(leaf, safe=False) if filled else pa.array([], leaf)
    values = pa.concat_arrays([part.cast(leaf, safe=False) for part in parts])
    owners = np.concatenate([np.repeat(here, counts[here]) for here in positions])
    return values.take(pa.array(np.argsort(owners, kind="stable")))


def _number_values(
    data: np.ndarray, lists: Spans, kind: int
) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Packed numbers of `FloatList` or `Int64List` messages, counts, and which are odd."""
    packed, odd = whole_field(data, lists, _FIRST)
    last = data[np.maximum(packed.stops - 1, 0)]
    filled = packed.lengths > 0
    odd |= filled & (last >= 0x80 if kind == INT64 else packed.lengths % 4 != 0)
    packed = Spans(packed.starts, np.where(odd, packed.starts, packed.stops))
    bytes_ = gathered(data, packed)
    if kind != INT64:
        values = pa.array(bytes_.view("<f4"))
        return values, packed.lengths // 4, odd
    ends = np.cumsum(packed.lengths)
    try:
        numbers, bounds = decode_varints(bytes_)
    except ValueError:
        # One of them has a number that is too long; who, is found one by one.
        odd |= packed.lengths > 0
        return pa.array([], pa.int64()), np.zeros(len(lists), np.int64), odd
    counts = np.diff(np.searchsorted(bounds, np.concatenate(([0], ends))))
    return pa.array(numbers), counts, odd


def _byte_values(
    data: np.ndarray, lists: Spans, leaf: pa.DataType
) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Values of `BytesList` messages, counts, and which are odd."""
    owners, items, odd = repeated_fields(data, lists, _FIRST, most=_MOST_ITEMS)
    bytes_ = gathered(data, items)
    offsets = np.concatenate(([0], np.cumsum(items.lengths))).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bytes_)]
    values = pa.Array.from_buffers(leaf, len(items), buffers)
    return values, np.bincount(owners, minlength=len(lists)), odd


def _with_odd_rows(
    data: np.ndarray,
    records: Spans,
    odd: np.ndarray,
    columns: pa.Schema,
    arrays: list[pa.Array],
    faults: dict[int, str],
) -> list[pa.Array]:
    """The columns with the odd records parsed one by one; adds their faults."""
    names = {column.name.encode() for column in columns}
    values: list[list] = [[] for _ in columns]
    for row in odd.tolist():
        record = data[int(records.starts[row]) : int(records.stops[row])].tobytes()
        found: list = [None] * len(columns)
        try:
            example = parse_example(record, names)
            for number, column in enumerate(columns):
                found[number], fault = value_of(example, column)
                if fault is not None:
                    faults.setdefault(row, fault)
        except ValueError:
            faults[row] = BROKEN_RECORD
        if row in faults:
            found = [None] * len(columns)
        for column_values, value in zip(values, found, strict=True):
            column_values.append(value)
    index = np.arange(len(records))
    index[odd] = len(records) + np.arange(len(odd))
    return [
        pa.concat_arrays([array, pa.array(own, array.type)]).take(pa.array(index))
        for array, own in zip(arrays, values, strict=True)
    ]
