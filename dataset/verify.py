"""Checks every byte of a dataset against its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import crc32c

from lengthwise.dataset.document import read_document
from lengthwise.dataset.errors import CorruptDataError, LengthwiseError, ManifestError
from lengthwise.dataset.manifest import (
    MANIFEST_NAME,
    PLAN_NAME,
    STAGING_NAME,
    Manifest,
    crc_matches,
    data_folders,
)
from lengthwise.dataset.record import RecordLayout
from lengthwise.dataset.schema import LENGTH
from lengthwise.dataset.shard import Shard
from lengthwise.dataset.shard_records import check_frames, decode_block, read_shard
from lengthwise.dataset.storage import RemotePath, files_below, storage_path

_BLOCK_BYTES = 1 << 20


def verify(path: str | os.PathLike[str] | RemotePath) -> list[str]:
    """Finds every difference between a dataset and its manifest.

    Each shard is read whole: size, CRC32C, the checksums of every record, their number, and the sum
    of their lengths. The manifest's
    own checksum, the accounts, the plan and files that nothing names are checked too.

    Args:
        path: the dataset folder, or its URL.

    Returns:
        One line a fault, each naming a file; empty where the dataset is whole.

    Raises:
        ManifestError: there is no dataset at `path`.

    Example:
        >>> verify("nowhere")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    root = storage_path(path)
    if not (root / MANIFEST_NAME).is_file():
        Manifest.load(root)
    try:
        manifest = Manifest.load(root, check_crc=False)
    except LengthwiseError as fault:
        return [str(fault)]
    return list(_faults(manifest))


def _faults(manifest: Manifest) -> Iterator[str]:
    path = manifest.root / MANIFEST_NAME
    if not crc_matches(read_document(path, error=ManifestError)):
        yield f"{path}: was changed after the build: its checksum does not match"
    yield from _account_faults(manifest)
    yield from _plan_faults(manifest)
    for shard in manifest.shards:
        yield from _shard_faults(manifest, shard)
    named = {manifest.path_of(shard) for shard in manifest.shards}
    named.add(manifest.data_folder / PLAN_NAME)
    for folder in data_folders(manifest.root):
        if folder != manifest.data_folder:
            yield f"{folder}: is left of another build; build again to be rid of it"
            continue
        for name in files_below(folder):
            if folder / name not in named:
                yield f"{folder / name}: is not named by the manifest"


def _account_faults(manifest: Manifest) -> Iterator[str]:
    place = manifest.root / MANIFEST_NAME
    for split, account in manifest.accounts.items():
        records = manifest.records(split)
        if not account.balanced:
            yield f"{place}: split '{split}': read + pieces is not written + dropped + rejected"
        if account.written != records:
            yield (
                f"{place}: split '{split}': {account.written} rows were written, "
                f"but its shards hold {records}"
            )


def _plan_faults(manifest: Manifest) -> Iterator[str]:
    paths = [manifest.data_folder / PLAN_NAME, manifest.root / PLAN_NAME]
    if (manifest.root / STAGING_NAME).exists():
        # A build is at work or was killed; the plan at the root may be older than the manifest.
        paths.pop()
    for path in paths:
        try:
            if crc32c.crc32c(path.read_bytes()) != manifest.plan_crc32c:
                yield f"{path}: was changed after the build: its checksum does not match"
        except OSError as reason:
            yield f"{path}: cannot be read: {reason.strerror}"


def _shard_faults(manifest: Manifest, shard: Shard) -> Iterator[str]:
    path = manifest.path_of(shard)
    layout = manifest.layouts[shard.max_length]
    try:
        with path.open("rb") as raw:
            file = _Checked(raw)
            records, steps, damage = _count(file, shard, layout)
    except FileNotFoundError:
        yield f"{path}: is missing"
        return
    except OSError as reason:
        yield f"{path}: cannot be read: {reason.strerror}"
        return
    if file.nbytes != shard.nbytes:
        yield f"{path}: has {file.nbytes} bytes, the manifest says {shard.nbytes}"
    if manifest.is_plain and shard.nbytes != shard.records * layout.stride:
        yield (
            f"{path}: the manifest says {shard.records} records of {layout.stride} bytes, "
            f"but {shard.nbytes} bytes in all"
        )
    if file.crc32c != shard.crc32c:
        where = f" ({damage})" if damage else ""
        yield (f"{path}: CRC32C is {file.crc32c:08x}, the manifest says {shard.crc32c:08x}{where}")
    elif damage:
        yield f"{path}: {damage}"
    elif records != shard.records:
        yield f"{path}: has {records} records, the manifest says {shard.records}"
    elif steps != shard.steps:
        yield f"{path}: has {steps} real steps, the manifest says {shard.steps}"


def _count(file: _Checked, shard: Shard, layout: RecordLayout) -> tuple[int, int, str]:
    """Reads a file to its end: its records, their steps, and the first damage where there is one.

    A record is taken apart only where both its checksums are right.
    """
    records = steps = 0
    damage = ""
    try:
        for block in read_shard(file, layout, shard.compression, records=shard.records):
            check_frames(block, layout, first=records)
            records += len(block)
            steps += int(decode_block(block, layout, [LENGTH])[LENGTH].sum())
    except CorruptDataError as fault:
        damage = str(fault)
    while file.read(_BLOCK_BYTES):
        pass
    return records, steps, damage


class _Checked:
    """A file whose bytes are counted and summed up as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.nbytes = self.crc32c = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.nbytes += len(data)
        self.crc32c = crc32c.crc32c(data, self.crc32c)
        return data
