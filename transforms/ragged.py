"""Ragged rows as arrays: the flat steps of all rows, and where each row begins.

    Arrow lists                   RaggedRows
    frames  list<…>          ->   values["frames"]   (N, …)   N = sum of lengths
    label   int64                 contexts["label"]  (n, …)
                                  lengths            (n,)

Arrow lists are what users have; `RaggedRows` is what numpy works on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, SchemaError
from lengthwise.dataset.nested import leaf_values, shape_of
from lengthwise.dataset.reasons import (
    INFINITE,
    NOT_A_NUMBER,
    NULL_CONTEXT,
    NULL_SEQUENCE,
    OUT_OF_RANGE,
    REASONS,
    UNEQUAL_LENGTHS,
)
from lengthwise.dataset.schema import NUMBERS, Feature, Schema, feature_from_arrow
from lengthwise.dataset.spans import span_index
from lengthwise.transforms.row_keys import piece_keys


@dataclass(frozen=True)
class RaggedRows:
    """Rows of ragged sequences, in flat form.

    Attributes:
        lengths: (n,) int64, steps of each row.
        values: sequence feature -> (N, *shape), N the sum of lengths; zeros at missing steps.
        contexts: feature per row -> (n, *shape).
        observed: (N,) bool, False at missing steps; None where every step is observed.
        keys: (n,) uint64 row keys; None outside of a build.
        elements: sequence feature with an element mask -> (N, *shape) bool, False at missing
            elements, those of missing steps among them. A feature that is not named has all
            elements of its observed steps.
    """

    lengths: np.ndarray
    values: Mapping[str, np.ndarray]
    contexts: Mapping[str, np.ndarray]
    observed: np.ndarray | None = None
    keys: np.ndarray | None = None
    elements: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    def observed_of(self, name: str) -> np.ndarray | None:
        """What was observed of a sequence feature: elements (N, *shape), steps (N,), or all."""
        return self.elements.get(name, self.observed)

    def elements_of(self, name: str) -> np.ndarray:
        """(N, *shape) bool, the observed elements of a sequence feature."""
        observed, shape = self.observed_of(name), self.values[name].shape
        if observed is None:
            return np.broadcast_to(np.True_, shape)
        return np.broadcast_to(
            observed.reshape(observed.shape + (1,) * (len(shape) - observed.ndim)), shape
        )

    @property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64: the steps of row i are `offsets[i]:offsets[i + 1]`."""
        return np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))

    def select(self, rows: np.ndarray) -> RaggedRows:
        """The rows at these positions, (m,) integers, in that order."""
        steps = span_index(self.offsets[:-1][rows], self.lengths[rows])
        return self._gathered(rows, self.lengths[rows], steps)

    def truncated(self, max_length: int, *, keep_end: bool = False) -> RaggedRows:
        """The rows cut to at most `max_length` steps, at their end or (`keep_end`) their start."""
        lengths = np.minimum(self.lengths, max_length)
        starts = self.offsets[1:] - lengths if keep_end else self.offsets[:-1]
        return self._gathered(slice(None), lengths, span_index(starts, lengths))

    def pieces(self, max_length: int, overlap: int = 0) -> tuple[RaggedRows, np.ndarray]:
        """The rows cut into pieces of at most `max_length` steps.

        Args:
            max_length: steps of a piece.
            overlap: steps that a piece shares with the one before; below `max_length`.

        Returns:
            The pieces in order, and the row that each comes from, (m,) int64.

        Example:
            >>> rows = RaggedRows(np.array([5, 1]), {"x": np.arange(6)}, {})
            >>> pieces, row = rows.pieces(3, overlap=1)
            >>> pieces.lengths, pieces.values["x"], row
            (array([3, 3, 1]), array([0, 1, 2, 2, 3, 4, 5]), array([0, 0, 1]))
        """
        stride = max_length - overlap
        counts = np.where(self.lengths > max_length, -(-(self.lengths - overlap) // stride), 1)
        row = np.repeat(np.arange(len(self)), counts)
        piece = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = self.offsets[:-1][row] + piece * stride
        lengths = np.minimum(max_length, self.offsets[1:][row] - starts)
        cut = self._gathered(row, lengths, span_index(starts, lengths))
        return replace(cut, keys=None if cut.keys is None else piece_keys(cut.keys, piece)), row

    def _gathered(
        self, rows: np.ndarray | slice, lengths: np.ndarray, steps: np.ndarray
    ) -> RaggedRows:
        return replace(
            self,
            lengths=lengths,
            values={name: flat[steps] for name, flat in self.values.items()},
            contexts={name: values[rows] for name, values in self.contexts.items()},
            observed=None if self.observed is None else self.observed[steps],
            elements={name: flat[steps] for name, flat in self.elements.items()},
            keys=None if self.keys is None else self.keys[rows],
        )


def storage_dtypes(schema: Schema, inputs: Iterable[pa.Schema]) -> dict[str, str]:
    """The numpy dtype that holds each feature between input and record.

    Floats are float32; integers keep the smallest type that holds those of all inputs, so that
    token ids of 32 bits are not moved around as 64.

    Args:
        schema: the features.
        inputs: Arrow schemas of the inputs.
    """
    sources: dict[str, list[np.dtype]] = {name: [] for name in schema.names}
    for columns in inputs:
        for name in schema.names:
            sources[name].append(_leaf_dtype(columns.field(name).type))
    storage = {}
    for feature in schema.features:
        if feature.encoding != NUMBERS:
            storage[feature.name] = "int32"
        elif feature.dtype == "float32":
            storage[feature.name] = "float32"
        else:
            storage[feature.name] = np.result_type(np.int8, *sources[feature.name]).name
    return storage


def ragged_rows(
    batch: pa.RecordBatch | pa.Table,
    schema: Schema,
    *,
    storage: Mapping[str, str] | None = None,
    keys: np.ndarray | None = None,
    nan: str = "missing",
) -> tuple[RaggedRows, np.ndarray]:
    """Takes the rows out of Arrow columns, and finds those that cannot be used.

    A null step, or one with a null or NaN element, is missing: its row keeps it, `observed` is
    False there and the value is 0. With an element mask such an element is missing by itself, and
    a step is missing where it is null or none of its elements is observed.

    Args:
        batch: columns as named in the schema; others are ignored.
        schema: the features.
        storage: feature -> numpy dtype, from `storage_dtypes`; None takes those of the batch.
        keys: (n,) uint64, a key for each row of the batch.
        nan: a NaN is `missing`, `keep` keeps it as observed, `error` is a fault.

    Returns:
        The usable rows in order, and the fault of every row of the batch: (n,) uint8, positions
        in `dataset.reasons.REASONS`, 0 where the row is usable.

    Raises:
        SchemaError: a column is missing or of another type than the schema says.

    Example:
        >>> batch = pa.table({"tokens": [[1, 2], None, [3]]})
        >>> schema = Schema.from_arrow(batch.schema)
        >>> rows, faults = ragged_rows(batch, schema)
        >>> rows.values["tokens"], [REASONS[fault] for fault in faults]
        (array([1, 2, 3]), ['', 'null sequence', ''])
    """
    for feature in schema.features:
        _check_column(batch.schema, feature)
    # Columns that are not asked for may be too large to be one batch.
    batch = single_batch(batch.select(list(schema.names)))
    if storage is None:
        storage = storage_dtypes(schema, [batch.schema])
    faults = _null_faults(batch, schema)
    if faults.any():
        good = np.flatnonzero(faults == 0)
        batch = batch.take(pa.array(good))
        keys = None if keys is None else keys[good]
    rows, value_faults = _values_of(batch, schema, storage, keys, nan)
    if value_faults.any():
        faults[np.flatnonzero(faults == 0)] = value_faults
        rows = rows.select(np.flatnonzero(value_faults == 0))
    return rows, faults


def usable_rows(batch: pa.RecordBatch | pa.Table, schema: Schema) -> RaggedRows:
    """The rows of Arrow columns, all of which must be usable.

    Raises:
        InputError: names the first row that is not.
    """
    rows, faults = ragged_rows(batch, schema)
    if faults.any():
        row = int(np.flatnonzero(faults)[0])
        raise InputError(f"row {row} of a batch: {REASONS[faults[row]]}; filter such rows out")
    return rows


def single_batch(table: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    """A table as one record batch.

    Raises:
        InputError: a column is too large for that.
    """
    if isinstance(table, pa.RecordBatch):
        return table
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise InputError(
            f"a table of {table.num_rows} rows does not fit into one batch: give its batches one "
            "by one"
        )
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _leaf_dtype(type_: pa.DataType) -> np.dtype:
    _, _, leaf = shape_of(type_)
    if not pa.types.is_integer(leaf):
        return np.dtype(np.int8)  # a bool, or a float, which is stored as float32 anyway
    # No signed type of numpy holds a uint64; larger values are rejected row by row.
    return np.dtype(np.int64 if leaf == pa.uint64() else str(leaf))


def _null_faults(batch: pa.RecordBatch, schema: Schema) -> np.ndarray:
    """(n,) uint8: faults that can be seen without looking at the steps.

    A null sequence has no steps. Beside one that has steps, it is one of another length.
    """
    faults = np.zeros(batch.num_rows, np.uint8)
    lengths = None
    unequal = np.zeros(batch.num_rows, np.bool_)
    for feature in schema.sequences:
        column = batch.column(feature.name)
        own = np.diff(column.offsets.to_numpy())
        if column.null_count:
            null = column.is_null().to_numpy(zero_copy_only=False)
            # What a null list spans in Arrow's buffers is nobody's.
            own = np.where(null, 0, own)
            faults[null] = NULL_SEQUENCE
        lengths = own if lengths is None else lengths
        unequal |= own != lengths
    faults[unequal] = UNEQUAL_LENGTHS
    for feature in schema.contexts:
        _, missing = leaf_values(batch.column(feature.name), feature.size)
        if missing is not None:
            faults[missing.any(axis=1)] = NULL_CONTEXT
    return faults


def _check_column(columns: pa.Schema, feature: Feature) -> None:
    if columns.names.count(feature.name) != 1:
        found = "more than one" if feature.name in columns.names else "no"
        raise SchemaError(f"{found} column '{feature.name}' in the input")
    _check_type(columns.field(feature.name).type, feature)


# Batches of a file are all of the same types.
@lru_cache
def _check_type(type_: pa.DataType, feature: Feature) -> None:
    found = feature_from_arrow(pa.field(feature.name, type_), label=feature.label, place="input")
    if found != replace(feature, element_mask=False):
        raise SchemaError(f"column '{feature.name}' is {type_}, the plan says {feature.describe()}")


def _values_of(
    batch: pa.RecordBatch,
    schema: Schema,
    storage: Mapping[str, str],
    keys: np.ndarray | None,
    nan: str,
) -> tuple[RaggedRows, np.ndarray]:
    faults = np.zeros(batch.num_rows, np.uint8)
    lengths = np.zeros(batch.num_rows, np.int64)
    values, contexts = {}, {}
    observed: np.ndarray | None = None
    elements: dict[str, np.ndarray] = {}
    row_of_step = None
    for feature in schema.features:
        column = batch.column(feature.name)
        if not feature.sequence:
            flat, _, bad = _numbers(column, feature, storage[feature.name], missing_is_bad=True)
            contexts[feature.name] = flat
            for fault, rows in bad.items():
                faults[rows] = fault
            continue
        offsets = column.offsets.to_numpy().astype(np.int64)
        lengths = np.diff(offsets)
        steps = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        flat, seen, bad = _numbers(steps, feature, storage[feature.name], nan=nan)
        values[feature.name] = flat
        if seen is not None and feature.element_mask:
            elements[feature.name] = seen
            seen = np.any(seen.reshape(len(seen), -1), axis=1, keepdims=True)[:, 0]
        if seen is not None and not seen.all():
            observed = seen if observed is None else np.asarray(observed & seen)
        for fault, bad_steps in bad.items():
            if row_of_step is None:
                row_of_step = np.repeat(np.arange(len(lengths)), lengths)
            faults[row_of_step[bad_steps]] = fault
    # Any feature's missing step is missing for all: the mask of a row is one.
    if observed is not None:
        for seen in elements.values():
            seen[~observed] = False
    for name, flat in values.items():
        seen = elements.get(name, observed)
        if seen is not None:
            values[name] = flat = flat.copy()
            flat[~seen] = 0
    return RaggedRows(lengths, values, contexts, observed, keys, elements), faults


def _numbers(
    steps: pa.Array,
    feature: Feature,
    dtype: str,
    *,
    nan: str = "missing",
    missing_is_bad: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, dict[int, np.ndarray]]:
    """Values (n, *shape), what was observed of them, and fault -> positions (m,).

    What was observed is None for all, (n,) bool steps, or (n, *shape) with an element mask.
    """
    n = len(steps)
    leaf, missing = leaf_values(steps, feature.size)
    if leaf.null_count:
        leaf = leaf.fill_null(False if pa.types.is_boolean(leaf.type) else 0)
    source = leaf.to_numpy(zero_copy_only=False)
    bad: dict[int, np.ndarray] = {}
    if dtype == "float32":
        with np.errstate(over="ignore"):
            flat = np.asarray(source, np.float32)
        # The least and the greatest value tell at once whether any is NaN or infinite.
        if flat.size and not (np.isfinite(flat.min()) and np.isfinite(flat.max())):
            by_step = flat.reshape(n, feature.size)
            not_a_number = np.isnan(by_step)
            if nan == "error" and not_a_number.any():
                bad[NOT_A_NUMBER] = np.flatnonzero(not_a_number.any(axis=1))
            elif nan != "keep":
                missing = not_a_number if missing is None else missing | not_a_number
            missing = _of_steps(missing, feature)
            infinite = np.isinf(by_step)
            infinite &= True if missing is None else ~missing
            if infinite.any():
                bad[INFINITE] = np.flatnonzero(infinite.any(axis=1))
    else:
        flat = source.astype(dtype, copy=False)
        if source.dtype == np.uint64 and (source > np.uint64(2**63 - 1)).any():
            missing = _of_steps(missing, feature)
            large = (source > np.uint64(2**63 - 1)).reshape(n, feature.size)
            large &= True if missing is None else ~missing
            bad[OUT_OF_RANGE] = np.flatnonzero(large.any(axis=1))
    if missing is not None and missing_is_bad and missing.any():
        bad[NULL_CONTEXT] = np.flatnonzero(missing.any(axis=1))
    if missing is None or not missing.any():
        return flat.reshape(n, *feature.shape), None, bad
    if feature.element_mask:
        observed = np.logical_not(missing).reshape(n, *feature.shape)
    else:
        observed = np.logical_not(missing.any(axis=1))
    return flat.reshape(n, *feature.shape), observed, bad


def _of_steps(missing: np.ndarray | None, feature: Feature) -> np.ndarray | None:
    """Missing elements (n, size), or missing steps (n, 1) where elements have no mask."""
    if missing is None or feature.element_mask:
        return missing
    return np.any(missing, axis=1, keepdims=True)
