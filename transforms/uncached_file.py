"""Files that are written past the page cache, from buffers that are used again and again.

What is written once and read much later, or never, gains nothing by standing in memory, and each
fresh page is dear, most of all on a virtual machine that has to ask its host for it. The kernel
takes the bytes straight from the buffer (`O_DIRECT` of open(2)) where place and size are whole
blocks; the end of a file, less than a block, goes the usual way. File systems that cannot do it get
usual writes. A thread writes the full buffers while the next is filled.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

# A huge page: the kernel then has one page to hold in place for a write, and not hundreds.
_BUFFER_BYTES = 2 << 20
# Full buffers that wait for the disk: it has work while nothing is handed over for a while.
_WAITING = 3
# A multiple of the blocks of all devices there are.
_BLOCK_BYTES = 4096
_DIRECT = getattr(os, "O_DIRECT", 0)

# Buffers that no file uses.
_idle: list[np.ndarray] = []


class UncachedFile(io.RawIOBase):
    """A new file; what was written is in it once `finish` or `sync` was called.

    Args:
        path: of a file that is not there yet.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with UncachedFile(f"{folder}/a") as file:
        ...         _ = file.write(b"abc")
        ...         file.finish()
        ...     Path(folder, "a").read_text()
        'abc'
    """

    # None until the file is open and from when it is closed: what fails is not closed twice.
    _descriptor: int | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = os.fspath(path)
        self._descriptor = _opened(path)
        self._buffer = _taken_buffer()
        self._written = self._used = 0
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[Future[None], np.ndarray]] = deque()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._descriptor is None:
            raise ValueError("the file is closed")
        return self._descriptor

    def tell(self) -> int:
        return self._written + self._used

    def write(self, data: bytes | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Appends bytes, all of them; returns how many.

        An error of the disk may come with a later call, at the latest with `finish`.
        """
        self.fileno()  # a closed file has given its buffer away
        source = np.frombuffer(data, np.uint8)
        for start in range(0, len(source), _BUFFER_BYTES):
            self._append(source[start : start + _BUFFER_BYTES])
        return len(source)

    def finish(self) -> None:
        """Writes what still waits in the buffer; nothing can be written after it."""
        self._empty(self._used - self._used % _BLOCK_BYTES)
        _write_usually(self.fileno())
        self._empty(self._used)

    def sync(self) -> None:
        """Finishes the file and returns once it is on disk."""
        self.finish()
        os.fsync(self.fileno())
        if hasattr(os, "posix_fadvise"):
            # Where it went through the page cache after all, the next file can use its pages.
            os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Closes the file as it is."""
        descriptor, self._descriptor = self._descriptor, None
        super().close()
        if descriptor is not None:
            if self._thread is not None:
                self._thread.shutdown()
            waiting, self._waiting = self._waiting, deque()
            os.close(descriptor)
            _idle.extend([self._buffer, *(buffer for _, buffer in waiting)])

    def _append(self, data: np.ndarray) -> None:
        """Appends no more than a buffer holds."""
        fitting = data[: _BUFFER_BYTES - self._used]
        self._buffer[self._used : self._used + len(fitting)] = fitting
        self._used += len(fitting)
        if self._used == _BUFFER_BYTES:
            self._hand_over()
            rest = data[len(fitting) :]
            self._buffer[: len(rest)] = rest
            self._used = len(rest)

    def _hand_over(self) -> None:
        """Has the full buffer written, and goes on with another."""
        buffer = self._written_buffer() if len(self._waiting) == _WAITING else _taken_buffer()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        # First of all: wherever an interrupt hits, no buffer may be in two places.
        full, self._buffer = self._buffer, buffer
        self._waiting.append((self._thread.submit(self._write, self.fileno(), full), full))
        self._written += _BUFFER_BYTES
        self._used = 0

    def _written_buffer(self) -> np.ndarray:
        """Waits until the first of the full buffers is written; raises what went wrong."""
        self._waiting[0][0].result()
        return self._waiting.popleft()[1]

    def _wait(self) -> None:
        """Waits until all full buffers are written; raises what went wrong."""
        while self._waiting:
            _idle.append(self._written_buffer())

    def _empty(self, size: int) -> None:
        """Writes the first bytes of the buffer and moves the others to its start."""
        self._wait()
        buffer = self._buffer
        self._write(self.fileno(), buffer[:size])
        self._written += size
        self._used -= size
        buffer[: self._used] = buffer[size : size + self._used]

    def _write(self, descriptor: int, data: np.ndarray) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.write(descriptor, data[done:].data)
            except OSError as reason:
                if reason.errno != errno.EINVAL or not _write_usually(descriptor):
                    raise OSError(reason.errno, reason.strerror, self._path) from None
            if done % _BLOCK_BYTES:
                # Only a part was taken, since the disk is full: let the next write say so.
                _write_usually(descriptor)


def _opened(path: str | os.PathLike[str]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL | _DIRECT, 0o666)
    except OSError as reason:
        if not _DIRECT or reason.errno != errno.EINVAL:
            raise
    # Some file systems refuse only once they have made the file.
    return os.open(path, flags, 0o666)


def _write_usually(descriptor: int) -> bool:
    """From here on any number of bytes may be written; returns whether that is new."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
    return bool(flags & _DIRECT)


def _taken_buffer() -> np.ndarray:
    try:
        return _idle.pop()
    except IndexError:
        return _fresh_buffer()


def _fresh_buffer() -> np.ndarray:
    """(_BUFFER_BYTES,) uint8, a huge page where there are such."""
    # Private: a process that is forked would write into the buffers of the other one. (And shared
    # memory has no huge pages unless the machine is set up for it.)
    memory = mmap.mmap(-1, 2 * _BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % _BUFFER_BYTES
    return whole[start : start + _BUFFER_BYTES]
