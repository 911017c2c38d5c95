"""Files made to hurt: refused with one line or row by row, in bounded memory."""

from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import SourceOptions
from lengthwise.pipeline.sources.memory import bounded_memory
from tests.pipeline.sources.conftest import read_all

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no bound on memory here")

# Reads files with so much memory and no more; prints what became of each.
_FRUGAL = """
import json, sys
from lengthwise.pipeline.sources import InputFile, SourceOptions, open_file, read_unit
from lengthwise.pipeline.sources.memory import bounded_memory
from lengthwise.dataset import InputError

files, megabytes = json.loads(sys.argv[1])
for path, options in files:
    options = SourceOptions(**options)
    with bounded_memory(megabytes << 20):
        try:
            source = open_file(InputFile(path, "file"), options)
            rows, broken = 0, []
            for unit in source.units:
                for batch in read_unit(unit, source.columns, options):
                    rows += batch.rows.num_rows
                    broken += [row.reason for row in batch.broken]
            print(path.rpartition("/")[2], rows, *broken[:2])
        except InputError as reason:
            print(path.rpartition("/")[2], "refused:", str(reason).replace(path, "FILE"))
"""


def read_frugally(files: list[tuple[Path, dict]], *, megabytes: int) -> dict[str, str]:
    arguments = json.dumps([[(str(path), options) for path, options in files], megabytes])
    done = subprocess.run(
        [sys.executable, "-c", _FRUGAL, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return {name: what for name, _, what in lines}


@linux
def test_lines_without_an_end_take_no_more_memory_than_a_few_rows(tmp_path):
    files = []
    for name, head in (
        ("a.jsonl", b'{"x": [1]}\n'),
        ("a.txt", b"one\n"),
        ("a.csv", b"id,x\na,1\n"),
    ):
        with open(tmp_path / name, "wb") as file:
            file.write(head)
            file.truncate(500 << 20)  # zeros that take no space
        files.append((tmp_path / name, {"group_by": "id"}))
    bomb = gzip.compress(bytes(16 << 20), 9)
    for name in ("b.jsonl.gz", "b.txt.gz", "b.csv.gz", "b.tfrecord.gz"):
        head = gzip.compress(b"id,x\n") if name == "b.csv.gz" else b""
        (tmp_path / name).write_bytes(head + bomb * 5)
        files.append((tmp_path / name, {"max_row_bytes": 4 << 20, "group_by": "id"}))
    (tmp_path / "c.jsonl").write_bytes(b'{"x": [' + b"1," * 10_000_000 + b"1]}\n" + b'{"x": [1]}')
    (tmp_path / "c.txt").write_bytes(b"a " * 15_000_000 + b"\nb")
    (tmp_path / "d.txt").write_bytes(b"\n" * 1_000_000)
    (tmp_path / "d.jsonl").write_bytes(b'{"x": [1]}\n{"x": ' + b"[" * 10_000_000)
    files += [(tmp_path / name, {}) for name in ("c.jsonl", "c.txt", "d.txt", "d.jsonl")]
    found = read_frugally(files, megabytes=400)
    endless = "refused: FILE: line {} has more than N bytes decompressed; this is no file of lines"
    assert {name: re.sub(r"\d{8,}", "N", what) for name, what in found.items()} == {
        "a.jsonl": "1 row too large",
        "a.txt": "1 row too large",
        "a.csv": "0 row too large",
        "b.jsonl.gz": endless.format(1),
        "b.txt.gz": endless.format(1),
        "b.csv.gz": endless.format(2),
        "b.tfrecord.gz": "refused: FILE: record 0: checksum of the record's length does not match; "
        "the file is damaged, or no TFRecord",
        "c.jsonl": "1 row too large",
        "c.txt": "1 row too large",
        "d.txt": "1000000",
        "d.jsonl": "1 broken line",
    }


def parquet_bomb(path: Path, *, values: int) -> Path:
    """A thousand rows, one of which has nearly all values; some hundred bytes."""
    lengths = np.ones(1000, np.int64)
    lengths[500] = values
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    codes = pa.array(np.zeros(int(lengths.sum()), np.int8))
    zeros = pa.DictionaryArray.from_arrays(codes, pa.array([0], pa.int64()))
    column = pa.ListArray.from_arrays(pa.array(offsets), zeros)
    pq.write_table(pa.table({"x": column}), path, store_schema=False)
    assert path.stat().st_size < 2000
    return path


@linux
def test_a_parquet_row_of_runs_is_refused_before_it_takes_the_memory(tmp_path):
    path = parquet_bomb(tmp_path / "a.parquet", values=70_000_000)
    # Four times what it would take: it is our bound that refuses it, not that of the process.
    assert read_frugally([(path, {})], megabytes=6000) == {
        "a.parquet": "refused: FILE: row group 0: rows from 497 take more than 536870912 bytes "
        "decoded; leave the largest out"
    }


@linux
def test_the_bound_on_memory_goes_as_it_came():
    with pytest.raises(MemoryError), bounded_memory(100 << 20):
        bytes(2000 << 20)
    assert len(bytes(200 << 20)) == 200 << 20


def test_a_parquet_row_past_the_limit_is_broken(tmp_path):
    path = parquet_bomb(tmp_path / "a.parquet", values=1_000_000)
    reading = read_all(path, SourceOptions(max_row_bytes=1 << 20))
    assert reading.broken == {500: "row too large"}
    assert len(reading.rows) == 999


@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_absurd_counts_in_arrow_messages_are_refused(tmp_path, writer):
    rows = 12_345
    table = pa.table({"x": pa.array([[1]] * rows, pa.list_(pa.int8()))})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, writer(file, table.schema) as out:
        out.write_table(table)
    data = path.read_bytes()
    count = struct.pack("<q", rows)
    assert data.count(count) >= 2
    for absurd in (1 << 60, -1):
        path.write_bytes(data.replace(count, struct.pack("<q", absurd)))
        with pytest.raises(InputError, match=r"a\.arrow: not a readable Arrow file: .*rows in"):
            read_all(path)
    path.write_bytes(data.replace(count, struct.pack("<q", rows + 1)))
    with pytest.raises(InputError, match=r"a\.arrow: "):
        read_all(path)


@pytest.mark.parametrize(
    ("footer", "says"),
    [
        (2**31 - 1, "its footer would have"),
        (0xFFFFFFF0, "its footer would have"),
        (300, ""),
        (0, ""),
    ],
)
def test_absurd_sizes_of_a_parquet_footer_are_refused(tmp_path, footer, says):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [[1]]}), path)
    data = path.read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<I", footer) + b"PAR1")
    with pytest.raises(InputError, match=rf"a\.parquet: not a readable Parquet file: .*{says}"):
        read_all(path)


