"""The packed kernel: rows sorted by length, and a batch that shrinks as rows end.

There are two ways to do it. Narrow layers, where a step is so little work that every single
operation counts, run a few rectangles of steps, each one fused operation (`segments.py`). Wide
ones, where the products with the weights are most of the work, run a loop with the exact rows of
each step, because the products inside of the fused operations are half as fast (`shrinking.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.choice import takes_loop
from lengthwise.model.kernels.direction import Direction, run_each
from lengthwise.model.kernels.segments import segmented_lstm
from lengthwise.model.kernels.shrinking import shrinking_lstms
from lengthwise.model.kernels.steps import RealSteps


def packed_lstms(
    directions: Sequence[Direction],
    steps: RealSteps,
    backwards: Sequence[bool],
    *,
    sequences: bool,
    states: bool,
    training: bool = True,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Directions of an LSTM over the real steps of a batch.

    Args:
        directions: of float32, all of the same shapes.
        steps: the real steps.
        backwards: for each direction whether it runs from the last real step to the first.
        sequences: whether the outputs of all steps are wanted.
        states: whether the last states are wanted; last h always is where `sequences` is False.
        training: False is a hint that no gradient will be asked for.

    Returns:
        Outputs (B, T, directions, H) in the order of the inputs, 0 at masked steps, or
        (B, 0, directions, H) if not wanted; and of each direction last h (B, H), without a gradient
        if just the outputs of all steps are wanted, and last c (B, H), or something else if not
        wanted. For a row without any real step these are the state that it was given.

    Raises:
        NotImplementedError: when it is differentiated twice.
    """
    units: Any = directions[0].recurrent.shape[0]
    if takes_loop(units):
        return shrinking_lstms(
            directions,
            steps,
            backwards,
            sequences=sequences,
            states=states,
            training=training,
        )
    return run_each(
        segmented_lstm,
        directions,
        backwards,
        steps=steps,
        sequences=sequences,
        states=states,
    )
