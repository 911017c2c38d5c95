"""Compressed files of lines: one unit, streamed, damaged ones refused."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import SourceOptions
from tests.pipeline.sources.conftest import read_all

LINES = "".join(f"{n} words of line {n}\n" for n in range(5000))


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("gz", gzip.compress),
        ("zst", zstd),
        ("gz", lambda data: gzip.compress(data[:777]) + gzip.compress(data[777:])),
        ("zstd", lambda data: zstd(data[:777]) + zstd(data[777:])),
    ],
)
def test_rows_are_those_of_the_plain_file(write, suffix, compress):
    plain = read_all(write("a.txt", LINES))
    path = write(f"b.txt.{suffix}", compress(LINES.encode()))
    packed = read_all(path, SourceOptions(unit_bytes=1000), batch_rows=99)
    assert packed.rows == plain.rows
    assert len(packed.source.units) == 1
    assert packed.source.rows is None


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_truncated_file_is_refused_with_the_place(write, compress):
    whole = compress(LINES.encode())
    path = write("a.txt.gz", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.txt\.gz: line \d+: cannot be read: .*[Tt]runcated"):
        read_all(path)


def test_a_damaged_file_is_refused(write):
    whole = bytearray(gzip.compress(LINES.encode(), 9))
    whole[len(whole) // 2] ^= 255
    with pytest.raises(InputError, match=r"a\.txt\.gz: line \d+: cannot be read"):
        read_all(write("a.txt.gz", bytes(whole)))


def test_a_bomb_without_a_newline_is_refused(write):
    path = write("a.txt.gz", gzip.compress(bytes(4_000_000)))
    with pytest.raises(InputError, match=r"line 1 has more than \d+ bytes decompressed"):
        read_all(path, SourceOptions(max_row_bytes=100_000))
    reading = read_all(path, SourceOptions(max_row_bytes=400_000))
    assert reading.broken == {0: "row too large"}
