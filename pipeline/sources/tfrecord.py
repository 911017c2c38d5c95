"""TFRecord files of `tf.train.Example` or `SequenceExample`: a unit is a run of records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.reading import SourceOptions
from lengthwise.pipeline.sources.columns import wider_type
from lengthwise.pipeline.sources.example_message import (
    BYTES,
    FLOAT,
    INT64,
    ExampleValue,
    FeatureValue,
    parse_example,
)
from lengthwise.pipeline.sources.examples import read_examples
from lengthwise.pipeline.sources.fitting import fit_rows, with_shape
from lengthwise.pipeline.sources.frames import RecordBlock, read_records, scan_records
from lengthwise.pipeline.sources.source import (
    COLUMNS,
    ROLES,
    TYPES,
    BrokenRow,
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
)

_BLOCK_BYTES = 4 << 20
# One by one they are read slowly: a few hundred records say enough.
_INFERRED_BYTES = 1 << 17


def open_tfrecord(file: InputFile, options: SourceOptions) -> SourceFile:
    """Counts the records, and infers the columns from the first of them.

    Raises:
        InputError: the file cannot be read, or is no TFRecord file.
    """
    units, identity = scan_records(file, options)
    examples = list(_first_examples(units, options))
    if any(unit.rows != 0 for unit in units) and not examples:
        raise InputError(f"{file.path}: the first records are no tf.train.Example")
    columns = _infer_columns(examples, options)
    return SourceFile(
        file,
        "tfrecord",
        columns,
        units,
        identity,
        leaves_open=frozenset({TYPES, ROLES, COLUMNS}),
    )


def read_tfrecord(
    unit: Unit, columns: pa.Schema, options: SourceOptions, batch_rows: int | None
) -> Iterator[SourceBatch]:
    """Reads the records of a unit.

    Args:
        unit: which records.
        columns: names and types; a record whose values are of others is broken.
        options: how to read.
        batch_rows: rows of a batch at most; None takes blocks of about four MiB.

    Raises:
        InputError: the file cannot be read, or the length of a record is damaged.
    """
    for block in read_records(unit, options, _BLOCK_BYTES):
        yield from _batch(block, columns, options).pieces(batch_rows)


def _batch(block: RecordBlock, columns: pa.Schema, options: SourceOptions) -> SourceBatch:
    read = read_examples(block.data, block.records, columns)
    numbers = block.numbers
    rows = pa.RecordBatch.from_arrays(read.arrays, names=columns.names)
    broken = [*block.broken]
    if read.faults:
        whole = np.ones(len(numbers), np.bool_)
        whole[list(read.faults)] = False
        good = np.flatnonzero(whole)
        broken += [BrokenRow(int(numbers[row]), fault) for row, fault in read.faults.items()]
        rows, numbers = rows.take(pa.array(good)), numbers[good]
    first = int(numbers[0]) if len(numbers) else 0
    return fit_rows(rows, first, numbers, columns, options, broken=broken)


def _first_examples(units: Sequence[Unit], options: SourceOptions) -> Iterator[ExampleValue]:
    """Those of the first records of a file that can be parsed, however it is cut."""
    left = _INFERRED_BYTES
    for unit in units:
        for block in read_records(unit, options, _INFERRED_BYTES):
            bounds = zip(block.records.starts.tolist(), block.records.stops.tolist(), strict=True)
            for start, stop in bounds:
                try:
                    yield parse_example(block.data[start:stop].tobytes())
                except ValueError:
                    continue
                left -= stop - start
                if left <= 0:
                    return


def _infer_columns(examples: Sequence[ExampleValue], options: SourceOptions) -> pa.Schema:
    features: dict[bytes, list[FeatureValue]] = {}
    lists: dict[bytes, list[FeatureValue]] = {}
    for example in examples:
        for key, feature in example.features.items():
            features.setdefault(key, []).append(feature)
        for key, steps in example.lists.items():
            lists.setdefault(key, []).extend(steps)
    columns = {
        _name(key): _feature_type(_name(key), found, options, steps_elsewhere=bool(lists))
        for key, found in features.items()
    }
    for key, steps in lists.items():
        name = _name(key)
        size = next((len(step) for step in steps if len(step)), 1)
        shape = options.shapes.get(name, () if size == 1 else (size,))
        columns[name] = pa.list_(with_shape(_leaf_of(steps), shape))
    return pa.schema(sorted(columns.items()))


def _feature_type(
    name: str, features: Sequence[FeatureValue], options: SourceOptions, *, steps_elsewhere: bool
) -> pa.DataType:
    leaf = _leaf_of(features)
    counts = {len(feature) for feature in features}
    context = name in options.contexts or counts <= {1} or steps_elsewhere
    if options.sequences and name in options.shapes:
        # All others are named: this is a label, and as a rule a vector and not one step.
        context = context or counts <= {0, math.prod(options.shapes[name])}
    if name in options.sequences or not context:
        return pa.list_(with_shape(leaf, options.shapes.get(name, ())))
    if name in options.shapes:
        return with_shape(leaf, options.shapes[name])
    size = max(counts)
    if counts - {0} <= {1}:
        return leaf
    return with_shape(leaf, (size,)) if counts <= {0, size} else pa.list_(leaf)


def _leaf_of(features: Sequence[FeatureValue]) -> pa.DataType:
    leaf: pa.DataType = pa.null()
    for kind in sorted({feature.kind for feature in features}):
        found = {BYTES: pa.string(), FLOAT: pa.float32(), INT64: pa.int64()}.get(kind, pa.null())
        if kind == BYTES and not _all_utf8(features):
            found = pa.binary()
        wider = wider_type(leaf, found)
        leaf = leaf if wider is None else wider
    return leaf


def _all_utf8(features: Sequence[FeatureValue]) -> bool:
    try:
        for feature in features:
            if feature.kind == BYTES:
                for value in feature.values:
                    bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _name(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


TFRECORD = SourceFormat(open_tfrecord, read_tfrecord)
