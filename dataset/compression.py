"""Compression of whole shards, as `TFRecordDataset(compression_type="GZIP")` reads them.

A shard is one member of gzip, without name or time, so that the same records give the same bytes.
What is read is bounded by what the manifest says: a small file that unpacks to more is refused.

Source: RFC 1952 (gzip); ISA-L's igzip, several times faster than zlib at its lowest level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from isal import isal_zlib

from lengthwise.dataset.errors import CorruptDataError
from lengthwise.dataset.options import COMPRESSIONS, one_of

NONE, GZIP = COMPRESSIONS
SUFFIXES = {NONE: "", GZIP: ".gz"}
_LEVEL = 1
# The window of 32 KiB, and 16 for the header and trailer of gzip.
_WINDOW_BITS = 15 + 16
_BLOCK_BYTES = 1 << 20


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes at most, none at the end."""
        ...


class Compressor:
    """Compresses a stream of bytes.

    Args:
        compression: `none` or `gzip`.

    Example:
        >>> import gzip
        >>> compressor = Compressor("gzip")
        >>> gzip.decompress(compressor.add(b"abc") + compressor.finish())
        b'abc'
    """

    def __init__(self, compression: str) -> None:
        one_of("compression", compression, COMPRESSIONS)
        packs = compression == GZIP
        self._stream = isal_zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS) if packs else None

    def add(self, data: bytes | memoryview) -> bytes | memoryview:
        """What can be written once `data` is there; without compression `data` itself."""
        return data if self._stream is None else self._stream.compress(data)

    def finish(self) -> bytes:
        """What is left to be written."""
        return b"" if self._stream is None else self._stream.flush()


def read_unpacked(
    file: Readable, compression: str, *, max_bytes: int, block_bytes: int = _BLOCK_BYTES
) -> Iterator[bytes]:
    """Reads a file in blocks, unpacked, in bounded memory.

    Args:
        file: open at its start.
        compression: `none` or `gzip`.
        max_bytes: the most that it may hold unpacked.
        block_bytes: size of a block; of every one but the last.

    Yields:
        The bytes.

    Raises:
        CorruptDataError: it is not what gzip writes, or unpacks to more than `max_bytes`. The
            message does not name the file.
    """
    if compression == NONE:
        while block := file.read(block_bytes):
            yield block
        return
    left, pending = max_bytes, b""
    for piece in _pieces(file):
        left -= len(piece)
        if left < 0:
            raise CorruptDataError(f"unpacks to more than the {max_bytes} bytes of its records")
        pending += piece
        while len(pending) >= block_bytes:
            yield pending[:block_bytes]
            pending = pending[block_bytes:]
    if pending:
        yield pending


def _pieces(file: Readable) -> Iterator[bytes]:
    """What a file of one member of gzip holds, at most a block at once."""
    stream = isal_zlib.decompressobj(wbits=_WINDOW_BITS)
    try:
        while packed := file.read(_BLOCK_BYTES):
            while packed and not stream.eof:
                if piece := stream.decompress(packed, _BLOCK_BYTES):
                    yield piece
                packed = stream.unconsumed_tail
            if stream.eof:
                break
        while not stream.eof and (piece := stream.decompress(b"", _BLOCK_BYTES)):
            yield piece
    except isal_zlib.IsalError:  # pyright: ignore[reportGeneralTypeIssues]
        raise CorruptDataError("is damaged: gzip cannot unpack it") from None
    if not stream.eof:
        raise CorruptDataError("is damaged: it ends before gzip does")
    if stream.unused_data or file.read(1):
        raise CorruptDataError("is damaged: something follows the end of gzip")
