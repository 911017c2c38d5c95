"""Features of strings: codes while a unit is read, a vocabulary once all are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.plan import Plan
from lengthwise.dataset.schema import CLASSES, Feature, Schema
from lengthwise.dataset.storage import written_whole
from lengthwise.pipeline.staging import unit_strings_path
from lengthwise.transforms.packing import map_values
from lengthwise.transforms.ragged import RaggedRows
from lengthwise.transforms.vocabulary import (
    StringCounter,
    choose_vocabulary,
    classes_of,
    id_table,
)

if TYPE_CHECKING:
    from lengthwise.pipeline.ingest import IngestJob

# Unit files that are merged at once.
_MERGED_UNITS = 64


class UnitStrings:
    """The strings of one unit of the input.

    Args:
        job: schema, splits and staging folder.
    """

    def __init__(self, job: IngestJob) -> None:
        self._job = job
        self._counters = {feature.name: StringCounter() for feature in job.schema.strings}

    def as_codes(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with every column of strings replaced by one of codes, (int32)."""
        for name, counter in self._counters.items():
            at = batch.schema.get_field_index(name)
            column = _with_leaf(batch.column(at), counter)
            batch = batch.set_column(at, name, column)
        return batch

    def count(self, rows: RaggedRows, training: np.ndarray) -> None:
        """Counts the observed strings of rows that are passed on.

        Tokens are counted in rows of the training split alone, (n,) bool: what a model has never
        seen in training must be unknown to it. Classes are counted everywhere.
        """
        for name, counter in self._counters.items():
            feature = self._job.schema[name]
            counted = training if feature.encoding != CLASSES else np.ones(len(rows), np.bool_)
            if feature.sequence:
                steps = np.repeat(counted, rows.lengths)
                observed, values = rows.elements_of(name)[steps], rows.values[name][steps]
                counter.count(values[observed])
            else:
                counter.count(rows.contexts[name][counted].reshape(-1))

    def write(self, number: int) -> None:
        """Leaves strings and counts in the staging folder."""
        for name, counter in self._counters.items():
            table = pa.table({"string": counter.strings, "count": pa.array(counter.counts)})
            path = unit_strings_path(self._job.staging, number, name)
            with written_whole(path) as file, pa.ipc.new_file(str(file), table.schema) as writer:
                writer.write_table(table)


def vocabularies_of(
    job: IngestJob,
    units: int,
    *,
    given: Mapping[str, Sequence[str]],
    size: int | None,
    min_count: int,
) -> tuple[dict[str, tuple[str, ...]], dict[str, dict[int, int]]]:
    """The vocabularies of all features of strings, and how often each class came.

    Args:
        job: schema and staging folder.
        units: how many there are.
        given: vocabularies that are not to be counted.
        size: ids of a vocabulary of tokens at most.
        min_count: rarer tokens are left out.

    Raises:
        PlanError: a row has a class that its given vocabulary does not.
    """
    vocabularies, class_counts = {}, {}
    for feature in job.schema.strings:
        merged = _merged(job.staging, units, feature.name)
        counts = merged["count"].to_numpy()
        strings = merged["string"].combine_chunks()
        if feature.name in given:
            vocabulary = tuple(given[feature.name])
        elif feature.encoding == CLASSES:
            vocabulary = classes_of(strings.filter(pa.array(counts > 0)))
        else:
            vocabulary = choose_vocabulary(strings, counts, size=size, min_count=min_count)
        vocabularies[feature.name] = vocabulary
        if feature.encoding == CLASSES:
            found = zip(strings.to_pylist(), counts.tolist(), strict=True)
            class_counts[feature.name] = _by_id(feature, vocabulary, dict(found))
    return vocabularies, class_counts


def _by_id(
    feature: Feature, vocabulary: Sequence[str], counts: Mapping[str, int]
) -> dict[int, int]:
    """Class id -> how often it came; classes that no row has which is passed on do not count."""
    ids = {string: number for number, string in enumerate(vocabulary)}
    by_id = {}
    for string in sorted(string for string, count in counts.items() if count):
        if string not in ids:
            raise PlanError(
                f"feature '{feature.name}': the class {string!r} is not in its vocabulary; add it, "
                "or plan again"
            )
        by_id[ids[string]] = counts[string]
    return by_id


def id_tables(number: int, plan: Plan, staging: str) -> dict[str, np.ndarray]:
    """For each feature of strings, the id of each code of a unit, (m,) int32."""
    return {
        feature.name: id_table(
            _read_strings(staging, number, feature.name)["string"],
            plan.vocabularies[feature.name],
            feature.encoding,
        )
        for feature in plan.schema.strings
    }


def with_ids(
    packed: pa.RecordBatch, schema: Schema, tables: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
    """Packed rows of a unit with the codes of their strings replaced by ids, (int32)."""
    for feature in schema.strings:
        packed = map_values(packed, feature, tables[feature.name])
    return packed


def _read_strings(staging: str, number: int, name: str) -> pa.Table:
    data = unit_strings_path(staging, number, name).read_bytes()
    return pa.ipc.open_file(data).read_all().combine_chunks()


def _merged(staging: str, units: int, name: str) -> pa.Table:
    """Strings and counts of all units, each string once."""
    merged = pa.table(
        {"string": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())}
    )
    for first in range(0, units, _MERGED_UNITS):
        numbers = range(first, min(units, first + _MERGED_UNITS))
        tables = [merged, *(_read_strings(staging, number, name) for number in numbers)]
        grouped = pa.concat_tables(tables).group_by("string").aggregate([("count", "sum")])
        merged = pa.table({"string": grouped["string"], "count": grouped["count_sum"]})
    return merged


def _with_leaf(column: pa.Array, counter: StringCounter) -> pa.Array:
    """The column with its strings replaced by codes, whatever lists are around them."""
    type_ = column.type
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        offsets = column.offsets
        first, last = offsets[0].as_py(), offsets[-1].as_py()
        values = _with_leaf(column.values.slice(first, last - first), counter)
        make = pa.LargeListArray if pa.types.is_large_list(type_) else pa.ListArray
        shifted = pc.subtract(offsets, offsets[0])
        mask = column.is_null() if column.null_count else None
        return make.from_arrays(shifted, values, mask=mask)
    if pa.types.is_fixed_size_list(type_):
        size = type_.list_size
        values = _with_leaf(column.values.slice(column.offset * size, len(column) * size), counter)
        mask = column.is_null() if column.null_count else None
        return pa.FixedSizeListArray.from_arrays(values, size, mask=mask)
    codes = counter.codes_of(column)
    mask = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return pa.array(codes, mask=mask)
