"""Several masked BiLSTMs, one over the other."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.masked_bilstm import MaskedBiLSTM
from lengthwise.model.masked_recurrence import joined_mask
from lengthwise.model.pooling import last_steps


@keras.saving.register_keras_serializable(package="lengthwise")
class MaskedBiLSTMStack(keras.layers.Layer):
    """A stack of `MaskedBiLSTM` layers that hands the mask through.

        steps ─ BiLSTM ─┬─ dropout ─ BiLSTM ─ + ─┬─ dropout ─ BiLSTM ─ + ─ …
                        └────────── residual ──┘  └────────── residual ──┘

    Args:
        units: size of the state of each direction in every layer.
        layers: how many.
        dropout: fraction of the steps' values dropped between layers in training.
        residual: add the input of each layer but the first to its output.
        return_sequences: give the outputs of every step, not the last ones of both directions.
        kernel: see `MaskedBiLSTM`.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: (B, T, D).
        mask, length: as of `MaskedBiLSTM`.

    Returns:
        (B, T, 2·units) with `return_sequences`, else (B, 2·units).

    Example:
        >>> stack = MaskedBiLSTMStack(4, layers=2, residual=True)
        >>> stack(keras.ops.ones((1, 3, 2)), length=[2]).shape
        TensorShape([1, 8])
    """

    def __init__(
        self,
        units: int,
        *,
        layers: int,
        dropout: float = 0.0,
        residual: bool = False,
        return_sequences: bool = False,
        kernel: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if layers < 1:
            raise ValueError(f"layers must be at least 1, not {layers}")
        self.units = units
        self.layers = layers
        self.dropout = dropout
        self.residual = residual
        self.return_sequences = return_sequences
        self.kernel = kernel
        self.supports_masking = True
        self.bilstms = [
            MaskedBiLSTM(
                units,
                # A residual sum is taken step by step, so the last steps are picked after it.
                return_sequences=return_sequences or number < layers - 1,
                kernel=kernel,
                dtype=self.dtype_policy,
                name=f"bilstm_{number}",
            )
            for number in range(layers)
        ]
        self.droppers = [
            keras.layers.Dropout(dropout, dtype=self.dtype_policy, name=f"dropout_{number}")
            for number in range(1, layers)
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for bilstm in self.bilstms:
            bilstm.build(input_shape)
            input_shape = (*input_shape[:2], 2 * self.units)
        self.built = True

    def call(
        self, inputs: Any, mask: Any = None, length: Any = None, training: bool | None = None
    ) -> Any:
        mask = joined_mask(tf.convert_to_tensor(inputs), mask, length)
        hidden = self.bilstms[0](inputs, mask=mask, training=training)
        for dropper, bilstm in zip(self.droppers, self.bilstms[1:], strict=True):
            given = hidden
            hidden = dropper(hidden, training=training)
            hidden = bilstm(hidden, mask=mask, training=training)
            if self.residual:
                if not bilstm.return_sequences:
                    given = last_steps(given, mask=mask)
                hidden = hidden + given
        if mask is not None and self.return_sequences:
            hidden._keras_mask = mask
        return hidden

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return previous_mask if self.return_sequences else None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        steps = (input_shape[1],) if self.return_sequences else ()
        return (input_shape[0], *steps, 2 * self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "layers": self.layers,
            "dropout": self.dropout,
            "residual": self.residual,
            "return_sequences": self.return_sequences,
            "kernel": self.kernel,
        }
