"""Several datasets as one, each with its share of the batches."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import tensorflow as tf

from lengthwise.dataset import UsageError
from lengthwise.model.interleaving import Interleaving


def mix_datasets(
    datasets: Sequence[tf.data.Dataset],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Interleaves datasets in an order that is known beforehand; see `mixing_order`.

    Args:
        datasets: of elements with the same structure, as `read_dataset` gives them.
        weights: of the datasets' batches in the mixture; by default in proportion to their numbers
            of batches, so that every batch comes exactly once.
        seed: any non-negative integer.
        start_step: batches to leave out at the start, as after a stop.

    Returns:
        The mixture. It ends before a dataset would run out, and its cardinality is known.

    Raises:
        UsageError: a weight is not positive, there is one too many or too few, or a dataset does
            not know how many batches it has.
    """
    counts = [int(dataset.cardinality()) for dataset in datasets]
    if min(counts, default=-1) < 0:
        raise UsageError("mix_datasets needs datasets of known cardinality; do not repeat() them")
    order = mixing_order(counts, weights, seed=seed)
    if not 0 <= start_step <= len(order):
        raise UsageError(f"start_step is {start_step}; there are {len(order)} steps")
    before = np.bincount(order[:start_step], minlength=len(counts))
    rest = [
        dataset.skip(int(skipped)) if skipped else dataset
        for dataset, skipped in zip(datasets, before, strict=True)
    ]
    choices = tf.data.Dataset.from_tensor_slices(order[start_step:])
    return tf.data.Dataset.choose_from_datasets(rest, choices, stop_on_empty_dataset=False).apply(
        tf.data.experimental.assert_cardinality(len(order) - start_step)
    )


def mixing_order(
    counts: Sequence[int], weights: Sequence[float] | None = None, *, seed: int = 0
) -> np.ndarray:
    """Which dataset each batch of a mixture comes from.

    A dataset has its share to within one batch of the whole, and is spread evenly over it; see
    `interleaving`.

    Args:
        counts: batches of each dataset.
        weights: positive, of each dataset; None takes the counts.
        seed: any non-negative integer.

    Returns:
        (steps,) int64.

    Raises:
        UsageError: as for `mix_datasets`.

    Example:
        >>> sorted(mixing_order([10, 4], [1, 1]).tolist())
        [0, 0, 0, 0, 1, 1, 1, 1]
    """
    if weights is not None and (
        len(weights) != len(counts) or not all(0 < weight < float("inf") for weight in weights)
    ):
        raise UsageError(f"weights must be {len(counts)} positive numbers, not {list(weights)}")
    shares = [Fraction(share) for share in (weights if weights is not None else counts)]
    # As long as the dataset that runs out first allows; one with no share cannot.
    scale = min((count / s for count, s in zip(counts, shares, strict=True) if s), default=0)
    taken = [int(share * scale) for share in shares]
    order = Interleaving(taken, (seed,))
    blocks = [order.block(number).sources for number in range(order.num_blocks)]
    return np.concatenate([np.empty(0, np.int64), *blocks])
