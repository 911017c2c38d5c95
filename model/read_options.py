"""What is read, in which order and in which form: the options of every reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lengthwise.dataset import UsageError
from lengthwise.model.batching import BatchSize
from lengthwise.model.row_filter import RowFilter


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a reader yields, and in which order; see `read_dataset` for each of them."""

    batch_size: BatchSize = 64
    shuffle: bool = True
    seed: int = 0
    epoch: int = 0
    epochs: int = 1
    num_replicas: int = 1
    replica: int = 0
    start_step: int = 0
    drop_remainder: bool = False
    pad_remainder: bool = False
    longest_first: bool = False
    label: str | None = None
    sample_weight: bool = False
    form: str = "dict"
    min_length: int | None = None
    max_length: int | None = None
    buckets: Sequence[int] | None = None
    take: int | None = None
    integrity: str = "first"

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("epoch", 0), ("epochs", 1), ("num_replicas", 1)):
            _at_least(name, getattr(self, name), low)
        _at_least("start_step", self.start_step, 0)
        if not 0 <= self.replica < self.num_replicas:
            raise UsageError(
                f"replica is {self.replica}; with num_replicas={self.num_replicas} it must lie "
                f"within [0, {self.num_replicas - 1}]"
            )
        if self.drop_remainder and self.pad_remainder:
            raise UsageError("give drop_remainder or pad_remainder, not both")

    @property
    def row_filter(self) -> RowFilter:
        buckets = None if self.buckets is None else tuple(self.buckets)
        return RowFilter(self.min_length, self.max_length, buckets, self.take)


def _at_least(name: str, value: Any, low: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
        raise UsageError(f"{name} must be an integer of at least {low}, not {value!r}")
