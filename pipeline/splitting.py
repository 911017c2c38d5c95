"""Which split a row belongs to: drawn by its key, drawn by a group, named by a column, or given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, PlanError
from lengthwise.dataset.options import MAX_SPLITS, check_split_name
from lengthwise.pipeline.sources import Unit
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.transforms.row_keys import assign_splits, group_keys, numbered_keys

if TYPE_CHECKING:
    from lengthwise.pipeline.ingest import IngestJob

TRAINING_SPLIT = "train"


def keys_of(numbers: np.ndarray, unit: Unit, job: IngestJob) -> np.ndarray:
    """The key of each row, (n,) uint64.

    Args:
        numbers: (n,) int64, numbers of the rows in their file.
        unit: that they belong to.
        job: for the seed.
    """
    return numbered_keys(job.options.seed, unit.file.name, numbers)


def splits_of(
    rows: pa.RecordBatch | None,
    keys: np.ndarray,
    unit: Unit,
    job: IngestJob,
    report: UnitReport,
) -> np.ndarray:
    """The split of each row, (n,) uint8, positions in `report.splits`, which grows where needed.

    Args:
        rows: the columns; None for rows that could not be read, which are drawn by their keys.
        keys: (n,) uint64.
        unit: that the rows belong to.
        job: for the options.
        report: of the unit.

    Raises:
        InputError: a null or an impossible name in the column that names the split.
    """
    options = job.options
    if unit.file.split is not None:
        return np.full(len(keys), _position(unit.file.split, report), np.uint8)
    if options.split_column is not None and rows is not None:
        return _named_splits(rows.column(options.split_column), unit, report)
    fractions = {name: options.splits[name] for name in sorted(options.splits)}
    if options.split_by is not None and rows is not None:
        keys = group_keys(options.seed, rows.column(options.split_by))
    positions = np.array([_position(name, report) for name in fractions], np.uint8)
    return positions[assign_splits(keys, fractions)]


def training_rows(splits: np.ndarray, job: IngestJob, report: UnitReport) -> np.ndarray:
    """(n,) bool: rows of the training split, or all where there is no split of that name.

    What is learned from data, vocabularies and constants of normalisation, is learned there.
    """
    if TRAINING_SPLIT in report.splits:
        return splits == report.splits.index(TRAINING_SPLIT)
    # With a column of names, another unit may have the rows to learn from.
    return np.full(len(splits), job.options.split_column is None)


def _position(name: str, report: UnitReport) -> int:
    if name not in report.splits:
        report.splits.append(name)
    return report.splits.index(name)


def _named_splits(column: pa.Array, unit: Unit, report: UnitReport) -> np.ndarray:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if encoded.indices.null_count:
        raise InputError(f"{unit.file.path}: a null stands in the column that names the split")
    positions = []
    for name in encoded.dictionary.to_pylist():
        try:
            check_split_name(str(name))
        except PlanError as reason:
            raise InputError(f"{unit.file.path}: {reason}") from None
        positions.append(_position(str(name), report))
    if len(report.splits) > MAX_SPLITS:
        raise InputError(
            f"{unit.file.path}: the column that names the split has over {MAX_SPLITS} names"
        )
    return np.array(positions, np.uint8)[encoded.indices.to_numpy()]
