"""Files of a dataset as files of this machine, to be mapped into memory.

on this machine       as it is
in an object store    a copy in the folder for temporary files, which goes with its last reader
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from lengthwise.dataset.storage import REQUEST_BYTES, RemotePath, StoragePath


@contextlib.contextmanager
def open_local(path: StoragePath) -> Iterator[BinaryIO]:
    """Opens a file that can be mapped into memory.

    Args:
        path: of a file of this machine, or of one that is copied for it, to a file without a name
            in the folder for temporary files. A map of that keeps it.
    """
    if not isinstance(path, RemotePath):
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile(prefix="lengthwise-") as copy:
        _fetch(path, cast(BinaryIO, copy))
        copy.flush()
        copy.seek(0)
        yield cast(BinaryIO, copy)


class CopiedFiles:
    """Copies of files of an object store, made when they are asked for, deleted with this object.

    Example:
        >>> CopiedFiles().local(Path("a"))  # is here already
        PosixPath('a')
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._copies: dict[RemotePath, Path] = {}

    def local(self, path: StoragePath) -> Path:
        """A file of this machine with the same bytes."""
        if not isinstance(path, RemotePath):
            return path
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lengthwise-")
        if path not in self._copies:
            copy = Path(self._folder.name, f"{len(self._copies)}")
            with open(copy, "wb") as target:
                _fetch(path, target)
            self._copies[path] = copy
        return self._copies[path]


def mapped(path: StoragePath) -> pa.Buffer:
    """The bytes of a file, mapped into memory."""
    with open_local(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            return pa.py_buffer(b"")
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _fetch(path: RemotePath, target: BinaryIO) -> None:
    """Copies a file of an object store into a local one."""
    with path.open() as source:
        shutil.copyfileobj(source, target, REQUEST_BYTES)
