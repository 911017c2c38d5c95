"""One direction of an LSTM as the kernels take it, and several of them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Direction(NamedTuple):
    """One direction of an LSTM: what it reads, its weights as in Keras, and where it starts."""

    inputs: tf.Tensor  # (B, T, D); masked steps may hold anything
    kernel: tf.Tensor  # (D, 4·H)
    recurrent: tf.Tensor  # (H, 4·H)
    bias: tf.Tensor  # (4·H,)
    h: tf.Tensor  # (B, H)
    c: tf.Tensor  # (B, H)


def run_each(
    run: Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    directions: Sequence[Direction],
    backwards: Sequence[bool],
    **options: Any,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Runs a kernel of one direction for each; results as of `packed_lstms`.

    Args:
        run: takes a direction, whether it runs `backward`, and options; gives outputs (B, T, H),
            last h and last c.
        directions: what to run.
        backwards: for each whether it runs from the last real step to the first.
        **options: for each run.
    """
    outputs, states = [], []
    for direction, backward in zip(directions, backwards, strict=True):
        output, h, c = run(direction, backward=backward, **options)
        outputs.append(output)
        states += [h, c]
    return tf.stack(outputs, axis=2), states
