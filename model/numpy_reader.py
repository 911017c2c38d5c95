"""Rows and batches as NumPy arrays: random access, and epochs without a TensorFlow graph."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from lengthwise.dataset import Manifest
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.model.epochs import Epochs
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.row_filter import RowFilter
from lengthwise.model.shards import open_split

Row = dict[str, Any]


def open_rows(
    path: str | os.PathLike[str] | Manifest,
    split: str = "train",
    *,
    min_length: int | None = None,
    max_length: int | None = None,
    buckets: Sequence[int] | None = None,
    take: int | None = None,
    integrity: str = "first",
) -> Rows:
    """Opens a split for random access to its rows.

    Args:
        path: the dataset folder or its manifest.
        split: name of the split.
        min_length, max_length, buckets, take, integrity: see `read_dataset`.

    Returns:
        The rows, bucket by bucket in their order on disk.

    Raises:
        LengthwiseError: see `read_dataset`.

    Example:
        >>> open_rows("nowhere")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    manifest = path if isinstance(path, Manifest) else Manifest.load(path)
    row_filter = RowFilter(
        min_length, max_length, None if buckets is None else tuple(buckets), take
    )
    return Rows(manifest, split, row_filter=row_filter, integrity=integrity)


class Rows(Sequence[Row]):
    """The rows of a split, read from memory maps when they are asked for.

    Args:
        manifest: of the dataset.
        split: name of the split.
        row_filter: which rows.
        integrity: see `read_dataset`.
    """

    def __init__(
        self, manifest: Manifest, split: str, *, row_filter: RowFilter, integrity: str
    ) -> None:
        self.schema = manifest.schema
        self._manifest = manifest
        self._buckets = open_split(manifest, split, integrity=integrity, row_filter=row_filter)
        self._ends = np.cumsum([len(bucket) for bucket in self._buckets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One row without its padding, or a list of rows.

        Returns:
            name -> value of every feature and label: sequences (length, …), others of the shape of
            the feature; "mask" (length,) bool; "length" int32; with an element mask
            "<name>__observed" (length, …) bool.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        bucket = self._buckets[number]
        row_number = np.array([index - (self._ends[number] - len(bucket))])
        fields = bucket.layout.fields
        arrays = bucket.read(row_number, fields)
        values = {field.name: array[0] for field, array in zip(fields, arrays, strict=True)}
        steps = self._manifest.steps_of(int(values[LENGTH]), bucket.layout.max_length)
        row: Row = {}
        for feature in self.schema.features:
            row[feature.name] = values[feature.name][steps if feature.sequence else ...]
            if feature.element_mask:
                row[feature.observed_name] = values[feature.observed_name][steps]
        return {**row, MASK: values[MASK][steps], LENGTH: values[LENGTH].astype(np.int32)}


def as_numpy(
    path: str | os.PathLike[str] | Manifest, split: str = "train", **options: Any
) -> NumpyBatches:
    """The batches of `read_dataset` as NumPy arrays, in the same order.

    Args:
        path: the dataset folder or its manifest.
        split: name of the split.
        options: those of `read_dataset`, but for `ragged`.

    Returns:
        A sequence of batches, each `(features, label)` as `read_dataset` describes it. It can be
        iterated more than once, and any batch can be asked for.

    Raises:
        LengthwiseError: see `read_dataset`.

    Example:
        >>> as_numpy("nowhere", batch_size=8)
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no dataset here (dataset.json is \
missing); make one with `lengthwise build`
    """
    return NumpyBatches(Epochs(path, split, ReadOptions(**options)))


class NumpyBatches:
    """The batches that are left of one or more epochs.

    Args:
        epochs: all batches; those before `start_step` are left out.
    """

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._start = epochs.options.start_step

    def __len__(self) -> int:
        return len(self._epochs) - self._start

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        arrays = self._epochs.read(index % len(self) + self._start)
        decoder = self._epochs.decoder
        return decoder.structure(dict(zip(decoder.names, arrays, strict=True)))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))
