"""The hybrid kernel: one fused operation over the whole batch, for batches without padding.

It is the packed kernel of narrow layers with a single segment: one operation forward, one backward,
and every row runs as long as the longest one. Nothing shrinks, so nothing is gained from short
rows; nothing is paid for cutting either. Masks are as exact as with the packed kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lengthwise.model.kernels.direction import Direction, run_each
from lengthwise.model.kernels.segments import segmented_lstm
from lengthwise.model.kernels.steps import RealSteps


def hybrid_lstms(
    directions: Sequence[Direction],
    steps: RealSteps,
    backwards: Sequence[bool],
    *,
    sequences: bool,
    states: bool,
    training: bool = True,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Directions of an LSTM over the real steps of a batch; see `packed_lstms`."""
    del training
    return run_each(
        segmented_lstm,
        directions,
        backwards,
        steps=steps,
        sequences=sequences,
        states=states,
        segments=1,
        name="hybrid",
    )
