"""The rows of a split in memory maps: any row of a bucket, at the cost of one copy."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import crc32c
import numpy as np

from lengthwise.dataset import (
    CorruptDataError,
    InputError,
    Manifest,
    RecordLayout,
    Shard,
    UsageError,
)

INTEGRITY = ("first", "never")
_BLOCK_BYTES = 1 << 20

# Files that this process has read whole and found right.
_checked: set[tuple[str, int, int, int, int]] = set()


@dataclass(frozen=True)
class BucketRows:
    """The rows of one bucket of a split, over all its shards.

    Attributes:
        layout: of the records.
        matrices: for each shard (records, stride) uint8, mapped from the file.
        ends: (shards,) int64, the number of rows up to the end of each shard.
    """

    layout: RecordLayout
    matrices: tuple[np.ndarray, ...]
    ends: np.ndarray

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Copies rows together.

        Args:
            rows: (n,) int64, numbers of rows within the bucket, in any order.

        Returns:
            (n, stride) uint8, framed records.
        """
        framed = np.empty((len(rows), self.layout.stride), np.uint8)
        shard = np.searchsorted(self.ends, rows, side="right")
        for i in np.unique(shard):
            here = np.flatnonzero(shard == i)
            matrix = self.matrices[i]
            framed[here] = matrix[rows[here] - (self.ends[i] - len(matrix))]
        return framed


def open_split(manifest: Manifest, split: str, *, integrity: str = "first") -> list[BucketRows]:
    """Maps all shards of a split into memory.

    Args:
        manifest: of the dataset.
        split: name of the split.
        integrity: "first" reads each file once in the life of the process and compares its CRC32C
            with the manifest's; "never" compares sizes only.

    Returns:
        The rows of every bucket, in the order of `manifest.max_lengths`, empty buckets included.

    Raises:
        ManifestError: there is no such split.
        CorruptDataError: a file is missing, or is not what the manifest says.
        InputError: the system does not allow so many open files.
        UsageError: an unknown `integrity`.
    """
    if integrity not in INTEGRITY:
        raise UsageError(f"integrity must be one of {', '.join(INTEGRITY)}, not {integrity!r}")
    _allow_open_files(len(manifest.shards_of(split)))
    buckets = []
    for max_length, layout in manifest.layouts.items():
        shards = [s for s in manifest.shards_of(split, max_length) if s.records]
        matrices = [
            _open_shard(manifest.path_of(shard), shard, layout, check_crc=integrity == "first")
            for shard in shards
        ]
        ends = np.cumsum([shard.records for shard in shards], dtype=np.int64)
        buckets.append(BucketRows(layout, tuple(matrices), ends))
    return buckets


def _open_shard(path: Path, shard: Shard, layout: RecordLayout, *, check_crc: bool) -> np.ndarray:
    try:
        # One open file for check and map: what was checked is what will be read.
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not status.st_size == shard.nbytes == shard.records * layout.stride:
                raise CorruptDataError(
                    f"{path}: has {status.st_size} bytes, the manifest says {shard.nbytes} for "
                    f"{shard.records} records of {layout.stride}; build the dataset again"
                )
            identity = (str(path), status.st_ino, status.st_mtime_ns, shard.nbytes, shard.crc32c)
            if check_crc and identity not in _checked:
                _check_crc(path, file, shard)
                _checked.add(identity)
            matrix = np.memmap(file, np.uint8, mode="r", shape=(shard.records, layout.stride))
    except OSError as reason:
        if reason.errno == errno.EMFILE:
            raise InputError(
                f"{path}: too many open files, one for each shard: allow more with `ulimit -n`, or "
                "build again with a larger --shard-size"
            ) from None
        raise CorruptDataError(
            f"{path}: cannot be read ({reason.strerror or reason}); build the dataset again"
        ) from None
    return np.asarray(matrix)


def _check_crc(path: Path, file: BinaryIO, shard: Shard) -> None:
    crc = 0
    while block := file.read(_BLOCK_BYTES):
        crc = crc32c.crc32c(block, crc)
    if crc != shard.crc32c:
        raise CorruptDataError(
            f"{path}: CRC32C is {crc:08x}, the manifest says {shard.crc32c:08x}; "
            "`lengthwise verify` names the record, `lengthwise build` makes it anew"
        )


def _allow_open_files(shards: int) -> None:
    """Raises the soft limit of open files where it is too low: each map keeps its file open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A job may read several splits, and the same one more than once.
    wanted = 4 * shards + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
