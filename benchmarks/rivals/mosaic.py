"""MosaicML Streaming: rows one by one into an `MDSWriter`.

Written: the bytes of every row without padding in .mds shards, in the order of the rows, and an
index.json last. No mask, no length but the shape of an array, no plan, no shuffle (that is done
when reading); checksums of shards if one asks for `hashes`, as here for `xxh64`.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from rivals import parquet_rows
from rivals.reading import BATCH, consume
from rivals.torch_collate import collate
from streaming import LocalDataset, MDSWriter, StreamingDataset
from torch.utils.data import DataLoader


def write(kind: str, source: str, output: str) -> None:
    """Parquet to a folder of shards."""
    name = parquet_rows.SEQUENCE[kind]
    columns = {name: f"ndarray:{parquet_rows.DTYPE[kind]}", "label": "int64"}
    with MDSWriter(out=output, columns=columns, hashes=["xxh64"], progress_bar=False) as writer:
        for steps, label in parquet_rows.rows(source, kind):
            writer.write({name: steps, "label": label})


def count(kind: str, output: str) -> dict[str, int]:
    """Rows and steps of what was written."""
    name, data = parquet_rows.SEQUENCE[kind], LocalDataset(output)
    lengths = [len(data[i][name]) for i in range(len(data))]
    return {"rows": len(lengths), "steps": sum(lengths)}


def read(kind: str, source: str, epochs: int, workers: int = 0) -> dict[str, Any]:
    """`StreamingDataset` with its own shuffle in a `DataLoader` that pads.

    The dataset, not a sampler, says which rows come next, so they are not grouped by length.
    """
    torch.set_num_threads(1)
    name = parquet_rows.SEQUENCE[kind]

    def collate_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(name, [(torch.from_numpy(row[name]), row["label"]) for row in rows])

    def prepare() -> Callable[[int], Iterable[Any]]:
        data = StreamingDataset(local=source, shuffle=True, shuffle_seed=0, batch_size=BATCH)
        loader = DataLoader(
            data,
            batch_size=BATCH,
            collate_fn=collate_rows,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        # It counts the epochs itself.
        return lambda number: loader

    return consume(prepare, epochs)
