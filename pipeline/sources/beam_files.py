"""File systems that Beam knows, as file systems of pyarrow, for URLs that pyarrow itself does not.

A class derived from `apache_beam.io.filesystem.FileSystem` is found by its scheme, also one of the
user's own; with several workers, each of them must have imported it.
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from pyarrow import fs


@functools.lru_cache(maxsize=16)
def beam_file_system(scheme: str) -> fs.PyFileSystem:
    """The file system of a scheme; paths in it are URLs without `scheme://`.

    Raises:
        ValueError: Beam knows no such scheme.
    """
    return fs.PyFileSystem(_BeamFiles(scheme))


class _BeamFiles(fs.FileSystemHandler):
    """Reads files through Beam."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._system: Any = FileSystems.get_filesystem(f"{scheme}://")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BeamFiles) and other._scheme == self._scheme

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def get_type_name(self) -> str:
        return f"beam+{self._scheme}"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        pattern = "**" if selector.recursive else "*"
        return [
            self._info_of(found)
            for found in self._matched(f"{_folder(selector.base_dir)}{pattern}")
        ]

    def open_input_file(self, path: str) -> pa.PythonFile:
        # As it is: what is compressed is told from its first bytes, as in other file systems.
        file = self._system.open(self._url(path), compression_type=CompressionTypes.UNCOMPRESSED)
        return pa.PythonFile(file, mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def _info(self, path: str) -> fs.FileInfo:
        url = self._url(path)
        if self._system.exists(url):
            # Matching would leave out when the file was changed.
            return self._info_of(self._system.metadata(url))
        if self._matched(f"{_folder(path)}**"):
            return fs.FileInfo(path, fs.FileType.Directory)
        return fs.FileInfo(path, fs.FileType.NotFound)

    def _info_of(self, found: FileMetadata) -> fs.FileInfo:
        return fs.FileInfo(
            found.path.removeprefix(self._url("")),
            fs.FileType.File,
            size=found.size_in_bytes,
            mtime=found.last_updated_in_seconds or None,
        )

    def _matched(self, pattern: str) -> list[FileMetadata]:
        try:
            return self._system.match([self._url(pattern)])[0].metadata_list
        except BeamIOError as reason:
            raise OSError(str(reason)) from None

    def _url(self, path: str) -> str:
        return f"{self._scheme}://{path}"

    # Datasets are not written through it.

    def _read_only(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("only reads")

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = _read_only
    delete_root_dir_contents = move = open_append_stream = open_output_stream = _read_only


def _folder(path: str) -> str:
    return f"{path.rstrip('/')}/" if path else ""