def test_more_rows_than_values_in_a_parquet_footer_are_refused(tmp_path):
    path, rows = tmp_path / "a.parquet", 12_345
    pq.write_table(pa.table({"x": pa.array([[1, 2]] * rows, pa.list_(pa.int8()))}), path)
    data = path.read_bytes()
    # Counts are zigzag varints, here of three bytes.
    count = bytes([0xF2, 0xC0, 0x01])
    assert data.count(count) >= 2
    path.write_bytes(data.replace(count, bytes([0x80, 0x89, 0x7A])))
    with pytest.raises(InputError, match=r"row group 0 cannot be read: .* values in 1000000 rows"):
        read_all(path)


def test_a_flipped_bit_in_a_page_of_parquet_is_found(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array([list(range(200))] * 9, pa.list_(pa.int64()))
    table = pa.table({"x": column})
    plain = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    pq.write_table(table, path, **plain)
    data = path.read_bytes()
    at = data.index(struct.pack("<3q", 100, 101, 102))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(InputError, match=r"a\.parquet: row group 0 cannot be read: .*checksum"):
        read_all(path)


def test_a_thousand_broken_lines_do_not_make_the_others_wait(write):
    lines = ['{"x": [1, 2]}', "{broken}"] * 5000
    reading = read_all(write("a.jsonl", "\n".join(lines)))
    assert len(reading.rows) == len(reading.broken) == 5000


def test_a_line_with_a_million_columns_is_looked_at_no_further(write):
    line = "{" + ",".join(f'"k{n}": [1]' for n in range(20_000)) + "}"
    reading = read_all(write("a.jsonl", line), columns=["k0", "k9999"])
    assert len(reading.columns) == 10_000
    assert reading.rows == {0: {"k0": [1], "k9999": [1]}}


def test_a_record_with_very_many_features_does_not_make_the_others_wait(tmp_path):
    from lengthwise.dataset.tfrecord import write_records
    from tests.pipeline.sources import example_protos as protos

    good = protos.example_of({"x": [1, 2]})
    many = protos.example_of({f"f{n}": [n] for n in range(3000)} | {"x": [3, 4, 5]})
    steps = protos.sequence_example_of({}, {"x": [[n * 7 % 300] for n in range(6000)]})
    write_records(tmp_path / "a.tfrecord", [good, many, steps, good])
    options = SourceOptions(sequences=("x",))
    reading = read_all(tmp_path / "a.tfrecord", options, columns=["x"])
    assert [len(row["x"]) for row in reading.rows.values()] == [2, 3, 6000, 2]
