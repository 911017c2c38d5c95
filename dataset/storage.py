"""Where files are: in a folder of this machine, or in an object store that a URL names.

Whoever reads or writes files of a dataset takes a `StoragePath`: a `pathlib.Path`, or a
`RemotePath` with the few of its methods that a dataset needs. Object stores have no folders,
renames, locks or maps of memory, so nothing here asks for them:

    a file that is whole or not there   local: written beside its name, renamed
                                        remote: written to a temporary file, sent in one piece

Stores are reached by `pyarrow.fs`, which takes endpoint and credentials from the environment
(`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …). A URL that holds credentials is refused: URLs stand in
messages and in staging.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import itertools
import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar, cast
from urllib.parse import unquote

import pyarrow as pa

from lengthwise.dataset.errors import InputError

T = TypeVar("T")
U = TypeVar("U")

TEMPORARY_PREFIX = ".tmp-"
# Requests that wait for an object store at the same time.
_REQUESTS = 16

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"[?&][^=&]*(secret|password|token|key|sig)[^=&]*=", re.IGNORECASE)
# Small files that are read, and answers that wait for who reads them.
_READ_AHEAD = 256
# Bytes of a request: each takes some ten milliseconds, however small it is.
REQUEST_BYTES = 8 << 20
_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or a folder in an object store.

    Attributes:
        url: without the options, and without a slash at the end.
        options: of the file system, as in `?region=eu-west-1`; empty, or from the `?` on.

    Example:
        >>> path = RemotePath("s3://bucket/rows", "?region=eu-west-1") / "plan.json"
        >>> str(path), path.name, path.parent.url
        ('s3://bucket/rows/plan.json?region=eu-west-1', 'plan.json', 's3://bucket/rows')
    """

    url: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.url}{self.options}"

    def __truediv__(self, name: str | Path) -> RemotePath:
        return RemotePath(f"{self.url}/{Path(name).as_posix()}", self.options)

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url.rpartition("/")[0], self.options)

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def is_file(self) -> bool:
        return self._info().is_file

    def exists(self) -> bool:
        return bool(self._info().type)

    def is_dir(self) -> bool:
        return self.exists() and not self.is_file()

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens a file to read it.

        Raises:
            OSError: it is not there, or cannot be reached.
        """
        if mode != "rb":
            raise ValueError(f"files of an object store are only read, not opened as {mode!r}")
        with _told(self):
            system, place = place_of(str(self))
            return cast(BinaryIO, _Reader(self, system.open_input_file(place)))

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in the folder; nothing where there is no folder."""
        for info in self._listed(recursive=False):
            yield self / info.base_name

    def unlink(self, missing_ok: bool = False) -> None:
        with _told(self):
            _delete(self, lambda system, place: system.delete_file(place), missing_ok=missing_ok)

    def rmdir(self) -> None:
        remove_folder(self)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Does nothing: a folder is there once a file is in it."""

    def _listed(self, *, recursive: bool) -> list[Any]:
        from pyarrow import fs

        with _told(self):
            system, place = place_of(str(self))
            selector = fs.FileSelector(place, recursive=recursive, allow_not_found=True)
            return system.get_file_info(selector)

    def _info(self) -> Any:
        with _told(self):
            system, place = place_of(str(self))
            return system.get_file_info(place)


StoragePath: TypeAlias = Path | RemotePath


def is_url(path: str) -> bool:
    """Whether a path is a URL.

    Example:
        >>> is_url("s3://bucket/rows.parquet"), is_url("rows.parquet")
        (True, False)
    """
    return _URL.match(path) is not None


def storage_path(path: str | os.PathLike[str] | RemotePath) -> StoragePath:
    """A path or URL as what can be read and written.

    Example:
        >>> storage_path("s3://bucket/dataset/").name, storage_path("/a/b").name
        ('dataset', 'b')
        >>> storage_path("file:///a/b"), storage_path("file://localhost/a/b")
        (PosixPath('/a/b'), PosixPath('/a/b'))
        >>> storage_path(Path("/a b").as_uri())
        PosixPath('/a b')

    Raises:
        InputError: it is a `file://` URL of another machine, or of a folder relative to nothing.
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if not is_url(text):
        return Path(text)
    url, mark, options = text.partition("?")
    if url.startswith("file://"):
        path = url.removeprefix("file://").removeprefix("localhost")
        if not path.startswith("/"):
            raise InputError(f"{text}: names no file of this machine; write file:///folder/file")
        return Path(unquote(path))
    return RemotePath(url.rstrip("/"), mark + options)


def absolute_path(path: str | os.PathLike[str] | RemotePath) -> StoragePath:
    """A path or URL that stays what it is in another working folder."""
    found = storage_path(path)
    return found if isinstance(found, RemotePath) else Path(os.path.abspath(found))


