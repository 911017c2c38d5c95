"""URLs that only Beam knows: a file system of the user's, derived from Beam's class."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem

from lengthwise.dataset import InputError, SourceOptions
from lengthwise.pipeline import FeatureNames, build
from lengthwise.pipeline.sources import find_files, status_of
from tests.pipeline.conftest import folder_digest, ragged_table
from tests.pipeline.sources.conftest import read_all

FILES: dict[str, bytes] = {}


class KeptInMemory(FileSystem):
    """Files of this process, as `kept://host/path`."""

    @classmethod
    def scheme(cls) -> str:
        return "kept"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath, *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str):
        for path, data in sorted(FILES.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(data), 1.5)

    def open(self, path: str, *_: Any, **__: Any):
        return io.BytesIO(FILES[path])

    def exists(self, path: str) -> bool:
        return path in FILES

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(FILES[path]), 1.5)

    def _nothing(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    mkdirs = create = copy = rename = size = last_updated = checksum = delete = _nothing


@pytest.fixture
def kept(monkeypatch):
    def put(name: str, data: bytes) -> str:
        monkeypatch.setitem(FILES, f"kept://host/in/{name}", data)
        return f"kept://host/in/{name}"

    return put


def test_files_globs_and_folders_of_a_file_system_of_beam(kept):
    for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/_d.jsonl"):
        kept(name, b'{"x": [1]}\n')
    found = find_files(["kept://host/in"])
    assert [file.name for file in found] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert [file.name for file in find_files(["kept://host/in/*.jsonl"])] == ["a.jsonl", "b.jsonl"]
    assert status_of(found[0].path) == (11, 1_500_000_000)
    with pytest.raises(InputError, match="no such file"):
        find_files(["kept://host/nowhere"])


@pytest.mark.parametrize("compressed", [False, True])
def test_lines_are_read_by_byte_ranges(kept, compressed):
    lines = "".join(f'{{"x": [{n}]}}\n' for n in range(100)).encode()
    url = kept("a.jsonl", gzip.compress(lines) if compressed else lines)
    reading = read_all(url, SourceOptions(unit_bytes=200))
    assert len(reading.source.units) > 1 or compressed
    assert [row["x"] for row in reading.rows.values()] == [[n] for n in range(100)]


def test_a_build_gives_the_bytes_of_local_files(kept, tmp_path):
    names = FeatureNames(sequences=("frames", "tokens"))
    local = []
    for number in range(2):
        local.append(tmp_path / f"{number}.parquet")
        pq.write_table(ragged_table(20, seed=number), local[-1])
        kept(f"{number}.parquet", local[-1].read_bytes())
    build(["kept://host/in"], tmp_path / "kept", names=names)
    build(local, tmp_path / "local", names=names)
    assert folder_digest(tmp_path / "kept") == folder_digest(tmp_path / "local")
