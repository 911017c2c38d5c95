"""The rows of a split in memory maps: any row of a bucket, at the cost of one copy.

Strided shards are mapped as they are. Canonical ones are gone through once, for where each record
ends (eight bytes a row). Compressed ones are unpacked once, into a file without a name in the
folder for temporary files, as rows are read in any order; it goes with the last reader. So do those
of an object store, which are copied there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias
from weakref import WeakValueDictionary

import crc32c
import numpy as np

from lengthwise.dataset import (
    CorruptDataError,
    Field,
    InputError,
    Manifest,
    RecordLayout,
    Shard,
    UsageError,
)
from lengthwise.dataset.canonical import FramedRecords, decode_records, record_ends
from lengthwise.dataset.compression import NONE, read_unpacked
from lengthwise.dataset.local_files import open_local
from lengthwise.dataset.record import decode_payload
from lengthwise.dataset.schema import LENGTH
from lengthwise.dataset.shard_records import check_frames, read_shard
from lengthwise.dataset.storage import RemotePath, StoragePath, side_by_side
from lengthwise.model.row_filter import RowFilter, proportional_shares

INTEGRITY = ("first", "always", "never")
_BLOCK_BYTES = 1 << 20
_SCANNED_ROWS = 1 << 14

# Files that this process has read whole and found right.
_checked: set[tuple[str, int, int, int, int]] = set()
# Shards that took work to open; all readers of a process share them while one is left.
_opened: WeakValueDictionary[tuple[str, int, int, int, int], Any] = WeakValueDictionary()

OpenShard: TypeAlias = np.ndarray | FramedRecords


@dataclass(frozen=True)
class BucketRows:
    """The rows of one bucket of a split, over all its shards.

    Attributes:
        layout: of the records.
        shards: for each shard (records, stride) uint8, mapped from the file; or `FramedRecords`,
            if the layout is canonical.
        ends: (shards,) int64, the number of rows up to the end of each shard.
        kept: (n,) int64, which of these rows count; None where all do.
    """

    layout: RecordLayout
    shards: tuple[OpenShard, ...]
    ends: np.ndarray
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        if self.kept is not None:
            return len(self.kept)
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, rows: np.ndarray, fields: Sequence[Field]) -> list[np.ndarray]:
        """Reads features of rows.

        Args:
            rows: (n,) int64, numbers of rows within the bucket, in any order. A negative one
                stands for no row.
            fields: of the layout, those that are wanted.

        Returns:
            For each field (n, …) float32 or int64, bool for masks; where there is no row, mask
            False, length 0 and values 0.

        Raises:
            CorruptDataError: a canonical record does not have the layout of its bucket.
        """
        if len(rows) and rows.min() < 0:
            there = rows >= 0
            arrays = []
            for values in self.read(rows[there], fields):
                arrays.append(np.zeros((len(rows), *values.shape[1:]), values.dtype))
                arrays[-1][there] = values
            return arrays
        if self.kept is not None:
            rows = self.kept[rows]
        if self.layout.canonical:
            return decode_records(self._records(rows), self.layout, fields)
        payloads = self._payloads(rows, fields)
        return [decode_payload(f, p) for f, p in zip(fields, payloads, strict=True)]

    def _payloads(self, rows: np.ndarray, fields: Sequence[Field]) -> list[np.ndarray]:
        """For each field (n, bytes) uint8, contiguous."""
        # An element per payload: NumPy then copies it as one.
        dtypes = [np.dtype((np.void, field.count * field.width)) for field in fields]
        if len(self.shards) == 1:
            payloads = [
                _column(self.shards[0], field, dtype)[rows]
                for field, dtype in zip(fields, dtypes, strict=True)
            ]
        else:
            payloads = [np.empty(len(rows), dtype) for dtype in dtypes]
            for matrix, here, inside in self._by_shard(rows):
                for payload, field in zip(payloads, fields, strict=True):
                    payload[here] = _column(matrix, field, payload.dtype)[inside]
        return [
            payload.view(np.uint8).reshape(len(rows), payload.dtype.itemsize)
            for payload in payloads
        ]

    def _records(self, rows: np.ndarray) -> FramedRecords:
        """Copies canonical records together."""
        pieces: list[memoryview] = [memoryview(b"")] * len(rows)
        sizes = np.empty(len(rows), np.int64)
        for shard, here, inside in self._by_shard(rows):
            assert isinstance(shard, FramedRecords)
            ends = shard.ends[inside]
            starts = np.where(inside > 0, shard.ends[inside - 1], 0)
            sizes[here] = ends - starts
            data = shard.data
            # Bytes of any number are copied fastest one record at a time.
            for i, start, end in zip(here.tolist(), starts.tolist(), ends.tolist(), strict=True):
                pieces[i] = data[start:end]
        return FramedRecords(np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(sizes))

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Each shard that holds some of the rows: the shard, which of them, their numbers in it."""
        shard = np.searchsorted(self.ends, rows, side="right")
        for i in np.unique(shard):
            here = np.flatnonzero(shard == i)
            yield self.shards[i], here, rows[here] - (self.ends[i] - len(self.shards[i]))

    def lengths(self) -> np.ndarray:
        """(n,) int64, of all rows; touches every record."""
        field, lengths = self.layout[LENGTH], np.empty(len(self), np.int64)
        for start in range(0, len(self), _SCANNED_ROWS):
            rows = np.arange(start, min(start + _SCANNED_ROWS, len(self)))
            (lengths[rows],) = self.read(rows, [field])
        return lengths


