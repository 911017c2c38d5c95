"""Batches for PyTorch, which is imported when it is asked for: `pip install torch` is up to you.

from torch.utils.data import DataLoader
from lengthwise.model.torch_reader import to_packed_sequence, torch_batches

for features, label in DataLoader(torch_batches("vowels", batch_size=32), batch_size=None):
    packed = to_packed_sequence(features["features"], features["length"])
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.epochs import Epochs
from lengthwise.model.read_options import ReadOptions


def torch_batches(
    path: str | os.PathLike[str] | Manifest, split: str = "train", **options: Any
) -> Any:
    """The batches of `read_dataset` as a `torch.utils.data.IterableDataset` of tensors.

    Give it to a `DataLoader` with `batch_size=None`: elements are whole batches. With
    `num_workers=W`, worker w reads the steps w, w + W, …, which the loader puts back in order.

    Args:
        path: the dataset folder or its manifest.
        split: name of the split.
        options: those of `read_dataset`, but for `ragged`.

    Raises:
        UsageError: PyTorch is not installed, or see `read_dataset`.
    """
    manifest = path if isinstance(path, Manifest) else Manifest.load(path)
    return _torch_batches_class()(manifest, split, options)


def to_packed_sequence(values: Any, length: Any) -> Any:
    """Leaves the padding out of a batch, for `torch.nn.LSTM` and its like.

    Args:
        values: (B, T, …) tensor.
        length: (B,) tensor, each at least 1.

    Returns:
        A `torch.nn.utils.rnn.PackedSequence`; outputs come back in the order of the batch.

    Raises:
        UsageError: PyTorch is not installed.
    """
    rnn = _import("torch.nn.utils.rnn")
    return rnn.pack_padded_sequence(values, length.cpu(), batch_first=True, enforce_sorted=False)


@functools.cache
def _torch_batches_class() -> Any:
    """The class, which can only be made where there is a class to inherit from."""
    torch = _import("torch")
    data = _import("torch.utils.data")

    class TorchBatches(data.IterableDataset):
        def __init__(self, manifest: Manifest, split: str, options: dict[str, Any]) -> None:
            super().__init__()
            self._arguments = (manifest, split, options)
            self._epochs = Epochs(manifest, split, ReadOptions(**options))

        def __len__(self) -> int:
            return len(self._epochs) - self._epochs.options.start_step

        def __iter__(self) -> Iterator[Any]:
            decoder = self._epochs.decoder
            worker = data.get_worker_info()
            first, every = (worker.id, worker.num_workers) if worker else (0, 1)
            start = self._epochs.options.start_step
            for step in range(start + first, len(self._epochs), every):
                tensors = [torch.from_numpy(_owned(a)) for a in self._epochs.read(step)]
                yield decoder.structure(dict(zip(decoder.names, tensors, strict=True)))

        def __reduce__(self) -> Any:
            # A worker that is started afresh maps the files itself.
            return _unpickled, self._arguments

    return TorchBatches


def _unpickled(manifest: Manifest, split: str, options: dict[str, Any]) -> Any:
    return torch_batches(manifest, split, **options)


def _owned(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError("PyTorch is not installed: `pip install torch`") from None
