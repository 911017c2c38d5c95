"""Lengthwise: its three readers over the same dataset, shuffled as a whole in every epoch."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rivals.reading import BATCH, consume


def read_tf(kind: str, source: str, epochs: int) -> dict[str, Any]:
    """`read_dataset`, by Python's own loop."""
    from lengthwise.model import read_dataset

    return _read(lambda: read_dataset(source, batch_size=BATCH, epochs=epochs), epochs)


def read_numpy(kind: str, source: str, epochs: int) -> dict[str, Any]:
    """`as_numpy`."""
    from lengthwise.model.numpy_reader import as_numpy

    return _read(lambda: as_numpy(source, batch_size=BATCH, epochs=epochs), epochs)


def read_torch(kind: str, source: str, epochs: int, workers: int = 0) -> dict[str, Any]:
    """`torch_batches` in a `DataLoader`."""
    import torch
    from torch.utils.data import DataLoader

    from lengthwise.model.torch_reader import torch_batches

    torch.set_num_threads(1)

    def batches() -> Iterable[Any]:
        data = torch_batches(source, batch_size=BATCH, epochs=epochs)
        return DataLoader(data, batch_size=None, num_workers=workers)

    return _read(batches, epochs)


def _read(make: Callable[[], Iterable[Any]], epochs: int) -> dict[str, Any]:
    """All epochs are one iteration; it is handed out epoch by epoch."""

    def prepare() -> Callable[[int], Iterable[Any]]:
        data: Any = make()
        steps, batches = len(data) // epochs, iter(data)

        def epoch(number: int) -> Iterator[Any]:
            for _ in range(steps):
                features, label = next(batches)
                features["label"] = label
                yield features

        return epoch

    return consume(prepare, epochs)
