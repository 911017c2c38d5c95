"""How every side is read: padded batches of 64 with a mask, by a loop as a training loop is.

A side gives `make(epoch)`, the batches of one epoch, each a dict of "length" (B,), "mask" (B, T),
"label" and the sequence. The first batch is timed from before `prepare`, imports left out. Rows,
steps and slots are counted in the first epoch only; the difference of two runs is free of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

BATCH = 64
# Batches that are sorted by length together; as much as the samplers of others take.
POOL_BATCHES = 50

Batch = Mapping[str, Any]


def consume(prepare: Callable[[], Callable[[int], Iterable[Batch]]], epochs: int) -> dict[str, Any]:
    """Reads so many epochs and says what the first one was."""
    started = time.perf_counter()
    make = prepare()
    batches = iter(make(0))
    batch = next(batches)
    first = time.perf_counter() - started
    counts = {"rows": 0, "steps": 0, "slots": 0, "batches": 0}
    while batch is not None:
        length = np.asarray(batch["length"])
        shown = np.asarray(batch["mask"])
        if shown.sum() != length.sum():
            raise RuntimeError(f"mask and length differ: {shown.sum()} and {length.sum()} steps")
        counts["rows"] += len(length)
        counts["steps"] += int(length.sum())
        counts["slots"] += shown.size
        counts["batches"] += 1
        batch = next(batches, None)
    for epoch in range(1, epochs):
        for batch in make(epoch):
            del batch
    return {**counts, "first_batch_seconds": first}


class LengthGroupedBatches:
    """Batches of rows of similar length: a permutation, cut into pools that are sorted by length.

    The way of the length-grouped samplers of training libraries, without a loop over rows.

    Args:
        lengths: of all rows.
        epoch: another one, another order.
    """

    def __init__(self, lengths: np.ndarray, epoch: int = 0) -> None:
        self.lengths = lengths
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([0, self.epoch])
        rows = rng.permutation(len(self.lengths))
        pool = np.arange(len(rows)) // (BATCH * POOL_BATCHES)
        rows = rows[np.lexsort((self.lengths[rows], pool))]
        for number in rng.permutation(len(self)):
            yield rows[number * BATCH : (number + 1) * BATCH].tolist()