def open_split(
    manifest: Manifest,
    split: str,
    *,
    integrity: str = "first",
    row_filter: RowFilter | None = None,
) -> list[BucketRows]:
    """Maps the shards of a split into memory.

    Args:
        manifest: of the dataset.
        split: name of the split.
        integrity: "first" reads each file once in the life of the process and compares its CRC32C
            with the manifest's; "always" does so at every call; "never" compares sizes only.
        row_filter: which rows to read; all by default. Files that it does not need stay closed.

    Returns:
        The rows of every bucket, in the order of `manifest.max_lengths`, empty buckets included.

    Raises:
        ManifestError: there is no such split.
        CorruptDataError: a file is missing, or is not what the manifest says.
        InputError: the system does not allow so many open files.
        UsageError: an unknown `integrity` or bucket.
    """
    if integrity not in INTEGRITY:
        raise UsageError(f"integrity must be one of {', '.join(INTEGRITY)}, not {integrity!r}")
    row_filter = row_filter or RowFilter()
    row_filter.check_buckets(manifest)
    _allow_open_files(len(manifest.shards_of(split)))

    def open_bucket(max_length: int, shards: Sequence[Shard]) -> BucketRows:
        layout = manifest.layouts[max_length]

        def open_shard(shard: Shard) -> OpenShard:
            return _open_shard(manifest.path_of(shard), shard, layout, integrity=integrity)

        in_turn = side_by_side if isinstance(manifest.root, RemotePath) else map
        opened = tuple(in_turn(open_shard, shards))
        ends = np.cumsum([shard.records for shard in shards], dtype=np.int64)
        return BucketRows(layout, opened, ends)

    longest = manifest.max_lengths
    shortest = dict(zip(longest, (end + 1 for end in (0, *longest[:-1])), strict=True))
    shards: dict[int, list[Shard]] = {}
    kept: dict[int, np.ndarray] = {}
    for t in manifest.max_lengths:
        excluded = row_filter.excludes(shortest[t], t)
        shards[t] = [s for s in manifest.shards_of(split, t) if s.records and not excluded]
        if row_filter.cuts(shortest[t], t):
            lengths = open_bucket(t, shards[t]).lengths()
            kept[t] = np.flatnonzero(row_filter.keeps(lengths))
    counts = [
        len(kept[t]) if t in kept else sum(s.records for s in shards[t])
        for t in manifest.max_lengths
    ]
    taken = proportional_shares(row_filter.take, counts)
    buckets = []
    for t, rows, count in zip(manifest.max_lengths, taken, counts, strict=True):
        if t not in kept and rows < count:
            kept[t] = np.arange(rows)
        if t in kept:
            kept[t] = kept[t][:rows]
            needed = int(kept[t][-1]) + 1 if len(kept[t]) else 0
            ends = np.cumsum([shard.records for shard in shards[t]])
            # The shard that holds the last needed row is the last one needed.
            shards[t] = shards[t][: int(np.searchsorted(ends, needed)) + 1] if needed else []
        bucket = open_bucket(t, shards[t])
        buckets.append(BucketRows(bucket.layout, bucket.shards, bucket.ends, kept.get(t)))
    return buckets


def _column(matrix: Any, field: Field, dtype: np.dtype) -> np.ndarray:
    """(records,) void, the payloads of a field in a shard, where they are."""
    records, stride = matrix.shape
    return np.ndarray((records,), dtype, matrix.data, field.offset, (stride,))


