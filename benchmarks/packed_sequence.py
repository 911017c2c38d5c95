"""PyTorch's `pack_padded_sequence` with the weights of a Keras `Bidirectional(LSTM)`."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.model.torch_weights import from_torch, to_torch


def run_packed(
    steps: np.ndarray, lengths: np.ndarray, weights: list[Any]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs `torch.nn.LSTM(bidirectional=True)` over packed rows.

    Args:
        steps: (B, T, D) float32, padded on the right.
        lengths: (B,) integers, none of them 0.
        weights: the six of Keras, which a `tf.GradientTape` may follow.

    Returns:
        Outputs of all steps (B, T, 2·H), and the last h of both directions (B, 2·H).
    """
    import torch
    from torch.nn.utils import rnn

    @tf.custom_gradient
    def run(*variables: tf.Tensor) -> Any:
        state = to_torch([value.numpy() for value in variables])
        lstm = torch.nn.LSTM(
            steps.shape[2], len(state["weight_hh_l0"]) // 4, batch_first=True, bidirectional=True
        )
        lstm.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
        packed = rnn.pack_padded_sequence(
            torch.tensor(steps), torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        outputs, (h, _) = lstm(packed)
        outputs, _ = rnn.pad_packed_sequence(outputs, batch_first=True, total_length=steps.shape[1])
        results = [outputs, torch.cat(list(h), dim=-1)]

        def gradients(*upstream: tf.Tensor) -> list[tf.Tensor]:
            named = dict(lstm.named_parameters())
            given = [torch.tensor(value.numpy()) for value in upstream]
            found = dict(
                zip(named, torch.autograd.grad(results, list(named.values()), given), strict=True)
            )
            # Two biases that are added have each the gradient of their sum.
            kept = {name: value for name, value in found.items() if "bias_hh" not in name}
            return [tf.constant(value) for value in from_torch(kept)]

        return [tf.constant(result.detach().numpy()) for result in results], gradients

    return run(*(tf.convert_to_tensor(value) for value in weights))
