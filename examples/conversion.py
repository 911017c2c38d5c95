"""What every converter gives back: tables of ragged rows, and what it left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Conversion:
    """Ragged rows of one data set.

    Attributes:
        tables: name of a Parquet file, without its ending -> its rows.
        left_out: reason -> rows of the source that are in no table.
    """

    tables: Mapping[str, pa.Table]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes one Parquet file per table; the same tables give the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables.items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def ragged_column(values: pa.Array | np.ndarray, lengths: Iterable[int]) -> pa.ListArray:
    """The list column of rows that lie one after another.

    Example:
        >>> ragged_column(np.array([1, 2, 3]), [2, 0, 1]).to_pylist()
        [[1, 2], [], [3]]
    """
    offsets = np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
