"""The hybrid kernel: one fused operation over the whole batch, for batches without padding.

It is the packed kernel with a single segment: one operation forward, hand-written gradients
backward, and every row runs as long as the longest one. Nothing shrinks, so nothing is gained from
short rows; nothing is paid for cutting either. Masks are as exact as with the packed kernel.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lengthwise.model.kernels.packed import packed_lstm


def hybrid_lstm(*args: Any, **kwargs: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One direction of an LSTM over the real steps of a batch; arguments as of `packed_lstm`."""
    return packed_lstm(*args, **kwargs, segments=1, name="hybrid")
