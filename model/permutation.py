"""A random order of rows that is computed where it is needed, instead of kept.

The numbers from 0 to n - 1 are laid out in a table of about √n rows and columns. A round shifts
each row of the table by a random amount of its own, and then each column:

    0 1 2 3      1 2 3 0      1 9 4 .
    4 5 6 7  ─▶  6 7 4 5  ─▶  6 2 . 0
    8 9 . .      8 9 . .      8 7 3 5

So a number moves to a random place of the table by a few lookups, and no two to the same one. A
number that lands on a place beyond the last goes on from there until it lands on one that counts.

Random bits come straight from Philox under a SeedSequence, both of which NumPy keeps the same in
all its versions.

Source: a Feistel network with modular addition and cycle walking, as in J. Black and P. Rogaway,
"Ciphers with Arbitrary Finite Domains", CT-RSA 2002; its round functions are tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Fewer than 8 are seen in the orders of five or six rows.
_ROUNDS = 8


class Permutation:
    """A random order of `range(n)`, the same on every machine and with every NumPy.

    It holds about 128·√n bytes, and takes some 60 ns a number in blocks of a thousand.

    Args:
        n: how many numbers.
        seed: non-negative integers.

    Example:
        >>> order = Permutation(5, (0, 1))
        >>> sorted(order[np.arange(5)].tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, seed: Sequence[int]) -> None:
        self._n = n
        # A power of two, so that a remainder is a few bits; the larger half where bits are odd.
        column_bits = max(1, (max(n - 1, 0).bit_length() + 1) // 2)
        self._columns = 1 << column_bits
        self._rows = max(1, -(-n // self._columns))
        bits = random_bits(_ROUNDS * (self._rows + self._columns), seed).reshape(_ROUNDS, -1)
        by_row, by_column = bits[:, : self._rows], bits[:, self._rows :] >> np.uint64(32)
        self._row_shifts = (by_row >> np.uint64(64 - column_bits)).astype(np.int64)
        # The upper 32 bits as a fraction of the rows.
        self._column_shifts = (by_column * np.uint64(self._rows) >> np.uint64(32)).astype(np.int64)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The numbers that stand at some places of the order: int64, as many."""
        numbers = self._move(places)
        while len(beyond := np.flatnonzero(numbers >= self._n)):
            numbers[beyond] = self._move(numbers[beyond])
        return numbers

    def _move(self, numbers: np.ndarray) -> np.ndarray:
        row, column = np.divmod(numbers, self._columns)
        for row_shifts, column_shifts in zip(self._row_shifts, self._column_shifts, strict=True):
            column = (column + row_shifts[row]) & (self._columns - 1)
            row = row + column_shifts[column]
            row -= self._rows * (row >= self._rows)
        return row * self._columns + column


def random_bits(n: int, seed: Sequence[int]) -> np.ndarray:
    """(n,) uint64 of random bits, the same everywhere."""
    return np.random.Philox(np.random.SeedSequence(seed)).random_raw(n)
