"""What reading each input format costs: CPU µs per row, looking at the file and decoding it.

The same rows (see `ragged_data.py`) in every format, read by the readers of `lengthwise build` into
Arrow batches, in one process on one core, in rounds A B C … A B C …; medians. CSV has a column for
each of the 16 floats of a step, the others have vectors. To look at a file of JSON or CSV means to
parse its first 4 MiB for the types, which more rows make cheaper. The allocator is told to keep its
memory, as `lengthwise` tells it.

    MIMALLOC_PURGE_DELAY=-1 python benchmarks/read_sources.py --rows 32768
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ragged_data import KINDS, ROW_GROUP_ROWS, SEQUENCE, WIDTH, row_groups
from rich.console import Console
from rich.table import Table

from lengthwise.dataset.tfrecord import write_records
from lengthwise.pipeline.sources import (
    InputFile,
    SourceOptions,
    agree_on_columns,
    open_file,
    read_unit,
)


@dataclass(frozen=True)
class Contender:
    """A file in one format, and how it is read."""

    name: str
    path: Path
    options: SourceOptions


def contenders(kind: str, rows: int, folder: Path) -> Iterator[Contender]:
    """Writes the rows in every format."""
    table = pa.Table.from_batches(list(row_groups(kind, rows)))
    shapes = {"features": (WIDTH,)} if kind == "floats" else {}
    writers: dict[str, tuple[Callable[[Path, pa.Table], object], SourceOptions]] = {
        "parquet": (_write_parquet, SourceOptions()),
        "arrow file": (_write_arrow, SourceOptions()),
        "arrow file, lz4": (_write_arrow_lz4, SourceOptions()),
        "arrow stream": (_write_stream, SourceOptions()),
        "jsonl": (_write_jsonl, SourceOptions(format="jsonl")),
        "jsonl.gz": (_write_jsonl_gz, SourceOptions(format="jsonl")),
        "csv": (_write_csv, SourceOptions(format="csv", group_by="row")),
        "tfrecord, Example": (_write_examples, SourceOptions(shapes=shapes)),
        "tfrecord, SequenceExample": (_write_sequence_examples, SourceOptions()),
    }
    if kind == "ids":
        writers["text, words"] = (_write_text, SourceOptions(format="text"))
        for tokens in ("characters", "bytes"):
            writers[f"text, {tokens}"] = (
                _write_text,
                SourceOptions(format="text", tokens=tokens),
            )
    for name, (write, options) in writers.items():
        path = folder / f"{kind}-{name.replace(', ', '-').replace(' ', '-')}"
        write(path, table)
        yield Contender(name, path, options)


def seconds_to_read(contender: Contender, rows: int) -> tuple[float, float]:
    """CPU seconds of looking at the file, and of decoding all of it."""
    started = time.process_time()
    opened = open_file(InputFile(str(contender.path), "file"), contender.options)
    (source,) = agree_on_columns([opened])
    looked = time.process_time()
    found = 0
    for unit in source.units:
        for batch in read_unit(unit, source.columns, contender.options):
            assert not batch.broken
            found += batch.rows.num_rows
    assert found == rows, f"{contender.name}: {found} rows"
    return looked - started, time.process_time() - looked


def _write_parquet(path: Path, table: pa.Table) -> None:
    kind = next(kind for kind in KINDS if SEQUENCE[kind] in table.column_names)
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS[kind])


def _write_arrow(path: Path, table: pa.Table, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file:
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)


def _write_arrow_lz4(path: Path, table: pa.Table) -> None:
    _write_arrow(path, table, "lz4")


def _write_stream(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)


def _write_jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def _write_jsonl_gz(path: Path, table: pa.Table) -> None:
    text = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    path.write_bytes(gzip.compress(text.encode(), 6))


def _write_csv(path: Path, table: pa.Table) -> None:
    name = table.column_names[0]
    vectors = name == SEQUENCE["floats"]
    names = [f"x{n:02d}" for n in range(WIDTH)] if vectors else [name]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", *names])
        for number, row in enumerate(table.to_pylist()):
            for step in row[name]:
                writer.writerow([number, row["label"], *(step if vectors else [step])])


def _write_text(path: Path, table: pa.Table) -> None:
    lines = (" ".join(map(str, row)) for row in table.column(0).to_pylist())
    path.write_text("".join(line + "\n" for line in lines))


def _write_examples(path: Path, table: pa.Table) -> None:
    name = table.column_names[0]
    write_records(
        path,
        (
            _message(
                1,
                _entry(name, _feature(np.ravel(row[name])))
                + _entry("label", _feature([row["label"]])),
            )
            for row in table.to_pylist()
        ),
    )


def _write_sequence_examples(path: Path, table: pa.Table) -> None:
    name = table.column_names[0]
    write_records(
        path,
        (
            _message(1, _entry("label", _feature([row["label"]])))
            + _message(
                2,
                _entry(name, b"".join(_message(1, _feature(np.ravel(step))) for step in row[name])),
            )
            for row in table.to_pylist()
        ),
    )


def _entry(name: str, value: bytes) -> bytes:
    return _message(1, _message(1, name.encode()) + _message(2, value))


def _feature(values) -> bytes:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return _message(2, _message(1, struct.pack(f"<{array.size}f", *array.tolist())))
    return _message(3, _message(1, b"".join(_varint(value) for value in array.tolist())))


def _message(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def main() -> None:
    parser = argparse.ArgumentParser(description="What reading each input format costs.")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, action="append")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind or KINDS:
            sides = list(contenders(kind, options.rows, Path(folder)))
            found: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
            for _ in range(options.rounds + 1):
                for side in sides:
                    found[side.name].append(seconds_to_read(side, options.rows))
            table = Table(title=f"{options.rows:,} rows of {kind}", title_justify="left")
            table.add_column("format")
            for heading in ("KiB per row", "µs to look", "µs to read", "MB/s"):
                table.add_column(heading, justify="right")
            for side in sides:
                # The first round meets cold caches, and modules imported at their first use.
                look, read = (
                    statistics.median(seconds) / options.rows * 1e6
                    for seconds in zip(*found[side.name][1:], strict=True)
                )
                size = side.path.stat().st_size / options.rows
                table.add_row(
                    side.name,
                    f"{size / 1024:.2f}",
                    f"{look:.2f}",
                    f"{read:.2f}",
                    f"{size / read:,.0f}",
                )
            Console(width=100).print(table)


if __name__ == "__main__":
    main()
