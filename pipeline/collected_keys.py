"""The keys of a collection's rows: numbers that stand for them, and that none comes twice.

An integer is its own number, a text has the number of its hash. Each unit leaves its row keys in
ascending order, with the values they come from. Row keys are spread evenly over 64 bits, so all
units are compared range by range, in bounded memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, SchemaError
from lengthwise.dataset.local_files import mapped
from lengthwise.dataset.storage import StoragePath, written_whole
from lengthwise.pipeline.ingest import IngestJob
from lengthwise.pipeline.rejected import Named
from lengthwise.pipeline.sources.fitting import plain_columns
from lengthwise.pipeline.staging import unit_rows_path
from lengthwise.transforms.row_keys import numbered_keys, text_numbers

PLACE = "the collection"
# Keys that are compared at once.
_COMPARED_KEYS = 1 << 22


class UnitKeys:
    """The keys of a unit: row keys, ascending, and the values that they come from."""

    def __init__(self, job: IngestJob, key: str) -> None:
        self.name = key
        self._job = job
        self._numbers: list[np.ndarray] = []
        self._values: list[pa.Array] = []

    def add(self, rows: pa.RecordBatch) -> np.ndarray:
        """Takes the keys of more rows; returns their numbers, (n,) int64.

        Raises:
            InputError: a key is null.
        """
        values = rows.column(self.name)
        if values.null_count:
            raise InputError(
                f"{PLACE}: a null stands in '{self.name}', the key of the rows; give each row a key"
            )
        if pa.types.is_integer(values.type):
            numbers = values.to_numpy().astype(np.int64)
        else:
            numbers = text_numbers(values)
            values = values.cast(pa.large_binary())
        self._numbers.append(numbers)
        self._values.append(values)
        return numbers

    def write(self, number: int) -> None:
        """Leaves the keys in the staging folder."""
        if not self._numbers:
            return
        keys = numbered_keys(self._job.options.seed, self.name, np.concatenate(self._numbers))
        order = np.argsort(keys)
        values = pa.concat_arrays(self._values).take(pa.array(order))
        table = pa.table({"key": keys[order], "value": values})
        with written_whole(_keys_path(self._job, number)) as unfinished:
            with pa.ipc.new_file(str(unfinished), table.schema) as writer:
                writer.write_table(table)


def check_key(columns: pa.Schema, key: str) -> None:
    """Raises SchemaError unless a column can tell rows apart."""
    if columns.names.count(key) != 1:
        raise SchemaError(
            f"{PLACE}: no column '{key}' to tell rows apart; columns are: "
            f"{', '.join(columns.names)}"
        )
    type_ = plain_columns(columns, {}).field(key).type
    of_text = (pa.types.is_string, pa.types.is_large_string)
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if not any(is_(type_) for is_ in (pa.types.is_integer, *of_text, *of_bytes)):
        raise SchemaError(
            f"{PLACE}: column '{key}' is {type_}; a key is an integer, a string or bytes"
        )


def _keys_path(job: IngestJob, number: int) -> StoragePath:
    path = unit_rows_path(job.staging, number)
    return path.with_name(path.name.replace(".arrow", ".keys.arrow"))


def _keys_of(job: IngestJob, number: int) -> pa.Table:
    """Keys of a unit, mapped."""
    return pa.ipc.open_file(mapped(_keys_path(job, number))).read_all()


def _shown(value: Any) -> str:
    return repr(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value)


def named_by(job: IngestJob, key: str) -> Named:
    """What names rows by their keys, as if each were a file of one row."""

    def named(unit: int, numbers: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        wanted = numbered_keys(job.options.seed, key, numbers)
        table = _keys_of(job, unit)
        at = np.searchsorted(table["key"].chunk(0).to_numpy(), wanted)
        values = table["value"].take(pa.array(at)).to_pylist()
        return pa.array([f"{key}={_shown(value)}" for value in values]), np.zeros_like(numbers)

    return named


def require_distinct(job: IngestJob, key: str, units: int) -> None:
    """Compares the keys of all units, range by range.

    Raises:
        InputError: a key comes twice.
    """
    tables = [_keys_of(job, number) for number in range(units)]
    keys = [table["key"].combine_chunks().to_numpy() for table in tables]
    ranges = -(-sum(map(len, keys)) // _COMPARED_KEYS)
    # Row keys are spread evenly, so that equal ranges have about equally many.
    for first in range(ranges):
        low = np.uint64((first << 64) // ranges)
        high = np.uint64(((first + 1 << 64) // ranges) - 1)
        pieces = [
            (np.searchsorted(own, low), np.searchsorted(own, high, side="right")) for own in keys
        ]
        found = np.concatenate(
            [own[start:stop] for own, (start, stop) in zip(keys, pieces, strict=True)]
        )
        found.sort()
        again = found[1:][found[1:] == found[:-1]]
        if len(again):
            raise InputError(_twice(tables, keys, again, key))


def _twice(tables: list[pa.Table], keys: list[np.ndarray], again: np.ndarray, key: str) -> str:
    values = set()
    for table, own in zip(tables, keys, strict=True):
        at = np.flatnonzero(own == again[0])
        values |= {_shown(value) for value in table["value"].take(pa.array(at)).to_pylist()}
    if len(values) > 1:
        return (
            f"{PLACE}: {' and '.join(sorted(values))} in '{key}' have the same hash; "
            "change one, or take another column as key"
        )
    rows = f"{len(again)} rows have" if len(again) > 1 else "a row has"
    return (
        f"{PLACE}: {rows} a key in '{key}' that another row has too, first {values.pop()}; keys "
        "must differ, or the order of rows would depend on the runner"
    )
