"""Packed rows: the bytes of a row's feature as one value, so that rows move at the speed of memcpy.

    RaggedRows                            packed rows (pa.RecordBatch)
    values["frames"]   (N, …)      ->     feature/frames   large_binary, one value a row
    contexts["label"]  (n, …)             feature/label    fixed_size_binary
    elements["frames"] (N, …)             elements/frames  large_binary, a byte an element
    lengths, keys, observed               length, key, observed

Arrow takes, concatenates, writes and maps back such columns several times faster than lists, which
it moves value by value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from lengthwise.dataset.schema import LENGTH, Feature, Schema
from lengthwise.transforms.ragged import RaggedRows

KEY = "key"
OBSERVED = "observed"


def pack_rows(rows: RaggedRows, schema: Schema) -> pa.RecordBatch:
    """Packs rows so that each feature of a row is one value of bytes.

    Returns:
        Columns `key` (uint64, zeros where there are no keys), `length` (int32), `observed`
        (large_binary, a byte a step; null where every step of the row is observed), then the
        features: sequences as large_binary, others as fixed_size_binary; beside a sequence with an
        element mask the mask, like `observed`.
    """
    n = len(rows)
    offsets = rows.offsets
    keys = np.zeros(n, np.uint64) if rows.keys is None else rows.keys
    columns: dict[str, pa.Array] = {
        KEY: pa.array(keys),
        LENGTH: pa.array(rows.lengths.astype(np.int32)),
        OBSERVED: _pack_mask(rows.observed, offsets),
    }
    for feature in schema.features:
        values = rows.values[feature.name] if feature.sequence else rows.contexts[feature.name]
        width = feature.size * values.itemsize
        data = pa.py_buffer(np.ascontiguousarray(values))
        if feature.sequence:
            columns[value_column(feature)] = _binary(offsets * width, data)
        else:
            columns[value_column(feature)] = pa.Array.from_buffers(
                pa.binary(width), n, [None, data]
            )
        if feature.element_mask:
            known = rows.observed_of(feature.name) is not None
            mask = rows.elements_of(feature.name).reshape(-1) if known else None
            columns[_elements(feature)] = _pack_mask(mask, offsets * feature.size)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def unpack_rows(packed: pa.RecordBatch, schema: Schema, storage: Mapping[str, str]) -> RaggedRows:
    """Views packed rows as arrays, without a copy.

    Args:
        packed: from `pack_rows`, possibly taken, concatenated or sliced since. Features whose
            column is not there are left out.
        schema: the features.
        storage: feature -> numpy dtype of the packed values.
    """
    lengths = packed.column(LENGTH).to_numpy().astype(np.int64)
    values, contexts, elements = {}, {}, {}
    for feature in schema.features:
        if value_column(feature) not in packed.schema.names:
            continue
        column = packed.column(value_column(feature))
        dtype = np.dtype(storage[feature.name])
        if feature.sequence:
            values[feature.name] = _bytes_of(column).view(dtype).reshape(-1, *feature.shape)
        else:
            width = feature.size * dtype.itemsize
            data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
            data = data[column.offset * width : (column.offset + len(column)) * width]
            contexts[feature.name] = data.view(dtype).reshape(-1, *feature.shape)
        if feature.element_mask:
            mask = _unpack_mask(packed.column(_elements(feature)), lengths * feature.size)
            if mask is not None:
                elements[feature.name] = mask.reshape(-1, *feature.shape)
    return RaggedRows(
        lengths=lengths,
        values=values,
        contexts=contexts,
        observed=_unpack_mask(packed.column(OBSERVED), lengths),
        keys=packed.column(KEY).to_numpy(),
        elements=elements,
    )


def map_values(packed: pa.RecordBatch, feature: Feature, table: np.ndarray) -> pa.RecordBatch:
    """Replaces the values of a feature by what a table says of them; missing ones become 0.

    Args:
        packed: from `pack_rows`, possibly sliced; the feature's values are int32, rows of `table`.
        feature: which feature.
        table: (m,) int32.
    """
    name = value_column(feature)
    at = packed.schema.get_field_index(name)
    column = packed.column(at)
    width = feature.size * table.itemsize
    if feature.sequence:
        mapped = table[_bytes_of(column).view(np.int32)]
        lengths = packed.column(LENGTH).to_numpy().astype(np.int64)
        if feature.element_mask:
            observed = _unpack_mask(packed.column(_elements(feature)), lengths * feature.size)
        else:
            observed = _unpack_mask(packed.column(OBSERVED), lengths)
        if observed is not None:
            mapped.reshape(len(observed), -1)[~observed] = 0
        offsets = np.concatenate(([0], np.cumsum(lengths))) * width
        return packed.set_column(at, name, _binary(offsets, pa.py_buffer(mapped)))
    codes = np.frombuffer(column.buffers()[1] or b"", np.int32)
    codes = codes[column.offset * feature.size :][: len(column) * feature.size]
    data = pa.py_buffer(table[codes])
    mapped_column = pa.Array.from_buffers(pa.binary(width), len(column), [None, data])
    return packed.set_column(at, name, mapped_column)


def value_column(feature: Feature) -> str:
    """The column of packed rows that holds the values of a feature."""
    # A user's feature may be called `key`; the packed columns of Lengthwise have no slash.
    return f"feature/{feature.name}"


def _elements(feature: Feature) -> str:
    return f"elements/{feature.name}"


def _pack_mask(mask: np.ndarray | None, offsets: np.ndarray) -> pa.Array:
    """A mask, a byte a value; null for rows where all is observed."""
    n = len(offsets) - 1
    if mask is None:
        return pa.nulls(n, pa.large_binary())
    # Counted from running totals: rows without steps are allowed, wherever they stand.
    unseen = np.concatenate(([0], np.cumsum(~mask)))
    partial = unseen[offsets[1:]] > unseen[offsets[:-1]]
    all_ = _binary(offsets, pa.py_buffer(np.ascontiguousarray(mask).view(np.uint8)))
    positions = np.where(partial, np.arange(n), -1)
    return all_.take(pa.array(positions, mask=~partial))


def _unpack_mask(column: pa.Array, lengths: np.ndarray) -> np.ndarray | None:
    if column.null_count == len(column):
        return None
    partial = column.is_valid().to_numpy(zero_copy_only=False)
    mask = np.ones(int(lengths.sum()), np.bool_)
    mask[np.repeat(partial, lengths)] = _bytes_of(column.drop_null()).view(np.bool_)
    return mask


def _binary(offsets: np.ndarray, data: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets.astype(np.int64)), data]
    )


def _bytes_of(column: pa.Array) -> np.ndarray:
    """The bytes of all values of a large_binary array, one after another."""
    if len(column) == 0:
        return np.zeros(0, np.uint8)
    offsets = np.frombuffer(column.buffers()[1], np.int64)
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return data[offsets[column.offset] : offsets[column.offset + len(column)]]
