"""What stands at a missing step: the mask says that it is missing, the value is a choice."""

from __future__ import annotations

import numpy as np

FILLS = ("zero", "forward", "mean")


def fill_missing(
    values: np.ndarray, observed: np.ndarray, lengths: np.ndarray, fill: str | float
) -> np.ndarray:
    """Puts something else than zeros at missing steps.

    Args:
        values: (N, *shape), the steps of all rows one after another.
        observed: (N,) bool, False at missing steps; or (N, *shape) bool, False at missing elements.
        lengths: (n,) steps of each row; they add up to N.
        fill: `zero`; `forward`, the last observed step of the row, or the last observed value of
            the same element (zeros before the first one); or a number.

    Returns:
        (N, *shape), the dtype of `values`.

    Example:
        >>> values = np.array([0, 5, 0, 0, 7])
        >>> observed = np.array([False, True, False, False, True])
        >>> fill_missing(values, observed, np.array([3, 2]), "forward")
        array([0, 5, 5, 0, 7])
    """
    if fill == "zero":
        return values
    if fill == "forward":
        flat = observed.reshape(len(observed), -1)  # (N, 1) or (N, size)
        steps = np.arange(len(values))[:, None]
        last = np.maximum.accumulate(np.where(flat, steps, -1), axis=0)
        first_of_row = np.repeat(np.cumsum(lengths) - lengths, lengths)[:, None]
        found = last >= first_of_row
        by_step = values.reshape(len(values), -1)
        filled = np.take_along_axis(by_step, np.where(found, last, 0), axis=0)
        return np.where(found, filled, 0).astype(values.dtype).reshape(values.shape)
    filled = values.copy()
    filled[~observed] = fill
    return filled
