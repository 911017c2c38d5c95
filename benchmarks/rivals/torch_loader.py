"""PyTorch alone: rows in memory, a `DataLoader` with batches of similar length, `pad_sequence`.

The whole file is decoded into one tensor before the first batch; a row is a view of it.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from rivals import parquet_rows
from rivals.reading import LengthGroupedBatches, consume
from rivals.torch_collate import collate
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)


class RowsInMemory(Dataset):
    """All rows of a file; each a view."""

    def __init__(self, path: str, kind: str) -> None:
        groups = list(parquet_rows.row_groups(path, kind))
        self.lengths = np.concatenate([np.diff(offsets) for _, offsets, _ in groups])
        self.steps = torch.from_numpy(np.concatenate([steps for steps, _, _ in groups]))
        # Numbers of Python, which a slice takes fastest.
        self.bounds = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()
        self.labels = np.concatenate([labels for _, _, labels in groups]).tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.steps[self.bounds[row] : self.bounds[row + 1]], self.labels[row]


def read(kind: str, source: str, epochs: int, workers: int = 0) -> dict[str, Any]:
    """Epochs over the rows of a Parquet file."""

    def prepare() -> Callable[[int], Iterable[Any]]:
        rows = RowsInMemory(source, kind)
        batches = LengthGroupedBatches(rows.lengths)
        loader = DataLoader(
            rows,
            batch_sampler=batches,
            collate_fn=functools.partial(collate, parquet_rows.SEQUENCE[kind]),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

        def epoch(number: int) -> Iterable[Any]:
            batches.epoch = number
            return loader

        return epoch

    return consume(prepare, epochs)
