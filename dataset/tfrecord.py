"""TFRecord framing: how records stand one after another in a file.

Each record is

    uint64 length | uint32 masked CRC32C of the length | data | uint32 masked CRC32C of the data

little-endian, without a header or footer of the file. Source: TensorFlow,
`tensorflow/core/lib/io/record_writer.h`; CRC32C (Castagnoli) is RFC 3720, section 12.1 and B.4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

import crc32c
import numpy as np

from lengthwise.dataset.errors import CorruptDataError

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES

_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC32C of `data`, rotated right by 15 bits plus a constant, as TFRecord stores it.

    Example:
        >>> hex(masked_crc32c(b"123456789"))
        '0xc78ab0e5'
    """
    crc = crc32c.crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame_header(length: int) -> bytes:
    """The 12 bytes before the data of a record of `length` bytes."""
    encoded = struct.pack("<Q", length)
    return encoded + struct.pack("<I", masked_crc32c(encoded))


def frame_record(data: bytes) -> bytes:
    """One record with its frame.

    Example:
        >>> frame_record(b"abc").hex()
        '0300000000000000b099490e6162636e57f121'
    """
    return frame_header(len(data)) + data + struct.pack("<I", masked_crc32c(data))


def frame_matrix(records: np.ndarray) -> np.ndarray:
    """Frames records of one size.

    Args:
        records: (n, record_bytes) uint8.

    Returns:
        (n, record_bytes + 16) uint8, C-contiguous: its bytes are a TFRecord file.

    Example:
        >>> frame_matrix(np.frombuffer(b"abc", np.uint8)[None]).tobytes() == frame_record(b"abc")
        True
    """
    n, record_bytes = records.shape
    framed = np.empty((n, record_bytes + FRAME_BYTES), np.uint8)
    framed[:, :HEADER_BYTES] = np.frombuffer(frame_header(record_bytes), np.uint8)
    framed[:, HEADER_BYTES:-FOOTER_BYTES] = records
    seal_frames(framed)
    return framed


def seal_frames(framed: np.ndarray) -> None:
    """Writes the CRC of the data of each record, in place.

    Args:
        framed: (n, record_bytes + 16) uint8, C-contiguous, headers and data already there.
    """
    n, stride = framed.shape
    if n == 0:
        return
    starts = np.arange(0, n * stride, stride) + HEADER_BYTES
    crcs = masked_crcs(framed.reshape(-1), starts, starts + (stride - FRAME_BYTES))
    framed[:, stride - FOOTER_BYTES :] = crcs.astype("<u4").view(np.uint8).reshape(n, FOOTER_BYTES)


def masked_crcs(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Masked CRC32C of pieces of an array of bytes.

    Args:
        flat: (bytes,) uint8.
        starts, ends: (n,) int64, of the pieces.

    Returns:
        (n,) uint32.
    """
    data, crc = flat.data, crc32c.crc32c
    # One call a record is the fastest there is in Python: the checksum itself outweighs the loop.
    pieces = zip(starts.tolist(), ends.tolist(), strict=True)
    values = np.array([crc(data[start:end]) for start, end in pieces], np.uint32)
    return ((values >> np.uint32(15)) | (values << np.uint32(17))) + np.uint32(_MASK_DELTA)


def read_records(path: str | os.PathLike[str], *, max_bytes: int = 1 << 31) -> Iterator[bytes]:
    """Reads a TFRecord file record by record, checking every byte.

    Args:
        path: the file.
        max_bytes: the largest record that is believed; larger ones are taken for corruption
            before anything is allocated.

    Yields:
        The data of each record.

    Raises:
        CorruptDataError: names the file and the number of the first record that is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(frame_record(b"abc") + frame_record(b""))
        ...     file.flush()
        ...     list(read_records(file.name))
        [b'abc', b'']
    """
    with open(path, "rb") as file:
        remaining = os.fstat(file.fileno()).st_size
        number = 0
        while remaining:
            place = f"{path}: record {number}"
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                raise CorruptDataError(f"{place}: the file ends within a record")
            length, length_crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != length_crc:
                raise CorruptDataError(f"{place}: checksum of the record's length does not match")
            remaining -= HEADER_BYTES + length + FOOTER_BYTES
            if remaining < 0:
                raise CorruptDataError(f"{place}: {length} bytes are more than the file has")
            if length > max_bytes:
                raise CorruptDataError(
                    f"{place}: {length} bytes are more than a record may have ({max_bytes})"
                )
            data = file.read(length)
            if struct.unpack("<I", file.read(FOOTER_BYTES))[0] != masked_crc32c(data):
                raise CorruptDataError(f"{place}: checksum of the data does not match")
            yield data
            number += 1


def write_records(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes records of any size; returns how many.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     write_records(file.name, [b"abc", b""])
        2
    """
    count = 0
    with open(path, "wb") as file:
        for record in records:
            file.write(frame_record(record))
            count += 1
    return count
