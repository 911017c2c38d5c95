"""Staged rows as the workers of the exchange see them: mapped, and found by shard.

Rows stay where ingesting left them. Once the plan is known, each unit gets a file of *places*
beside its rows, sorted by shard, so that a shard finds its rows of a unit as one slice and never
looks at a row of another:

    units/000007.arrow                rows, in chunks sorted by (split, length)
    shards-<plan>/places/000007       ids of its strings | places of shard 0 | of shard 1 | …

A staged place has positions instead of addresses. Those from the size of the rows' file on are in
the file of places itself: ids of strings, which the rows only have codes for.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from lengthwise.dataset.local_files import CopiedFiles, open_local
from lengthwise.dataset.storage import StoragePath, written_whole
from lengthwise.pipeline.staging import damaged, unit_places_path, unit_rows_path
from lengthwise.transforms.row_places import (
    concat_places,
    gather_rows,
    place_dtype,
    places_of,
    spans_of,
    take_places,
)

# Units that are mapped at once: each takes two file descriptors.
_MAPPED_UNITS = 128
# For one page that is touched the kernel maps those around it, and all count as memory of the
# process: a window. Where a shard takes few of the rows, each row has one of its own.
_WINDOW_BITS = 16
# Bytes that are read at once into the page cache: so few that the core's own cache holds the copy.
_READ_BYTES = 256 << 10
# Windows that are touched before their pages are let go of.
_TOUCHED_WINDOWS = 256


# Number of a unit, first place in its file of places, number of places.
Reference = tuple[int, int, int]


class _MappedFile:
    """A file in memory. Arrow's own mapping asks the kernel for each whole chunk ahead of time."""

    def __init__(self, path: StoragePath, staging: str, *, read_first: bool = False) -> None:
        try:
            with open_local(path) as file:
                if read_first:
                    _read_through(file)
                self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                if hasattr(mmap, "MADV_NOHUGEPAGE"):
                    # Or a window could be a huge page, where the file has one in memory.
                    with contextlib.suppress(OSError):
                        self._pages.madvise(mmap.MADV_NOHUGEPAGE)
        except ValueError:  # it is empty
            raise damaged(staging) from None
        self.data = pa.py_buffer(self._pages)

    def holds(self, data: pa.Buffer) -> bool:
        """Whether a buffer is a part of this file."""
        return 0 <= data.address - self.data.address <= self.data.size - data.size

    def let_go(self) -> None:
        """Gives the pages back; those that are touched again come back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)


def _read_through(file: BinaryIO) -> None:
    """Brings a file into the page cache, from its start to its end.

    Of what is read in this order Linux keeps many pages as one, where the file system can: a
    fraction of the time to read, to map, to let go of and to delete. Of what is touched in a map,
    or asked for by `posix_fadvise`, each page is one.
    """
    piece = bytearray(_READ_BYTES)
    while os.readv(file.fileno(), [piece]):
        pass


class StagedUnit:
    """The rows of one unit, mapped.

    Args:
        staging: the staging folder.
        number: of the unit.
    """

    def __init__(self, staging: str, number: int) -> None:
        self._file = _MappedFile(unit_rows_path(staging, number), staging, read_first=True)
        self._staging = staging
        self._number = number

    def chunks(self) -> Iterator[pa.RecordBatch]:
        """The chunks of packed rows, in order."""
        try:
            reader = pa.ipc.open_file(self._file.data)
            for chunk in range(reader.num_record_batches):
                rows = reader.get_batch(chunk)
                # Places are addresses: what damaged offsets lead to would be read without a check.
                rows.validate(full=True)
                yield rows
        except (pa.ArrowException, OSError):
            raise damaged(self._staging) from None

    def write_places(
        self, chunks: Iterable[tuple[pa.RecordBatch, np.ndarray]], shards: StoragePath
    ) -> list[tuple[int, Reference]]:
        """Writes the file of places.

        Args:
            chunks: of this unit, possibly with other values, and the number of the shard of each
                row, (n,) integers; rows of negative numbers are left out.
            shards: folder of the shards of the plan.

        Returns:
            For each shard that takes rows of this unit, its number and the reference to them.
        """
        path = unit_places_path(shards, self._number)
        with written_whole(path) as unfinished, open(unfinished, "wb") as file:
            places, numbers = [], []
            for rows, shard in chunks:
                own = places_of(rows)
                for name, spans in spans_of(own):
                    values = rows.column(name).buffers()[2]
                    if values is None or self._file.holds(values):
                        spans["address"] -= self._file.data.address
                    else:
                        position = self._file.data.size + file.tell()
                        spans["address"] += position - values.address
                        file.write(values)
                    spans["address"][spans["size"] <= 0] = 0
                places.append(own)
                numbers.append(shard)
            by_number, runs = by_shard(places, numbers)
            start = file.tell()
            file.write(by_number.data)
        size = by_number.itemsize
        return [
            (number, (self._number, start + first * size, end - first))
            for number, first, end in runs
        ]


def by_shard(
    places: Sequence[np.ndarray], numbers: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Sorts places by the number of their shard; stable.

    Args:
        places: parts of the places.
        numbers: for each place of each part, the number of its shard; negative leaves it out.

    Returns:
        The places; for each shard, ascending, its number, its first place and the end.
    """
    number = np.concatenate(numbers)
    kept = np.flatnonzero(number >= 0)
    number = number[kept]
    # Sorting integers of sixteen bits takes a fraction of the time.
    small = number.astype(np.uint16) if number.size and number.max() < 1 << 16 else number
    order = np.argsort(small, kind="stable")
    distinct, firsts = np.unique(number[order], return_index=True)
    ends = [*firsts[1:].tolist(), len(number)]
    runs = list(zip(distinct.tolist(), firsts.tolist(), ends, strict=False))
    return take_places(concat_places(places), kept[order]), runs


