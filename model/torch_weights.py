"""Weights of `torch.nn.LSTM` as arrays, to and from the order of Keras; needs no torch.

Both frameworks order the gates input, forget, candidate, output. PyTorch keeps matrices transposed
and two biases that are only ever added; going there, the second one is zero.

    layer.set_weights(from_torch(torch_lstm.state_dict()))
    torch_lstm.load_state_dict({name: torch.tensor(v) for name, v in to_torch(weights).items()})

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DIRECTIONS = ("", "_reverse")


def from_torch(state: Mapping[str, Any], *, layer: int = 0) -> list[np.ndarray]:
    """Weights for `set_weights` of a `MaskedLSTM` or `MaskedBiLSTM`.

    Args:
        state: the `state_dict` of a `torch.nn.LSTM`, or name -> array.
        layer: which one of a stack.

    Returns:
        Kernel, recurrent kernel and bias of the forward direction, and if there is one of the
        backward direction.

    Raises:
        ValueError: there is no such layer, or it has projections.

    Example:
        >>> state = {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 2))}
        >>> [weights.shape for weights in from_torch(state)]
        [(3, 8), (2, 8), (8,)]
    """
    weights = []
    for direction in _DIRECTIONS:
        end = f"_l{layer}{direction}"
        if f"weight_hr{end}" in state:
            raise ValueError(f"weight_hr{end}: an LSTM with projections has no counterpart here")
        if f"weight_ih{end}" not in state:
            continue
        kernel = _array(state[f"weight_ih{end}"])
        bias = np.zeros(len(kernel), kernel.dtype)
        for name in ("bias_ih", "bias_hh"):
            if f"{name}{end}" in state:
                bias = bias + _array(state[f"{name}{end}"])
        weights += [kernel.T, _array(state[f"weight_hh{end}"]).T, bias]
    if not weights:
        raise ValueError(f"there is no 'weight_ih_l{layer}' among {sorted(state)}")
    return weights


def to_torch(weights: Sequence[Any], *, layer: int = 0) -> dict[str, np.ndarray]:
    """The `state_dict` of a `torch.nn.LSTM` with the same weights, as arrays.

    Args:
        weights: `get_weights()` of a `MaskedLSTM` or `MaskedBiLSTM` with biases.
        layer: which one of a stack.

    Example:
        >>> sorted(to_torch([np.ones((3, 8)), np.ones((2, 8)), np.ones(8)]))
        ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    if len(weights) not in (3, 6):
        raise ValueError(f"an LSTM has 3 weights, a bidirectional one 6, not {len(weights)}")
    state = {}
    for number, direction in enumerate(_DIRECTIONS[: len(weights) // 3]):
        kernel, recurrent, bias = map(np.asarray, weights[3 * number : 3 * number + 3])
        end = f"_l{layer}{direction}"
        state[f"weight_ih{end}"] = np.ascontiguousarray(kernel.T)
        state[f"weight_hh{end}"] = np.ascontiguousarray(recurrent.T)
        state[f"bias_ih{end}"] = bias
        state[f"bias_hh{end}"] = np.zeros_like(bias)
    return state


def _array(value: Any) -> np.ndarray:
    # A tensor that is being trained, or lies on a GPU, does not become an array by itself.
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
