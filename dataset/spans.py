"""Spans: pieces of a flat array, each given by where it begins and how long it is."""

from __future__ import annotations

import numpy as np


def span_index(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of the elements of spans, one span after another.

    Args:
        starts: (n,) integers.
        lengths: (n,) integers.

    Returns:
        (sum of lengths,) int64.

    Example:
        >>> span_index(np.array([5, 0]), np.array([2, 3]))
        array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(lengths)
    if len(ends) == 0:
        return np.zeros(0, np.int64)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