def _open_shard(
    path: StoragePath, shard: Shard, layout: RecordLayout, *, integrity: str
) -> OpenShard:
    remote = isinstance(path, RemotePath)
    # Of a copy: the copy that another reader of this process has checked is taken as it is.
    identity = (str(path), 0, 0, shard.nbytes, shard.crc32c)
    if remote and integrity != "always" and (opened := _opened.get(identity)) is not None:
        return opened
    try:
        # One open file for check and map: what was checked is what will be read.
        with open_local(path) as file:
            status = os.fstat(file.fileno())
            plain = shard.compression == NONE and not layout.canonical
            expected = shard.records * layout.stride if plain else shard.nbytes
            if not status.st_size == shard.nbytes == expected:
                raise CorruptDataError(
                    f"{path}: has {status.st_size} bytes, the manifest says {shard.nbytes} for "
                    f"{shard.records} records of {layout.stride}; build the dataset again"
                )
            if not remote:
                own = status.st_ino, status.st_mtime_ns
                identity = (str(path), *own, shard.nbytes, shard.crc32c)
            if integrity == "always" or (
                integrity == "first" and (remote or identity not in _checked)
            ):
                _check_crc(path, file, shard, layout)
                _checked.add(identity)
            if plain and not remote:
                return _as_records(_mapped(file), shard, layout)
            opened = None if remote else _opened.get(identity)
            if opened is None:
                packed = shard.compression != NONE
                flat = _unpacked(path, file, shard, layout) if packed else _mapped(file)
                opened = _as_records(flat, shard, layout)
                _opened[identity] = opened
            return opened
    except CorruptDataError as reason:
        if str(reason).startswith(str(path)):
            raise
        raise CorruptDataError(f"{path}: {reason}; build the dataset again") from None
    except OSError as reason:
        if reason.errno == errno.EMFILE:
            raise InputError(
                f"{path}: too many open files, one for each shard: allow more with `ulimit -n`, or "
                "build again with a larger --shard-size"
            ) from None
        remedy = "build the dataset again"
        if isinstance(reason, FileNotFoundError) and not path.parent.is_dir():
            remedy = f"a newer build may have replaced it: open the dataset anew, or {remedy}"
        raise CorruptDataError(
            f"{path}: cannot be read ({reason.strerror or reason}); {remedy}"
        ) from None


def _unpacked(path: StoragePath, file: BinaryIO, shard: Shard, layout: RecordLayout) -> np.ndarray:
    """(bytes,) uint8, a shard unpacked, mapped from a file that has no name."""
    file.seek(0)
    most = shard.records * layout.stride
    try:
        with tempfile.TemporaryFile() as unpacked:
            for block in read_unpacked(file, shard.compression, max_bytes=most):
                unpacked.write(block)
            unpacked.flush()
            return _mapped(unpacked)
    except OSError as reason:
        raise InputError(
            f"{path}: cannot be unpacked into the folder for temporary files "
            f"({reason.strerror or reason}): let TMPDIR name one with room for {most:,} bytes, or "
            "build without --compression"
        ) from None


def _mapped(file: BinaryIO) -> np.ndarray:
    """(bytes,) uint8; a map of nothing cannot be made."""
    empty = os.fstat(file.fileno()).st_size == 0
    return np.zeros(0, np.uint8) if empty else np.asarray(np.memmap(file, np.uint8, mode="r"))


def _as_records(flat: np.ndarray, shard: Shard, layout: RecordLayout) -> OpenShard:
    """The bytes of a shard as records, if they can be those that the manifest says."""
    if layout.canonical:
        ends = record_ends(flat, layout)
        whole, records = int(ends[-1]) if len(ends) else 0, FramedRecords(flat, ends)
    else:
        whole = len(flat) // layout.stride * layout.stride
        records = flat[:whole].reshape(-1, layout.stride)
    if len(records) != shard.records or whole != len(flat):
        raise CorruptDataError(f"does not hold {shard.records} records, as the manifest says")
    return records


def _check_crc(path: StoragePath, file: BinaryIO, shard: Shard, layout: RecordLayout) -> None:
    file.seek(0)
    crc = 0
    while block := file.read(_BLOCK_BYTES):
        crc = crc32c.crc32c(block, crc)
    if crc != shard.crc32c:
        raise CorruptDataError(
            f"{path}: {_first_damage(file, shard, layout)}: CRC32C of the file is {crc:08x}, "
            f"the manifest says {shard.crc32c:08x}; `lengthwise build` makes it anew"
        )


def _first_damage(file: BinaryIO, shard: Shard, layout: RecordLayout) -> str:
    """Names the first record whose frame or checksum is wrong."""
    file.seek(0)
    number = 0
    try:
        for block in read_shard(file, layout, shard.compression, records=shard.records):
            check_frames(block, layout, first=number)
            number += len(block)
    except CorruptDataError as damage:
        return str(damage)
    return "is another file than was built"


def _allow_open_files(shards: int) -> None:
    """Raises the soft limit of open files where it is too low: each map keeps its file open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A job may read several splits, and the same one more than once.
    wanted = 4 * shards + 256
    with contextlib.suppress(OSError):
        wanted += len(os.listdir("/dev/fd"))
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
