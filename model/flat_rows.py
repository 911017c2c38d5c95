"""Rows as a caller has them, Arrow or dicts, as the flat arrays that a serving graph takes."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lengthwise.dataset import Feature, InputError, SchemaError
from lengthwise.dataset.nested import leaf_values
from lengthwise.dataset.reasons import NULL_CONTEXT, NULL_SEQUENCE, UNEQUAL_LENGTHS
from lengthwise.dataset.schema import NUMBERS, feature_from_arrow


@dataclass(frozen=True)
class FlatRows:
    """Rows in flat form.

    Attributes:
        lengths: (n,) int64, steps of each row.
        steps: sequence -> (N, *shape), N the sum of lengths.
        contexts: feature per row -> (n, *shape).
        words: feature of strings -> its different strings; its values are positions in them.
        observed: (N,) bool, False at steps that are null. A NaN is not looked at here.
        elements: sequence with a mask of elements -> (N, *shape) bool, False at those that are
            null, instead of `observed`.
    """

    lengths: np.ndarray
    steps: Mapping[str, np.ndarray]
    contexts: Mapping[str, np.ndarray]
    words: Mapping[str, np.ndarray]
    observed: np.ndarray
    elements: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, rows: np.ndarray) -> FlatRows:
        """The rows at these positions, (m,) integers, in that order."""
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        steps = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
        return FlatRows(
            lengths,
            {name: flat[steps] for name, flat in self.steps.items()},
            {name: values[rows] for name, values in self.contexts.items()},
            self.words,
            self.observed[steps],
            {name: flat[steps] for name, flat in self.elements.items()},
        )


def as_table(rows: Any, inputs: Sequence[Feature]) -> pa.Table:
    """The columns of features, checked.

    Args:
        rows: `pa.Table` or `pa.RecordBatch` with any other columns beside them; or a sequence of
            dicts, in which a feature that is missing or None is null.
        inputs: the features.

    Raises:
        SchemaError: a column is missing, or of another type than the feature.
        InputError: `rows` is none of these.

    Example:
        >>> as_table([{"x": [1, 2]}, {"x": None}], [Feature("x", "float32")])["x"].to_pylist()
        [[1.0, 2.0], None]
    """
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if not isinstance(rows, pa.Table):
        rows = _table_of_dicts(rows, inputs)
    for feature in inputs:
        if rows.column_names.count(feature.name) != 1:
            found = "more than one" if feature.name in rows.column_names else "no"
            raise SchemaError(
                f"{found} column '{feature.name}' in the rows; the model takes "
                f"{', '.join(feature.describe() for feature in inputs)}"
            )
        type_ = rows.schema.field(feature.name).type
        try:
            found = feature_from_arrow(pa.field(feature.name, type_), label=False, place="rows")
        except SchemaError:
            found = None
        if found != feature:
            raise SchemaError(
                f"column '{feature.name}' of the rows is {type_}, the model takes "
                f"{feature.describe()}"
            )
    return rows.select([feature.name for feature in inputs])


def flat_rows(
    batch: pa.RecordBatch, inputs: Sequence[Feature], element_masked: Container[str] = ()
) -> tuple[FlatRows, np.ndarray]:
    """Takes rows out of Arrow columns.

    Args:
        batch: the columns, as `as_table` checked them.
        inputs: the features.
        element_masked: names of those whose elements can be missing by themselves.

    Returns:
        The rows without faults that show in Arrow alone, in order; and the fault of every row of
        the batch, (n,) int32, positions in `REASONS`.

    Raises:
        SchemaError: an integer does not fit into 64 bits with a sign.

    Example:
        >>> batch = pa.record_batch({"x": [[1.0, None], None, [3.0]]})
        >>> rows, faults = flat_rows(batch, [Feature("x", "float32")])
        >>> rows.lengths, rows.steps["x"], rows.observed
        (array([2, 1]), array([1., 0., 3.], dtype=float32), array([ True, False,  True]))
        >>> faults
        array([0, 1, 0], dtype=int32)
    """
    faults = _null_faults(batch, inputs)
    if faults.any():
        batch = batch.take(pa.array(np.flatnonzero(faults == 0)))
    lengths = np.zeros(batch.num_rows, np.int64)
    observed = np.ones(0, np.bool_)
    steps, contexts, words, elements = {}, {}, {}, {}
    for feature in inputs:
        column = batch.column(feature.name)
        if feature.sequence:
            offsets = column.offsets.to_numpy().astype(np.int64)
            lengths = np.diff(offsets)
            column = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        leaf, missing = leaf_values(column, feature.size)
        values = _numbers(leaf, feature, words).reshape(len(column), *feature.shape)
        if not feature.sequence:
            contexts[feature.name] = values
            continue
        if not steps:
            observed = np.ones(len(column), np.bool_)
        steps[feature.name] = values
        if feature.name in element_masked:
            missing = np.zeros(values.shape) if missing is None else missing
            elements[feature.name] = ~missing.reshape(values.shape).astype(np.bool_)
        elif missing is not None:
            observed &= ~missing.any(axis=1)
    return FlatRows(lengths, steps, contexts, words, observed, elements), faults


def _table_of_dicts(rows: Any, inputs: Sequence[Feature]) -> pa.Table:
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise InputError(
            f"rows must be an Arrow table or record batch, or a list of dicts, not "
            f"{type(rows).__name__}"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number} must be a dict, not {type(row).__name__}")
    columns = {}
    for feature in inputs:
        if rows and not any(feature.name in row for row in rows):
            raise SchemaError(
                f"no '{feature.name}' in the rows; the model takes "
                f"{', '.join(feature.describe() for feature in inputs)}"
            )
        values = [_plain(row.get(feature.name)) for row in rows]
        columns[feature.name] = _column(values, feature)
    return pa.table(columns)


def _plain(value: Any) -> Any:
    # Arrow takes arrays of one axis only.
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _column(values: list[Any], feature: Feature) -> pa.Array:
    try:
        return _array(values, feature)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    for number, value in enumerate(values):
        try:
            _array([value], feature)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as reason:
            cause = " ".join(str(reason).split())[:200]
            raise SchemaError(
                f"row {number}: '{feature.name}' is not {feature.describe()}: {cause}"
            ) from None
    raise SchemaError(f"'{feature.name}' has too many values for one call; give fewer rows")


def _array(values: list[Any], feature: Feature) -> pa.Array:
    if feature.dtype == "int64" and feature.encoding == NUMBERS:
        # Given the type, Arrow would cut the fraction off without a word.
        inferred = pa.array(values)
        leaf = inferred.type
        while isinstance(leaf, (pa.ListType, pa.FixedSizeListType)):
            leaf = leaf.value_type
        if pa.types.is_boolean(leaf):
            return inferred.cast(_arrow_type(feature))
        if not (pa.types.is_integer(leaf) or pa.types.is_null(leaf)):
            raise TypeError(f"{leaf} where integers are needed")
    return pa.array(values, _arrow_type(feature))


def _arrow_type(feature: Feature) -> pa.DataType:
    if feature.encoding != NUMBERS:
        type_: pa.DataType = pa.string()
    else:
        type_ = pa.float64() if feature.dtype == "float32" else pa.int64()
    for size in reversed(feature.shape):
        type_ = pa.list_(type_, size)
    return pa.list_(type_) if feature.sequence else type_


def _null_faults(batch: pa.RecordBatch, inputs: Sequence[Feature]) -> np.ndarray:
    faults = np.zeros(batch.num_rows, np.int32)
    lengths = None
    for feature in inputs:
        column = batch.column(feature.name)
        if not feature.sequence:
            _, null = leaf_values(column, feature.size)
            if null is not None:
                faults[null.any(axis=1)] = NULL_CONTEXT
            continue
        if column.null_count:
            faults[column.is_null().to_numpy(zero_copy_only=False)] = NULL_SEQUENCE
        own = np.diff(column.offsets.to_numpy())
        if lengths is None:
            lengths = own
        else:
            faults[(own != lengths) & (faults == 0)] = UNEQUAL_LENGTHS
    return faults


def _numbers(leaf: Any, feature: Feature, words: dict[str, np.ndarray]) -> np.ndarray:
    """The values as numpy, something at nulls; of strings their positions in `words`."""
    if feature.encoding != NUMBERS:
        if not pa.types.is_dictionary(leaf.type):
            leaf = leaf.dictionary_encode()
        words[feature.name] = leaf.dictionary.to_numpy(zero_copy_only=False)
        return leaf.indices.fill_null(0).to_numpy().astype(np.int64)
    if pa.types.is_dictionary(leaf.type):
        leaf = leaf.dictionary_decode()
    if leaf.null_count:
        leaf = leaf.fill_null(False if pa.types.is_boolean(leaf.type) else 0)
    if feature.dtype == "float32":
        with np.errstate(over="ignore"):
            return np.asarray(leaf.to_numpy(zero_copy_only=False), np.float32)
    try:
        return leaf.cast(pa.int64()).to_numpy()
    except pa.ArrowException as reason:
        cause = " ".join(str(reason).split())[:200]
        raise SchemaError(f"column '{feature.name}' of the rows: {cause}") from None
