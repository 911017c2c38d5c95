"""Hugging Face datasets: Parquet, a map by batches, `save_to_disk`.

Written: the columns as Arrow files and the lengths that the map adds, in the order of the rows; or
with `padded` what is nearest to a dataset of Lengthwise, as a user can write it with NumPy: steps
padded to the bucket's length, a mask, and all rows in the order of `Dataset.shuffle`. No plan, no
checksum of what is written. Loading Parquet makes one Arrow copy in a cache, the map a second one.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rivals import parquet_rows
from rivals.reading import LengthGroupedBatches, consume

datasets.disable_progress_bars()

# Told, not found; about what a plan with eight buckets finds for the rows of the benchmarks.
MAX_LENGTHS = np.array([24, 40, 56, 80, 112, 160, 240, 512])


def write(kind: str, source: str, output: str, padded: bool = False) -> None:
    """Parquet to a folder that `load_from_disk` reads."""
    cache = f"{output}/cache"
    rows: Any = datasets.load_dataset("parquet", data_files=source, split="train", cache_dir=cache)
    # Arrow in and out: by Python's lists, the default, a row of floats takes a thousand objects.
    rows = rows.with_format("arrow").map(
        pad if padded else add_length,
        batched=True,
        fn_kwargs={"name": parquet_rows.SEQUENCE[kind]},
        remove_columns=rows.column_names if padded else None,
    )
    if padded:
        rows = rows.shuffle(seed=0)
    rows.with_format(None).save_to_disk(f"{output}/rows")


def add_length(table: pa.Table, name: str) -> pa.Table:
    """The table and a column of lengths."""
    lengths = pc.call_function("list_value_length", [table[name]])
    return table.append_column("length", lengths.cast(pa.int32()))


def pad(table: pa.Table, name: str) -> pa.Table:
    """The table with steps padded to a bucket's length, a mask and a column of lengths."""
    lists = table[name].combine_chunks()
    steps = parquet_rows.steps_of(lists)  # (N, 16) or (N,)
    lengths = np.diff(lists.offsets.to_numpy())
    max_lengths = MAX_LENGTHS[np.searchsorted(MAX_LENGTHS, lengths)]
    starts = np.cumsum(max_lengths) - max_lengths
    # Where each step goes: behind those of the rows before it, with their padding.
    moved = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    places = np.arange(len(steps)) + moved
    padded = np.zeros((max_lengths.sum(), *steps.shape[1:]), steps.dtype)
    padded[places] = steps
    mask = np.zeros(len(padded), np.int8)
    mask[places] = 1
    offsets = pa.array(np.append(starts, len(padded)).astype(np.int32))
    values = pa.array(padded.ravel())
    if steps.ndim == 2:
        values = pa.FixedSizeListArray.from_arrays(values, steps.shape[1])
    return pa.table(
        {
            name: pa.ListArray.from_arrays(offsets, values),
            "mask": pa.ListArray.from_arrays(offsets, pa.array(mask)),
            "length": pa.array(lengths.astype(np.int32)),
            "label": table["label"],
        }
    )


def count(kind: str, output: str) -> dict[str, int]:
    """Rows and steps of what was written."""
    rows: Any = datasets.load_from_disk(f"{output}/rows")
    return {"rows": len(rows), "steps": int(_lengths(rows).sum())}


def read_torch(kind: str, source: str, epochs: int, workers: int = 0) -> dict[str, Any]:
    """`with_format("torch")` in a `DataLoader` with batches of similar length."""
    import torch
    from rivals.torch_collate import collate
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    name = parquet_rows.SEQUENCE[kind]

    def collate_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(name, [(row[name], row["label"]) for row in rows])

    def prepare() -> Callable[[int], Iterable[Any]]:
        rows: Any = datasets.load_from_disk(f"{source}/rows")
        batches = LengthGroupedBatches(_lengths(rows))
        loader = DataLoader(
            rows.with_format("torch"),
            batch_sampler=batches,
            collate_fn=collate_rows,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

        def epoch(number: int) -> Iterable[Any]:
            batches.epoch = number
            return loader

        return epoch

    return consume(prepare, epochs)


def read_numpy(kind: str, source: str, epochs: int) -> dict[str, Any]:
    """`with_format("numpy")`, asked for the rows of a batch at once, padded with NumPy."""
    name = parquet_rows.SEQUENCE[kind]

    def prepare() -> Callable[[int], Iterable[Any]]:
        rows: Any = datasets.load_from_disk(f"{source}/rows")
        lengths, arrays = _lengths(rows), rows.with_format("numpy")

        def epoch(number: int) -> Iterator[Any]:
            for indices in LengthGroupedBatches(lengths, number):
                yield _padded(name, arrays[indices])

        return epoch

    return consume(prepare, epochs)


def _lengths(rows: Any) -> np.ndarray:
    return np.asarray(rows.with_format("numpy")["length"])


def _padded(name: str, batch: dict[str, Any]) -> dict[str, Any]:
    length = batch["length"]
    # Where all rows are equally long, the rows are one array already.
    steps = [np.asarray(row.tolist() if row.dtype == object else row) for row in batch[name]]
    padded = np.zeros((len(length), length.max(), *steps[0].shape[1:]), steps[0].dtype)
    mask = np.arange(length.max()) < length[:, np.newaxis]
    padded[mask] = np.concatenate(steps)
    return {name: padded, "length": length, "mask": mask, "label": batch["label"]}
