"""Reading whole files through the interface of all formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lengthwise.pipeline.sources import (
    BrokenRow,
    InputFile,
    SourceFile,
    SourceOptions,
    agree_on_columns,
    open_file,
    read_unit,
)


@dataclass
class Reading:
    """All that was read of a file."""

    source: SourceFile
    rows: dict[int, dict] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    named: list[BrokenRow] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)

    @property
    def columns(self) -> pa.Schema:
        return self.source.columns


def read_all(
    path: str | Path,
    options: SourceOptions | None = None,
    *,
    columns: Sequence[str] | None = None,
    batch_rows: int | None = None,
) -> Reading:
    """Reads all units of a file; checks what every format promises of its batches."""
    options = options or SourceOptions()
    (source,) = agree_on_columns([open_file(InputFile(str(path), "file"), options)])
    wanted = source.columns
    if columns is not None:
        wanted = pa.schema([wanted.field(name) for name in columns])
    reading = Reading(source)
    expected_first = 0
    for unit in source.units:
        assert unit.first_row == expected_first
        expected_first += unit.rows or 0
        for batch in read_unit(unit, wanted, options, batch_rows=batch_rows):
            batch.rows.validate(full=True)
            assert batch.rows.schema.names == wanted.names
            if batch_rows is not None:
                assert batch.rows.num_rows <= batch_rows
            numbers = batch.numbers
            if numbers is None:
                numbers = np.arange(batch.first_row, batch.first_row + batch.rows.num_rows)
            assert len(numbers) == batch.rows.num_rows
            for number, row in zip(numbers.tolist(), batch.rows.to_pylist(), strict=True):
                assert number not in reading.rows
                reading.rows[number] = row
            for row in batch.broken:
                assert row.row not in reading.broken
                assert len(row.raw) <= 1000
                reading.broken[row.row] = row.reason
                reading.named.append(row)
            reading.batches.append(batch.rows)
    assert not reading.rows.keys() & reading.broken.keys()
    assert list(reading.rows) == sorted(reading.rows)
    return reading


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Writes bytes or text to a file of the test."""

    def to(name: str, data: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return to
