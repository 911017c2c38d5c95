"""An LSTM of one direction that is exact for every mask."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.masked_recurrence import MaskedRecurrence


@keras.saving.register_keras_serializable(package="lengthwise")
class MaskedLSTM(MaskedRecurrence):
    """LSTM in which a masked step does not exist; one direction of a `MaskedBiLSTM`.

    Args:
        units: size of the state.
        return_sequences: give the output of every step, not the last one.
        return_state: give the last h and c too.
        go_backwards: run from the last real step to the first. Outputs stay at their steps;
            `keras.layers.LSTM` turns them around.
        stateful: start from the state that the batch before ended with, row by row.
        kernel: what computes the recurrence; see `MaskedBiLSTM`.
        **kwargs: of the cell of `keras.layers.LSTM`, such as `dropout`, and of
            `keras.layers.Layer`.

    Example:
        >>> layer = MaskedLSTM(4, return_sequences=True)
        >>> outputs = layer(keras.ops.ones((1, 3, 2)), length=[2])
        >>> outputs.shape, float(keras.ops.sum(outputs[0, 2]))
        (TensorShape([1, 3, 4]), 0.0)
    """

    def __init__(self, units: int, *, go_backwards: bool = False, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.go_backwards = go_backwards
        self.lstm = self._make_direction("lstm", go_backwards=go_backwards)

    @property
    def directions(self) -> list[keras.layers.LSTM]:
        return [self.lstm]

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        initial_state: Any = None,
        length: Any = None,
        training: bool | None = None,
    ) -> Any:
        outputs, states, mask = self._run(inputs, mask, initial_state, length, training)
        return self._finish([tf.squeeze(outputs, axis=-2)], states, mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "go_backwards": self.go_backwards}
