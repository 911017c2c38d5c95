"""The records of a shard, a block at a time, whatever their layout and compression."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lengthwise.dataset.canonical import FramedRecords, decode_records, record_ends
from lengthwise.dataset.compression import Readable, read_unpacked
from lengthwise.dataset.errors import CorruptDataError
from lengthwise.dataset.record import RecordLayout
from lengthwise.dataset.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, masked_crcs

_BLOCK_BYTES = 1 << 20


def read_shard(
    file: Readable, layout: RecordLayout, compression: str, *, records: int
) -> Iterator[np.ndarray | FramedRecords]:
    """Reads a shard in blocks of whole records, in memory that does not depend on its size.

    Args:
        file: open at its start.
        layout: of the records.
        compression: of the file.
        records: how many it should hold; a compressed file that unpacks to more is refused.

    Yields:
        Framed records: (n, layout.stride) uint8, or `FramedRecords` if the layout is canonical.

    Raises:
        CorruptDataError: what the file holds cannot be these records. The message does not name
            the file.
    """
    block_bytes = max(1, _BLOCK_BYTES // layout.stride) * layout.stride
    blocks = read_unpacked(
        file, compression, max_bytes=records * layout.stride, block_bytes=block_bytes
    )
    if layout.canonical:
        yield from _split(blocks, layout)
        return
    for block in blocks:
        rows, rest = divmod(len(block), layout.stride)
        yield np.frombuffer(block, np.uint8, rows * layout.stride).reshape(rows, layout.stride)
        if rest:
            raise CorruptDataError("the file ends within a record")


def decode_block(
    block: np.ndarray | FramedRecords, layout: RecordLayout, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Values of features, `length`, `mask` or `<feature>__observed` of a block of records.

    Returns:
        name -> (n, …) float32 or int64, bool for masks.
    """
    if isinstance(block, FramedRecords):
        values = decode_records(block, layout, [layout[name] for name in names])
        return dict(zip(names, values, strict=True))
    return {name: layout.decode_field(name, block) for name in names}


def check_frames(
    block: np.ndarray | FramedRecords, layout: RecordLayout, *, first: int = 0
) -> None:
    """Compares both checksums of every record.

    Args:
        block: from `read_shard`.
        layout: of the records.
        first: number of the block's first record.

    Raises:
        CorruptDataError: names the first record that is damaged.
    """
    if isinstance(block, FramedRecords):
        flat, starts, ends = block.flat, block.starts, block.ends
    else:
        flat = block.reshape(-1)
        ends = np.arange(1, len(block) + 1) * layout.stride
        starts = ends - layout.stride
    if len(ends) == 0:
        return
    lengths = ends - starts - FRAME_BYTES
    header = lengths.astype("<u8").view(np.uint8).reshape(-1, 8)
    crcs = masked_crcs(
        header.reshape(-1), np.arange(len(ends)) * 8, np.arange(1, len(ends) + 1) * 8
    )
    header = np.concatenate((header, _bytes_of(crcs)), axis=1)
    found = flat[starts[:, None] + np.arange(HEADER_BYTES)]
    _require(header, found, "record's length", first)
    crcs = masked_crcs(flat, starts + HEADER_BYTES, ends - FOOTER_BYTES)
    found = flat[(ends - FOOTER_BYTES)[:, None] + np.arange(FOOTER_BYTES)]
    _require(_bytes_of(crcs), found, "data", first)


def _bytes_of(crcs: np.ndarray) -> np.ndarray:
    return crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER_BYTES)


def _require(expected: np.ndarray, found: np.ndarray, what: str, first: int) -> None:
    wrong = (expected != found).any(axis=1)
    if wrong.any():
        number = first + int(np.flatnonzero(wrong)[0])
        raise CorruptDataError(f"record {number}: checksum of the {what} does not match")


def _split(blocks: Iterable[bytes], layout: RecordLayout) -> Iterator[FramedRecords]:
    """Cuts blocks of bytes into whole records; what a block begins, the next one ends."""
    pending, number = b"", 0
    for block in blocks:
        pending += block
        ends = record_ends(np.frombuffer(pending, np.uint8), layout)
        if len(ends):
            yield FramedRecords(np.frombuffer(pending, np.uint8, int(ends[-1])), ends)
            pending, number = pending[int(ends[-1]) :], number + len(ends)
        if len(pending) >= layout.stride:
            raise CorruptDataError(f"record {number}: what it says of its length cannot be right")
    if pending:
        raise CorruptDataError(f"record {number}: the file ends within it")
