"""Where bytes are: a path on this machine, or a URL that a file system of pyarrow reaches.

Paths are opened as plain files. URLs (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`, …) go
through `pyarrow.fs`, which needs no further library and reads byte ranges without downloading the
rest. Its options are written behind the path, as in `s3://bucket/key?region=eu-west-1`. What it
does not know goes through Beam's file systems.
"""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from lengthwise.dataset.errors import InputError
from lengthwise.dataset.storage import connect_arrow, is_url, place_of


def open_random(path: str, *, mapped: bool = False) -> pa.NativeFile:
    """Opens a file for reads at any place.

    Args:
        path: a path or URL.
        mapped: maps a local file into memory, so that reading copies nothing.

    Raises:
        OSError: it cannot be opened.
    """
    if is_url(path):
        system, place = file_system(path)
        return system.open_input_file(place)
    return pa.memory_map(path, "r") if mapped else pa.OSFile(path, "rb")


def status_of(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds.

    Raises:
        InputError: there is no such file.
    """
    if is_url(path):
        system, place = file_system(path)
        info = system.get_file_info(place)
        if info.size is None:
            raise InputError(f"{path}: no such file")
        return info.size, info.mtime_ns or 0
    try:
        status = os.stat(path)
    except OSError as reason:
        raise InputError(f"{path}: cannot be read: {reason.strerror}") from None
    return status.st_size, status.st_mtime_ns


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, of pyarrow or else of Beam, and the path in it.

    Raises:
        InputError: no file system knows such a URL, or there are credentials in it.
    """
    return place_of(url, _connect)


def in_file_system(url: str, path: str) -> str:
    """The URL of a path that the file system of `url` has named."""
    base, query = _split_query(url)
    scheme, _, rest = base.partition("://")
    host, slash, _ = rest.partition("/")
    _, root = file_system(f"{scheme}://{host}{slash}{query}")
    inner = path[len(root.rstrip("/")) :].lstrip("/")
    inner = quote(inner) if scheme == "file" else inner
    return f"{scheme}://{host}/{inner}{query}"


def _split_query(url: str) -> tuple[str, str]:
    base, mark, query = url.partition("?")
    return base, mark + query


@functools.lru_cache(maxsize=16)
def _connect(root: str) -> tuple[Any, str]:
    try:
        return connect_arrow(root)
    except pa.ArrowInvalid as reason:
        from lengthwise.pipeline.sources.beam_files import beam_file_system

        scheme, _, place = root.partition("?")[0].partition("://")
        try:
            return beam_file_system(scheme), place
        except ValueError:
            raise reason from None
