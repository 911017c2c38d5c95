"""Splicing: rows that lie anywhere in memory become parts of records, in one copy.

parts      (n, w) uint8    | head ···· | label ···· length ···· mask |
rows       of any sizes            r2 ····· r0 ·········· r1
padding    (size,) uint8           | 0 0 0 0 0 0 |
records                    | head ···· | r0 | 0 0 0 | label ···· length ···· mask |
                           | head ···· | r1 ··· | 0 | label ···· length ···· mask |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.transforms.row_places import gather_bytes


@dataclass(frozen=True)
class Insert:
    """Rows that are put into records, each filled up to one size.

    Attributes:
        at: the column of the parts that comes after the row and its padding.
        rows: (n,) of `row_places.SPAN`: where the bytes of each row are; they must be alive.
        padding: (size,) uint8, what an insert without a row holds. A row takes the place of as
            many bytes as it has.
    """

    at: int
    rows: np.ndarray
    padding: np.ndarray


def splice(parts: np.ndarray, inserts: Sequence[Insert], *, side: str = "right") -> np.ndarray:
    """Puts rows between the parts of records.

    Args:
        parts: (n, w) uint8, C-contiguous: the bytes of each record without the inserts.
        inserts: in the order in which they stand in a record; no row is larger than its insert.
        side: which side of a row is padded, `right` or `left`. The padding of a row is the start of
            `padding`.

    Returns:
        (n, w + sum of sizes) uint8, C-contiguous and writable.

    Example:
        >>> from lengthwise.transforms.row_places import spans_in
        >>> steps = np.array([1, 2, 3], np.uint8)
        >>> rows = Insert(1, spans_in(steps, np.array([0, 1, 3])), np.zeros(3, np.uint8))
        >>> splice(np.full((2, 2), 9, np.uint8), [rows])
        array([[9, 1, 0, 0, 9],
               [9, 2, 3, 0, 9]], dtype=uint8)
    """
    n, width = parts.shape
    size = width + sum(len(insert.padding) for insert in inserts)
    if n == 0:
        return np.empty((0, size), np.uint8)
    # A record is a part, then for each insert two pieces and the part that follows.
    pieces = 3 * len(inserts) + 1
    addresses, sizes = np.empty((n, pieces), np.int64), np.empty((n, pieces), np.int64)
    starts = [0, *(insert.at for insert in inserts)]
    records = np.arange(n) * width + parts.ctypes.data
    addresses[:, ::3] = records[:, None] + starts
    sizes[:, ::3] = np.diff([*starts, width])
    for k, insert in enumerate(inserts):
        row, pad = (3 * k + 2, 3 * k + 1) if side == "left" else (3 * k + 1, 3 * k + 2)
        addresses[:, pad] = insert.padding.ctypes.data
        sizes[:, row] = insert.rows["size"]
        # A row of no bytes may be nowhere.
        addresses[:, row] = np.where(sizes[:, row], insert.rows["address"], addresses[:, pad])
        sizes[:, pad] = len(insert.padding) - sizes[:, row]
    _, _, data = gather_bytes(addresses.reshape(-1), sizes.reshape(-1)).buffers()
    return np.frombuffer(data, np.uint8, n * size).reshape(n, size)