def place_of(url: str, connect: Callable[[str], tuple[Any, str]] | None = None) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Args:
        url: with the options of the file system behind a `?`, where there are any.
        connect: finds the file system of the beginning of a URL; None asks pyarrow.

    Raises:
        InputError: no file system knows such a URL, or there are credentials in it.
    """
    base, mark, options = url.partition("?")
    scheme, _, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    # A secret may have slashes: what looks like a host with a port is then its beginning.
    port = host.rpartition(":")[2] if ":" in host and "@" in rest else "0"
    if ":" in host.rpartition("@")[0] or not port.isdigit() or _SECRET.search(mark + options):
        raise InputError(
            f"{scheme}://…: holds credentials, which would be seen in messages; give them in the "
            "environment, as in AWS_ACCESS_KEY_ID"
        )
    try:
        # One connection for each place, not for each file.
        system, root = (connect or connect_arrow)(f"{scheme}://{host}{slash}{mark}{options}")
    except (pa.ArrowException, ValueError, OSError, ImportError) as reason:
        raise InputError(f"{url}: cannot be reached: {_one_line(reason)}") from None
    if scheme == "file":
        # As `Path.as_uri` writes spaces; keys of object stores stay as they are.
        path = unquote(path)
    return system, f"{root.rstrip('/')}/{path}" if path else root


@functools.lru_cache(maxsize=16)
def connect_arrow(root: str) -> tuple[Any, str]:
    """The file system of pyarrow that the beginning of a URL names, and the path in it."""
    from pyarrow import fs

    if root.startswith("s3://"):
        # What is small is then sent by one request, where it would take three.
        root += f"{'&' if '?' in root else '?'}allow_delayed_open=true"
    return fs.FileSystem.from_uri(root)


@contextlib.contextmanager
def written_whole(path: StoragePath) -> Iterator[Path]:
    """Makes a file that is whole or not there.

    Args:
        path: the final name. A file of that name is replaced at once; a local folder is made.

    Yields:
        A local file to be written. When the body ends without an error, it becomes `path`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder, "new", "a")) as unfinished:
        ...         _ = unfinished.write_bytes(b"1")
        ...     Path(folder, "new", "a").read_bytes()
        b'1'
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="lengthwise-") as folder:
            unfinished = Path(folder, path.name)
            yield unfinished
            _send(unfinished, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def size_of(path: StoragePath) -> int:
    """Bytes of a file.

    Raises:
        OSError: there is no such file.
    """
    if isinstance(path, RemotePath):
        size = path._info().size
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return size
    return path.stat().st_size


def read_files(paths: Iterable[StoragePath]) -> Iterator[bytes | None]:
    """Reads small files, None for those that are not there; remote ones several at a time."""
    waiting = iter(paths)
    while asked := list(itertools.islice(waiting, _READ_AHEAD)):
        remote = isinstance(asked[0], RemotePath)
        yield from (side_by_side if remote else map)(_bytes_of, asked)


def side_by_side(ask: Callable[[T], U], about: Iterable[T]) -> Iterator[U]:
    """Answers of an object store, several awaited at the same time, in the order asked for."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(ask, about)


def files_below(folder: StoragePath) -> dict[str, int]:
    """Name below the folder, with `/`, -> bytes, of all files in it to any depth, sorted."""
    if isinstance(folder, RemotePath):
        top = len(place_of(str(folder))[1].rstrip("/")) + 1
        found = {i.path[top:]: i.size for i in folder._listed(recursive=True) if i.is_file}
    else:
        found = {
            path.relative_to(folder).as_posix(): path.lstat().st_size
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
    return dict(sorted(found.items()))


def copy_files(pairs: Iterable[tuple[StoragePath, StoragePath]]) -> None:
    """Copies files within an object store, several at a time; no byte comes through here."""
    for _ in side_by_side(_copy, pairs):
        pass


def rename(source: StoragePath, target: StoragePath) -> None:
    """Gives a file another name at once; in an object store it has both for a moment."""
    if isinstance(source, RemotePath):
        copy_files([(source, target)])
        source.unlink()
    else:
        os.replace(str(source), str(target))


def remove_folder(folder: StoragePath) -> None:
    """Deletes a folder and all that is in it, where there is one."""
    if not isinstance(folder, RemotePath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with _told(folder):
        _delete(folder, lambda system, place: system.delete_dir(place))


class _Reader(io.BufferedReader):
    """A file of an object store, read in large pieces."""

    def __init__(self, path: RemotePath, raw: Any) -> None:
        super().__init__(raw, REQUEST_BYTES)
        self._path = path

    def read(self, size: int | None = -1, /) -> bytes:
        with _told(self._path):
            return super().read(size)


def _send(unfinished: Path, path: RemotePath) -> None:
    """Writes a local file to an object store, whole."""
    with _told(path), open(unfinished, "rb") as file:
        empty = os.fstat(file.fileno()).st_size == 0
        data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        system, place = place_of(str(path))
        # One write: a stream that is left by an error between two would make a file of half of it.
        # And what is called .gz is packed already.
        with system.open_output_stream(place, compression=None) as stream:
            stream.write(data)


def _delete(
    path: RemotePath, delete: Callable[[Any, str], None], *, missing_ok: bool = True
) -> None:
    system, place = place_of(str(path))
    try:
        delete(system, place)
    except FileNotFoundError:
        if not missing_ok:
            raise


def _bytes_of(path: StoragePath) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _copy(pair: tuple[StoragePath, StoragePath]) -> None:
    source, target = pair
    with _told(source):
        system, place = place_of(str(source))
        system.copy_file(place, place_of(str(target))[1])


@contextlib.contextmanager
def _told(path: StoragePath) -> Iterator[None]:
    """Makes an error of an object store one that names the file in one line."""
    try:
        yield
    except (OSError, pa.ArrowException) as reason:
        if isinstance(reason, OSError) and reason.filename:
            raise
        if isinstance(reason, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(path)) from None
        number = getattr(reason, "errno", None) or errno.EIO
        raise OSError(number, _one_line(reason), str(path)) from None


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())[:_MESSAGE_CHARACTERS]
