"""Writing TFRecord files so that a file is whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import crc32c
import numpy as np
from apache_beam.pvalue import PValue

from lengthwise.dataset.canonical import FramedRecords
from lengthwise.dataset.compression import NONE, Compressor
from lengthwise.dataset.errors import OutputError
from lengthwise.dataset.options import COMPRESSIONS, one_of
from lengthwise.dataset.shard import shard_name
from lengthwise.dataset.storage import RemotePath, storage_path, written_whole
from lengthwise.transforms.uncached_file import UncachedFile

_SHARD_NAME = re.compile(r"len\d+-\d+-of-\d+\.tfrecord(\.gz)?")


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written.

    Attributes:
        path: where it is.
        records: how many it holds.
        nbytes: its size.
        crc32c: of the whole file.
    """

    path: str
    records: int
    nbytes: int
    crc32c: int


def write_shard(
    path: str | os.PathLike[str] | RemotePath,
    blocks: Iterable[np.ndarray | FramedRecords],
    *,
    compression: str = NONE,
) -> WrittenFile:
    """Writes framed records to a file that is whole or not there.

    A local file is on disk then; its name is once the folder is synced too, which is left to
    whoever writes many files.

    Args:
        path: the final name, or a URL; its folder is made. A file of that name is replaced at once.
        blocks: framed records, each (n, stride) uint8, C-contiguous, or `FramedRecords`.
        compression: of the file, `none` or `gzip`.

    Example:
        >>> import tempfile
        >>> from lengthwise.dataset.tfrecord import frame_matrix
        >>> block = frame_matrix(np.zeros((2, 5), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = write_shard(f"{folder}/a.tfrecord", [block])
        ...     written.records, written.nbytes, os.listdir(folder)
        (2, 42, ['a.tfrecord'])
    """
    path = storage_path(path)
    records = nbytes = crc = 0
    compressor = Compressor(compression)
    with written_whole(path) as unfinished, UncachedFile(unfinished) as file:
        for block in blocks:
            if len(block) == 0:
                continue
            data = compressor.add(block.data.cast("B"))
            file.write(data)
            crc = crc32c.crc32c(data, crc)
            records += len(block)
            nbytes += len(data)
        data = compressor.finish()
        file.write(data)
        crc = crc32c.crc32c(data, crc)
        nbytes += len(data)
        if isinstance(path, RemotePath):
            file.finish()
        else:
            file.sync()
    return WrittenFile(str(path), records, nbytes, crc)


def write_text(path: str | os.PathLike[str] | RemotePath, text: str) -> None:
    """Writes a small document whole or not at all."""
    path = storage_path(path)
    with written_whole(path) as unfinished:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike[str] | RemotePath) -> None:
    """Makes renames within a folder last through a loss of power."""
    if isinstance(folder, RemotePath):
        return  # what an object store has taken is there to stay
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriteTFRecords(beam.PTransform):
    """Writes framed records as TFRecord files, one folder, names and bytes always the same.

    Blocks of records are spread over the shards by their content, and stand in a shard in the
    order of their content: the same blocks give the same files with any number of workers. For a
    shuffle by rows, a manifest and resumable commits use `lengthwise build`.

    Input: `(max_length, records)`, records (n, stride) uint8, as `EncodeExamples` gives.
    Output: `WrittenFile`, one a file.

    Args:
        folder: where the files go, a path or a URL: `len00064-00000-of-00004.tfrecord`, …
        num_shards: files for each max_length; a shard that gets no block has no file.
        compression: of the files, `none` or `gzip`, whose names end with `.gz`.
        overwrite: True deletes the shards of an earlier run; otherwise they are an error, since
            they would stand beside the new ones and double the data.

    Metrics (namespace `lengthwise`): counters `records_written`, `bytes_written`.

    Raises:
        OutputError: shards of an earlier run are there.

    Example:
        >>> import tempfile
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> from lengthwise.dataset.tfrecord import frame_matrix
        >>> block = frame_matrix(np.zeros((2, 5), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ...         _ = pipeline | beam.Create([(64, block)]) | WriteTFRecords(folder)
        ...     os.listdir(folder)
        ['len00064-00000-of-00001.tfrecord']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        num_shards: int = 1,
        compression: str = NONE,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        if num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, got {num_shards}")
        self._folder = os.fspath(folder)
        self._num_shards = num_shards
        one_of("compression", compression, COMPRESSIONS)
        self._compression = compression
        self._overwrite = overwrite

    def expand(self, input_or_inputs: beam.PCollection) -> PValue:
        folder = storage_path(self._folder)
        for old in sorted(folder.iterdir(), key=str) if folder.is_dir() else ():
            if not _SHARD_NAME.fullmatch(old.name):
                continue
            if not self._overwrite:
                raise OutputError(
                    f"{old}: is of an earlier run; choose another folder, or overwrite=True"
                )
            old.unlink()
        return (
            input_or_inputs
            | "ChooseShard" >> beam.Map(_keyed_by_shard, self._num_shards)
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard"
            >> beam.Map(_write_group, self._folder, self._num_shards, self._compression)
        )


def _keyed_by_shard(
    element: tuple[int, np.ndarray], num_shards: int
) -> tuple[tuple[int, int], np.ndarray]:
    max_length, records = element
    return (max_length, crc32c.crc32c(np.ascontiguousarray(records).data) % num_shards), records


def _write_group(
    element: tuple[tuple[int, int], Iterable[np.ndarray]],
    folder: str,
    num_shards: int,
    compression: str,
) -> WrittenFile:
    (max_length, shard), blocks = element
    name = Path(shard_name("", max_length, shard, num_shards, compression=compression)).name
    ordered = _in_order_of_content(blocks)
    written = write_shard(storage_path(folder) / name, ordered, compression=compression)
    sync_folder(storage_path(folder))
    metrics = beam.metrics.Metrics
    metrics.counter("lengthwise", "records_written").inc(written.records)
    metrics.counter("lengthwise", "bytes_written").inc(written.nbytes)
    return written


def _in_order_of_content(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    yield from sorted((np.ascontiguousarray(block) for block in blocks), key=lambda b: b.tobytes())
