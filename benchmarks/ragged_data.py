"""Deterministic ragged Parquet files for the benchmarks, made without a loop over rows.

Two kinds, with an int64 `label` and log-normal lengths, mean about 60 steps, clipped to [1, 512]:

    floats   features: list<fixed_size_list<float32, 16>>
    ids      tokens:   list<int32>, Zipf over a vocabulary of 30,000

Files are written with pyarrow's default writer settings (dictionary encoding on, Snappy), which is
what a user has who never looked them up; row groups have 8,192 rows of floats or 16,384 of ids.
Every row group has its own random stream: the rows of a file are the first of any longer one.

    python benchmarks/ragged_data.py floats 20000 floats.parquet
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("floats", "ids")
SEQUENCE = {"floats": "features", "ids": "tokens"}
ROW_GROUP_ROWS = {"floats": 8_192, "ids": 16_384}
WIDTH = 16
VOCABULARY_SIZE = 30_000
NUM_LABELS = 10
MAX_LENGTH = 512

_LENGTH_LOG_MEAN = 3.81
_LENGTH_LOG_SIGMA = 0.75


def ensure_file(path: str, kind: str, count: int, seed: int = 0) -> None:
    """Writes a file unless it is there already, under another name until it is complete."""
    if Path(path).exists():
        return
    unfinished = Path(f"{path}.unfinished")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    write_file(unfinished, kind, count, seed=seed)
    unfinished.replace(path)
    os.sync()  # or the kernel writes it in the midst of what is measured


def write_file(path: Path, kind: str, rows: int, *, seed: int = 0) -> None:
    """Writes one Parquet file, one row group at a time."""
    with pq.ParquetWriter(path, schema_of(kind)) as writer:
        for group in row_groups(kind, rows, seed=seed):
            writer.write_batch(group, row_group_size=group.num_rows)


def row_groups(kind: str, rows: int, *, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Yields the record batches that become the row groups of a file."""
    size = ROW_GROUP_ROWS[kind]
    for group, start in enumerate(range(0, rows, size)):
        rng = np.random.default_rng([seed, KINDS.index(kind), group])
        lengths = draw_lengths(rng, size)
        steps = _draw_steps(rng, kind, int(lengths.sum()))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        label = rng.integers(NUM_LABELS, size=size)
        batch = pa.record_batch(
            [pa.ListArray.from_arrays(pa.array(offsets), steps), pa.array(label)],
            schema=schema_of(kind),
        )
        yield batch.slice(0, min(size, rows - start))


def draw_lengths(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Draws int64 lengths: log-normal, rounded, clipped to [1, 512]."""
    drawn = rng.lognormal(_LENGTH_LOG_MEAN, _LENGTH_LOG_SIGMA, rows)
    return np.clip(np.rint(drawn), 1, MAX_LENGTH).astype(np.int64)


def schema_of(kind: str) -> pa.Schema:
    """Returns the Arrow schema of a kind."""
    step = pa.list_(pa.float32(), WIDTH) if kind == "floats" else pa.int32()
    return pa.schema([(SEQUENCE[kind], pa.list_(step)), ("label", pa.int64())])


def _draw_steps(rng: np.random.Generator, kind: str, steps: int) -> pa.Array:
    if kind == "floats":
        flat = rng.standard_normal(steps * WIDTH, dtype=np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), WIDTH)
    weights = 1.0 / np.arange(1, VOCABULARY_SIZE + 1)
    cumulative = np.cumsum(weights) / weights.sum()
    return pa.array(np.searchsorted(cumulative, rng.random(steps)).astype(np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes one benchmark input file.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("rows", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_file(options.path, options.kind, options.rows, seed=options.seed)


if __name__ == "__main__":
    main()
