"""Items of several sources in one order, each source spread evenly over the whole of it.

Item j of the n items of a source stands at (j + u) / n of the order, u random within [0, 1):

    short rows   |  a    | b     |    c  | d     |       n = 4
    long rows    |        A      |   B           |       n = 2
    order           a      A b      B  c    d

The order is never drawn as a whole. It is cut into blocks of equally much of the line, of about
4,096 steps. Of a source's items those before j lie left of a cut at j / n, and the one after the
cut is known by its own u. So each block tells by itself how many items stand before it, and the
time and memory that it takes do not depend on how many there are.

Source of u: SplitMix64, the generator of G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom
Number Generators", OOPSLA 2014, whose j-th number can be computed without the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.model.permutation import random_bits

_BLOCK_STEPS = 4096
# Of u; so few that products with the number of blocks are exact in 64 bits.
_JITTER_BITS = 32


@dataclass(frozen=True)
class Block:
    """Consecutive steps of an order.

    Attributes:
        start: the first of them.
        before: (sources,) int64, items of each source before it.
        sources: (steps,) int64, which source each step takes from.
        numbers: (steps,) int64, which of its items, from 0.
    """

    start: int
    before: np.ndarray
    sources: np.ndarray
    numbers: np.ndarray


class Interleaving:
    """An order of all items of several sources, each source's in their own order.

    Args:
        counts: items of each source.
        seed: non-negative integers; None for source after source.
        first: the source whose first item begins; None for whichever comes.

    Example:
        >>> order = Interleaving([3, 2], None)
        >>> list(order)
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    """

    def __init__(
        self, counts: Sequence[int], seed: Sequence[int] | None, *, first: int | None = None
    ) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._steps = int(self._counts.sum())
        self._keys = None if seed is None else random_bits(len(self._counts), seed)
        self._first = first
        # Where each source begins, one after another; the first item of all moves others back.
        self._begins = np.cumsum(self._counts) - self._counts
        if first is not None:
            self._begins[:first] += 1
        self.num_blocks = -(-self._steps // _BLOCK_STEPS)
        self._last = Block(0, *[np.empty(0, np.int64)] * 3)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[int, int]:
        """The source of a step, and which of its items."""
        block = self._last
        if not block.start <= step < block.start + len(block.sources):
            if not 0 <= step < self._steps:
                raise IndexError(f"step {step} of {self._steps}")
            block = self._last = self.block(self.block_of(step))
        index = step - block.start
        return int(block.sources[index]), int(block.numbers[index])

    def block(self, number: int) -> Block:
        """One of the blocks, from 0."""
        everything = np.arange(len(self._counts))
        before, end = (self._before(everything, n) for n in (number, number + 1))
        counts = end - before
        sources = np.repeat(everything, counts)
        numbers = np.arange(len(sources)) + np.repeat(before + counts - np.cumsum(counts), counts)
        order = np.argsort(self._places(sources, numbers), kind="stable")
        return Block(int(before.sum()), before, sources[order], numbers[order])

    def block_of(self, step: int) -> int:
        """The number of the block that holds a step; of the end the one after the last."""
        if step == self._steps:
            return self.num_blocks
        everything = np.arange(len(self._counts))
        # To within one item of each source; the rest is counted.
        number = step * self.num_blocks // self._steps
        while self._before(everything, number).sum() > step:
            number -= 1
        while self._before(everything, number + 1).sum() <= step:
            number += 1
        return number

    def before(self, step: int) -> np.ndarray:
        """(sources,) int64, items of each source before a step, or before the end."""
        if step == self._steps:
            return self._counts
        block = self.block(self.block_of(step))
        done = block.sources[: step - block.start]
        return block.before + np.bincount(done, minlength=len(self._counts))

    def argsort(self, sources: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Puts some items into the order of their steps: their indices."""
        places = self._places(sources, numbers)
        blocks = np.clip(places.astype(np.int64), 0, self.num_blocks - 1)
        # Places are rounded; where blocks begin is not.
        blocks -= numbers < self._before(sources, blocks)
        blocks += numbers >= self._before(sources, blocks + 1)
        return np.lexsort((numbers, sources, places, blocks))

    def _before(self, sources: np.ndarray, blocks: int | np.ndarray) -> np.ndarray:
        """How many items of sources stand before blocks."""
        counts = self._counts[sources]
        if self._keys is None:
            before = np.clip(blocks * _BLOCK_STEPS - self._begins[sources], 0, counts)
            return np.maximum(before, (sources == self._first) & (np.asarray(blocks) > 0))
        whole, rest = np.divmod(blocks * counts, max(1, self.num_blocks))
        return whole + (self._jitter(sources, whole) * self.num_blocks < rest << _JITTER_BITS)

    def _places(self, sources: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Where items stand, in blocks: float64, ascending in a source."""
        if self._keys is None:
            places = (self._begins[sources] + numbers) / _BLOCK_STEPS
        else:
            jitter = self._jitter(sources, numbers) * 2.0**-_JITTER_BITS
            places = (numbers + jitter) / self._counts[sources] * self.num_blocks
        return np.where((sources == self._first) & (numbers == 0), -1, places)

    def _jitter(self, sources: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Random integers below 2**32, one for each item."""
        assert self._keys is not None
        bits = self._keys[sources] + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(64 - _JITTER_BITS)
        jitter = bits.astype(np.int64)
        return np.where((sources == self._first) & (numbers == 0), 0, jitter)
