"""Small ragged inputs, and the command line called as a user calls it."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import Manifest
from lengthwise.dataset.shard_records import decode_block, read_shard

# Options that say how records are laid out on disk; what is in them stays the same.
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"canonical": True},
    {"compression": "gzip"},
    {"canonical": True, "compression": "gzip"},
]


def records_of(manifest: Manifest, split: str) -> dict[str, np.ndarray]:
    """All records of a split decoded, in the order of the shards, for buckets of one size."""
    blocks = []
    for shard in manifest.shards_of(split):
        layout = manifest.layouts[shard.max_length]
        names = [field.name for field in layout.fields]
        with open(manifest.path_of(shard), "rb") as file:
            read = read_shard(file, layout, shard.compression, records=shard.records)
            blocks += [decode_block(block, layout, names) for block in read]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def ragged_table(rows: int, *, seed: int = 0, longest: int = 40) -> pa.Table:
    """`rows` rows: frames (steps, 3) float32, tokens (steps,) int32, weight, label."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, rows)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    steps = int(offsets[-1])
    frames = pa.FixedSizeListArray.from_arrays(
        pa.array(rng.normal(size=steps * 3).astype(np.float32)), 3
    )
    return pa.table(
        {
            "frames": pa.ListArray.from_arrays(pa.array(offsets), frames),
            "tokens": pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(rng.integers(-5, 70_000, steps).astype(np.int32))
            ),
            "weight": pa.array(rng.normal(size=rows)),
            "label": pa.array(rng.integers(0, 4, rows)),
            "row": pa.array(np.arange(rows) + 1000 * seed),
        }
    )


@pytest.fixture
def write_input(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table as a Parquet file below `in/`."""

    def write(name: str, table: pa.Table, *, row_group_size: int = 50) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture
def two_files(write_input: Callable[..., Path]) -> list[Path]:
    """Two files of three row groups each, 120 rows in all of each."""
    return [
        write_input("a.parquet", ragged_table(120, seed=1)),
        write_input("sub/b.parquet", ragged_table(120, seed=2)),
    ]


def folder_digest(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path, and a hash of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs `lengthwise` with arguments; returns its exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from lengthwise.pipeline.commands import main

        monkeypatch.setattr("sys.argv", ["lengthwise", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        with warnings.catch_warnings():
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
            finally:
                logging.disable(logging.NOTSET)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
