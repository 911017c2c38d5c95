"""Normalisation: constants from the observed steps of the training split, applied to all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.options import MAX_FLOAT32
from lengthwise.dataset.plan import Normalization
from lengthwise.dataset.schema import Feature
from lengthwise.transforms.statistics import Summary


def normalization_of(
    kind: str, channels: Sequence[Summary], feature: Feature, *, low: float, high: float
) -> Normalization:
    """The constants of a feature.

    Args:
        kind: `zscore`, mean 0 and variance 1; `minmax`, from 0 to 1; `log1p`, log(1 + x).
        channels: a summary for each of the `feature.size` values of a step.
        feature: which feature.
        low, high: what the values lie between that the constants will be applied to: those of all
            splits, and what stands where a value is missing.

    Raises:
        PlanError: a value would have no finite result.

    Example:
        >>> from lengthwise.transforms.statistics import summarize
        >>> feature = Feature("x", "float32")
        >>> found = summarize(np.array([1, 3], np.float32), np.array([2]), feature)
        >>> normalization_of("minmax", [found], feature, low=0, high=9)
        Normalization(kind='minmax', shift=(1.0,), scale=(0.5,))
    """
    if kind == "log1p" and low <= -1:
        raise PlanError(
            f"--normalize {feature.name}=log1p: the least value is {low:g}, and log(1 + x) needs "
            "more than -1; choose zscore or minmax"
        )
    shift, scale = [], []
    for channel in channels:
        found = channel.statistics(feature)
        if kind == "log1p" or found.low == found.high:
            # A value that never changes becomes 0, whatever it is; its variance may not be quite 0.
            shift.append(0.0 if kind == "log1p" else float(found.low))
            scale.append(1.0)
            continue
        spread = found.variance**0.5 if kind == "zscore" else found.high - found.low
        shift.append(float(found.mean if kind == "zscore" else found.low))
        scale.append(1.0 / spread if spread > 0 else 1.0)
        if max(high - shift[-1], shift[-1] - low) * scale[-1] > MAX_FLOAT32:
            raise PlanError(
                f"--normalize {feature.name}={kind}: values between {low:g} and {high:g} become "
                f"infinite, as those of the training split differ by {spread:g} only; leave it out"
            )
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