def _windows(places: np.ndarray) -> np.ndarray:
    """(n,) how many windows the rows up to each one touch, in the order of the places."""
    entered = np.zeros(len(places), np.int64)
    for _, spans in spans_of(places):
        window = spans["address"] >> _WINDOW_BITS
        entered[0] += 1
        entered[1:] += window[1:] != window[:-1]
        entered += np.maximum(spans["size"], 0) >> _WINDOW_BITS
    return np.cumsum(entered)


class StagedRows:
    """The staged rows of all units; units stay mapped until there are too many of them.

    Files of an object store are copied to this machine, each once.

    Args:
        staging: the staging folder.
        shards: folder of the shards of the plan.
    """

    def __init__(self, staging: str, shards: StoragePath) -> None:
        self._copies = CopiedFiles()
        self._staging = staging
        self._shards = shards
        self._units: dict[int, tuple[_MappedFile, _MappedFile]] = {}
        self._dtype: np.dtype | None = None
        self._touched = 0

    def places(self, references: Sequence[Reference]) -> tuple[np.ndarray, list[Any]]:
        """Finds the rows of a shard.

        Unless they are few, they are copied, unit by unit as they lie on disk: what a process has
        in memory is then the rows of one shard, and not all that lies between them.

        Args:
            references: at least one, in the order of units.

        Returns:
            Places in the order of units and chunks, and what must be kept as long as they are used.
        """
        if len(references) <= _MAPPED_UNITS:
            places, files = self._located(references)
            touched = int(_windows(places)[-1])
            if touched <= _TOUCHED_WINDOWS:
                self._touched += touched
                return places, files
        copies = [
            gather_rows(part)
            for first in range(0, len(references), _MAPPED_UNITS)
            for part in self._parts(references[first : first + _MAPPED_UNITS])
        ]
        return concat_places([places_of(rows) for rows in copies]), copies

    def _parts(self, references: Sequence[Reference]) -> Iterator[np.ndarray]:
        """Places of rows that together touch about `_TOUCHED_WINDOWS`."""
        places, units = self._located(references)
        ends = np.cumsum([rows for _, _, rows in references])
        part = _windows(places) // _TOUCHED_WINDOWS
        firsts = [0, *(np.flatnonzero(part[1:] != part[:-1]) + 1).tolist(), len(places)]
        for first, last in itertools.pairwise(firsts):
            yield places[first:last]
            touched = np.searchsorted(ends, [first, last - 1], "right")
            for files in units[touched[0] : touched[1] + 1]:
                for file in files:
                    file.let_go()

    def _located(self, references: Sequence[Reference]) -> tuple[np.ndarray, list[Any]]:
        """Places with addresses, and the mapped files that these lie in."""
        if self._touched > _TOUCHED_WINDOWS:
            self._let_go()
        units = [self._mapped(number) for number, _, _ in references]
        if self._dtype is None:
            self._dtype = place_dtype(pa.ipc.open_file(units[0][0].data).schema)
        try:
            places = concat_places(
                [
                    np.frombuffer(beside.data, self._dtype, rows, start)
                    for (_, beside), (_, start, rows) in zip(units, references, strict=True)
                ]
            )
        except ValueError:
            raise damaged(self._staging) from None
        for _, beside in units:
            beside.let_go()
        counts = [rows for _, _, rows in references]
        own = np.array([(rows.data.address, rows.data.size) for rows, _ in units])
        other = np.array([(beside.data.address, beside.data.size) for _, beside in units])
        own, other = np.repeat(own, counts, axis=0), np.repeat(other, counts, axis=0)
        for _, spans in spans_of(places):
            position = spans["address"]
            # Not the sum of position and size, which can be past the range of integers.
            end = np.where(position < own[:, 1], own[:, 1], own[:, 1] + other[:, 1])
            left = end - position
            if (position < 0).any() or (spans["size"] > left).any():
                raise damaged(self._staging)
            beside = position >= own[:, 1]
            spans["address"] += own[:, 0]
            if beside.any():
                spans["address"] += np.where(beside, other[:, 0] - own[:, 0] - own[:, 1], 0)
        return places, units

    def _mapped(self, number: int) -> tuple[_MappedFile, _MappedFile]:
        if number not in self._units:
            if len(self._units) >= _MAPPED_UNITS:
                self._units = {}
            self._units[number] = (
                self._mapped_file(unit_rows_path(self._staging, number)),
                self._mapped_file(unit_places_path(self._shards, number)),
            )
        return self._units[number]

    def _mapped_file(self, path: StoragePath) -> _MappedFile:
        return _MappedFile(self._copies.local(path), self._staging)

    def _let_go(self) -> None:
        for files in self._units.values():
            for file in files:
                file.let_go()
        self._touched = 0
