"""Mean and variance of float features over real steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lengthwise.dataset import Feature
from lengthwise.dataset.schema import MASK


def feature_moments(
    batches: Iterable[Mapping[str, Any]], features: Sequence[Feature], *, max_steps: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Measures float features, each component apart; what padding holds does not count.

    Args:
        batches: features as `read_dataset` yields them, as arrays.
        features: the float features to measure.
        max_steps: enough real steps; later batches are not read.

    Returns:
        name -> mean (size,) and population variance (size,), float64; zeros and ones where there
        are no values.

    Example:
        >>> batch = {"x": np.array([[1.0, 3.0, 99.0]]), "mask": np.array([[True, True, False]])}
        >>> feature_moments([batch], [Feature("x", "float32")], max_steps=10)
        {'x': (array([2.]), array([1.]))}
    """
    sums = {feature.name: _Sums(feature.size) for feature in features}
    steps = 0
    for batch in batches:
        if steps >= max_steps:
            break
        mask = np.asarray(batch[MASK])
        steps += int(mask.sum())
        for feature in features:
            values = np.asarray(batch[feature.name], np.float64)
            if feature.sequence:
                values = values[mask]
            sums[feature.name].add(values.reshape(-1, feature.size))  # (n, size)
    return {name: total.moments() for name, total in sums.items()}


class _Sums:
    """Sums of values and squares about the first batch's mean, which keeps their digits."""

    def __init__(self, size: int) -> None:
        self.shift: np.ndarray | None = None
        self.count = np.zeros(size)
        self.sum = np.zeros(size)
        self.squares = np.zeros(size)

    def add(self, values: np.ndarray) -> None:
        finite = np.isfinite(values)
        values = np.where(finite, values, 0)
        if self.shift is None:
            self.shift = values.sum(0) / np.maximum(finite.sum(0), 1)
        centred = np.where(finite, values - self.shift, 0)
        self.count += finite.sum(0)
        self.sum += centred.sum(0)
        self.squares += np.square(centred).sum(0)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        if self.shift is None:
            return self.sum, np.ones_like(self.sum)
        count = np.maximum(self.count, 1)
        mean = self.sum / count
        variance = np.where(self.count > 0, self.squares / count - np.square(mean), 1.0)
        return self.shift + mean, np.maximum(variance, 0)
