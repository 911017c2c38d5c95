"""Finds out how many rows of each bucket a model can train on within a memory limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.epochs import Epochs
from lengthwise.model.peak_memory import DeviceMemory, Memory
from lengthwise.model.read_options import ReadOptions

# Below this many rows, what a step takes is not yet a straight line.
_LINEAR_FROM = 16


def find_batch_sizes(
    model: Any,
    path: str | os.PathLike[str] | Manifest,
    split: str = "train",
    *,
    memory_limit: int,
    max_batch_size: int = 1024,
    multiple_of: int = 1,
    prepare: Callable[..., Any] | None = None,
    memory: Memory | None = None,
    **options: Any,
) -> dict[int, int]:
    """Doubles and bisects the batch size of every bucket to the largest that still trains.

    Each trial is one training step on rows of the dataset. A size that would take more than the
    limit by extrapolation is not tried, so the limit is hardly passed. Weights and optimizer are
    as before afterwards.

    Args:
        model: a compiled Keras model.
        path: the dataset folder or its manifest.
        split: name of the split.
        memory_limit: bytes of tensors, of model and optimizer plus what a step needs.
        max_batch_size: no batch is larger.
        multiple_of: sizes are rounded down to a multiple of this, where one fits.
        prepare: what stands between the reader and the model, if anything: called with features,
            label (and sample weight) as arrays, gives what `model.train_on_batch` takes.
        memory: how it is measured; by default the tensors on the first GPU, or else on the CPU.
        options: those of `read_dataset` that say what is read.

    Returns:
        max_length -> rows, for every bucket; `read_dataset(batch_size=…)` takes it. A bucket
        without rows has 1.

    Raises:
        UsageError: not even one row fits, or the model is not compiled.
    """
    if getattr(model, "optimizer", None) is None:
        raise UsageError("find_batch_sizes needs a compiled model: call model.compile first")
    memory = memory or DeviceMemory()
    epochs = Epochs(path, split, ReadOptions(**options))
    decoder = epochs.decoder

    def train_once(number: int, size: int) -> None:
        bucket = epochs.buckets[number]
        arrays = decoder.decode(bucket, np.arange(size) % len(bucket))
        batch = decoder.structure(dict(zip(decoder.names, arrays, strict=True)))
        batch = batch if isinstance(batch, tuple) else (batch,)
        batch = prepare(*batch) if prepare else batch
        model.train_on_batch(*(batch if isinstance(batch, tuple) else (batch,)))

    def largest_of(number: int) -> int:
        bucket = epochs.buckets[number]
        if not len(bucket):
            return 1
        trials = _Trials(lambda size: train_once(number, size), memory, memory_limit - held)
        size = largest_that_fits(trials.fits, max_batch_size)
        if size == 0:
            raise UsageError(
                f"not even one row of {bucket.layout.max_length} steps trains within {memory_limit}"
                f" bytes: {held} are held already, a step takes {trials.needed.get(1, 'too many')}"
            )
        return max(size // multiple_of * multiple_of, 1)

    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.copy(variable.numpy()) for variable in variables]
    held = memory.held()
    try:
        return {
            bucket.layout.max_length: largest_of(number)
            for number, bucket in enumerate(epochs.buckets)
        }
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        model.reset_metrics()


def largest_that_fits(fits: Callable[[int], bool], highest: int) -> int:
    """The largest n up to `highest` for which `fits(n)`, by doubling and bisecting; 0 if none.

    Example:
        >>> largest_that_fits(lambda n: n <= 37, 1024)
        37
    """
    low, high = 0, 1
    while high <= highest and fits(high):
        low, high = high, 2 * high
    high = min(high, highest + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class _Trials:
    """Training steps of one bucket, and what they needed."""

    def __init__(self, train: Callable[[int], None], memory: Memory, limit: int) -> None:
        self.train = train
        self.memory = memory
        self.limit = limit
        self.needed: dict[int, int] = {}

    def fits(self, size: int) -> bool:
        if self._expected(size) > self.limit:
            return False
        try:
            self.needed[size] = self.memory.needed_by(lambda: self.train(size))
        except (tf.errors.ResourceExhaustedError, MemoryError):
            return False
        return self.needed[size] <= self.limit

    def _expected(self, size: int) -> float:
        """Along the line through the two largest sizes so far."""
        one, two = sorted([0, 0, *self.needed])[-2:]
        if size < two or two < _LINEAR_FROM:
            return 0
        slope = max(0, self.needed[two] - self.needed.get(one, 0)) / (two - one)
        return self.needed[two] + slope * (size - two)
