"""Batches for PyTorch, which is imported when it is asked for: `pip install torch` is up to you.

from torch.utils.data import DataLoader
from lengthwise.model.torch_reader import to_packed_sequence, torch_batches

for features, label in DataLoader(torch_batches("vowels", batch_size=32), batch_size=None):
    packed = to_packed_sequence(features["features"], mask=features["mask"])
    outputs, _ = lstm(packed)
    outputs = from_packed_sequence(outputs, features["mask"])
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


def to_packed_sequence(values: Any, length: Any = None, *, mask: Any = None) -> Any:
    """Leaves the padding out of a batch, for `torch.nn.LSTM` and its like.

    With `mask`, steps that are not real are left out wherever they are: padding on either side and
    missing steps in between. `length` alone is for rows that are padded on the right and miss no
    step.

    Args:
        values: (B, T, …) tensor.
        length: (B,) tensor of integers; give this or `mask`.
        mask: (B, T) tensor of bools, True at real steps.

    Returns:
        A `torch.nn.utils.rnn.PackedSequence`; its rows come back in the order of the batch.

    Raises:
        UsageError: PyTorch is not installed, both or none of `length` and `mask` are given, or a
            row has no real step, which a PackedSequence cannot hold.
    """
    rnn = _import("torch.nn.utils.rnn")
    if (length is None) == (mask is None):
        raise UsageError("to_packed_sequence takes `length` or `mask`, one of them")
    if mask is not None:
        length = mask.sum(1)
        # Stable, so that the real steps of a row stay in their order.
        order = mask.logical_not().to(length.dtype).argsort(dim=1, stable=True)
        values = values[_import("torch").arange(len(order), device=order.device)[:, None], order]
    length = length.cpu()
    if bool((length < 1).any()):
        raise UsageError(
            f"row {int((length < 1).nonzero()[0])} of the batch has no real step, and a "
            "PackedSequence cannot hold it: leave such rows out, as in values[mask.any(1)]"
        )
    return rnn.pack_padded_sequence(values, length, batch_first=True, enforce_sorted=False)


def from_packed_sequence(packed: Any, mask: Any) -> Any:
    """Puts the steps of a packed sequence back where they were.

    Args:
        packed: what a `torch.nn.LSTM` made of `to_packed_sequence(values, mask=mask)`.
        mask: (B, T) tensor of bools, the same one.

    Returns:
        (B, T, …) tensor, 0 at steps that are not real; gradients flow through it.

    Raises:
        UsageError: PyTorch is not installed.
    """
    steps, length = _import("torch.nn.utils.rnn").pad_packed_sequence(packed, batch_first=True)
    real = _import("torch").arange(steps.shape[1]) < length[:, None]
    outputs = steps.new_zeros((*mask.shape, *steps.shape[2:]))
    outputs[mask] = steps[real.to(steps.device)]
    return outputs


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
