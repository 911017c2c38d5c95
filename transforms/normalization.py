"""Normalisation: constants from the observed steps of the training split, applied to all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.plan import Normalization
from lengthwise.dataset.schema import Feature
from lengthwise.transforms.statistics import Summary


def normalization_of(kind: str, channels: Sequence[Summary], feature: Feature) -> Normalization:
    """The constants of a feature.

    Args:
        kind: `zscore`, mean 0 and variance 1; `minmax`, from 0 to 1; `log1p`, log(1 + x).
        channels: a summary for each of the `feature.size` values of a step.
        feature: which feature.

    Raises:
        PlanError: `log1p` of values at or below -1.

    Example:
        >>> from lengthwise.transforms.statistics import summarize
        >>> feature = Feature("x", "float32")
        >>> found = summarize(np.array([1, 3], np.float32), np.array([2]), feature)
        >>> normalization_of("minmax", [found], feature)
        Normalization(kind='minmax', shift=(1.0,), scale=(0.5,))
    """
    shift, scale = [], []
    for channel in channels:
        found = channel.statistics(feature)
        if kind == "log1p":
            if found.low <= -1:
                raise PlanError(
                    f"--normalize {feature.name}=log1p: the least value is {found.low:g}, and "
                    "log(1 + x) needs more than -1; choose zscore or minmax"
                )
            shift.append(0.0)
            scale.append(1.0)
        else:
            spread = found.variance**0.5 if kind == "zscore" else found.high - found.low
            shift.append(float(found.mean if kind == "zscore" else found.low))
            # A value that never changes becomes 0, whatever it is.
            scale.append(1.0 / spread if spread > 0 else 1.0)
    return Normalization(kind, tuple(shift), tuple(scale))


def normalize(values: np.ndarray, constants: Normalization) -> np.ndarray:
    """Applies constants to the values of a feature.

    Args:
        values: (N, *shape) float32.
        constants: of that feature.

    Returns:
        (N, *shape) float32.

    Example:
        >>> normalize(np.array([1, 2], np.float32), Normalization("minmax", (1.0,), (0.5,)))
        array([0. , 0.5], dtype=float32)
    """
    shape = values.shape
    if constants.kind == "log1p":
        return np.log1p(values)
    flat = values.reshape(len(values), len(constants.shift))
    flat = (flat - np.array(constants.shift)) * np.array(constants.scale)
    return flat.astype(np.float32).reshape(shape)
