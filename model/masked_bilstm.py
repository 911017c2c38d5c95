"""A bidirectional LSTM that is exact for every mask."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lengthwise.model.masking import as_bool_mask, left_compaction, zero_masked_steps

MERGE_MODES = ("concat", "sum", "mul", "ave", None)
KERNELS = ("auto", "keras")


@keras.saving.register_keras_serializable(package="lengthwise")
class MaskedBiLSTM(keras.layers.Layer):
    """Bidirectional LSTM in which a masked step does not exist.

    State is carried over a masked step, the output there is 0, and neither output nor gradient
    depends on what a masked step holds, be it NaN. Masks may be right, left or interior; a row
    without any real step gives zeros. Real steps are moved to the left before the LSTM and its
    outputs back afterwards, and no length is below 1, so cuDNN accepts every mask too.

    The six weights have the order and shapes of
    `keras.layers.Bidirectional(keras.layers.LSTM(units)).get_weights()`.

    Args:
        units: size of the state of each direction.
        return_sequences: give the output of every step, not the last one of each direction.
        return_state: give the last states too.
        merge_mode: how the outputs of both directions are joined: "concat", "sum", "mul", "ave",
            or None for a pair.
        kernel: what computes the recurrence: "keras" (Keras's own LSTM), or "auto" for the best
            available.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: (B, T, D) float.
        mask: (B, T) bool, integer or float, non-zero at real steps; Keras's implicit mask by
            default.

    Returns:
        (B, 2·units), or (B, T, 2·units) with `return_sequences` (units only unless concatenated);
        with `return_state` a tuple of it and four (B, units): forward h, c, backward h, c.

    Raises:
        ValueError: for a `units`, `merge_mode` or `kernel` that does not exist.

    Example:
        >>> steps = [[[1.0], [2.0]], [[3.0], [float("nan")]]]
        >>> layer = MaskedBiLSTM(4)
        >>> layer(tf.constant(steps), mask=tf.constant([[True, True], [True, False]])).shape
        TensorShape([2, 8])
    """

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        merge_mode: str | None = "concat",
        kernel: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, int) or isinstance(units, bool) or units < 1:
            raise ValueError(f"units must be a positive integer, not {units!r}")
        if merge_mode not in MERGE_MODES:
            raise ValueError(f"merge_mode must be one of {MERGE_MODES}, not {merge_mode!r}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {KERNELS}, not {kernel!r}")
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.merge_mode = merge_mode
        self.kernel = kernel
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.forward_lstm = self._make_direction("forward_lstm", go_backwards=False)
        self.backward_lstm = self._make_direction("backward_lstm", go_backwards=True)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.forward_lstm.build(input_shape)
        self.backward_lstm.build(input_shape)
        self.built = True

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        if mask is None:
            return self._finish(*self._run(inputs, None, training))

        mask = as_bool_mask(mask)  # (B, T)
        moved = left_compaction(mask)
        inputs = zero_masked_steps(inputs, mask)
        inputs = tf.gather(inputs, moved.order, batch_dims=1)  # (B, T, D)
        # cuDNN takes no length of 0: an empty row runs over one zero step; its result is dropped.
        lengths = tf.maximum(moved.lengths, 1)
        outputs, states = self._run(inputs, tf.sequence_mask(lengths, tf.shape(mask)[1]), training)

        if self.return_sequences:
            outputs = [
                zero_masked_steps(tf.gather(output, moved.rank, batch_dims=1), mask)
                for output in outputs
            ]
        else:
            outputs = [_zero_empty_rows(output, moved.lengths) for output in outputs]
        return self._finish(outputs, [_zero_empty_rows(state, moved.lengths) for state in states])

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        outputs = [mask] if self.merge_mode is not None else [mask, mask]
        states = [None] * 4 if self.return_state else []
        flat = [*outputs, *states]
        return flat[0] if len(flat) == 1 else flat

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        batch, steps = input_shape[0], input_shape[1]
        width = 2 * self.units if self.merge_mode == "concat" else self.units
        output = (batch, steps, width) if self.return_sequences else (batch, width)
        outputs = [output] if self.merge_mode is not None else [output, output]
        states = [(batch, self.units)] * 4 if self.return_state else []
        flat = [*outputs, *states]
        return flat[0] if len(flat) == 1 else tuple(flat)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "merge_mode": self.merge_mode,
            "kernel": self.kernel,
        }

    def _make_direction(self, name: str, *, go_backwards: bool) -> keras.layers.LSTM:
        return keras.layers.LSTM(
            self.units,
            return_sequences=self.return_sequences,
            return_state=True,
            go_backwards=go_backwards,
            dtype=self.dtype_policy,
            name=name,
        )

    def _run(
        self, inputs: Any, mask: Any, training: bool | None
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Outputs of both directions in the order of time, and their four states."""
        forward, *forward_states = self.forward_lstm(inputs, mask=mask, training=training)
        backward, *backward_states = self.backward_lstm(inputs, mask=mask, training=training)
        if self.return_sequences:
            backward = tf.reverse(backward, axis=[1])
        return [forward, backward], [*forward_states, *backward_states]

    def _finish(self, outputs: list[tf.Tensor], states: list[tf.Tensor]) -> Any:
        merged = _merge(outputs[0], outputs[1], self.merge_mode)
        flat = (*merged, *states) if self.return_state else merged
        return flat[0] if len(flat) == 1 else flat


def _merge(
    forward: tf.Tensor, backward: tf.Tensor, merge_mode: str | None
) -> tuple[tf.Tensor, ...]:
    if merge_mode == "concat":
        return (tf.concat([forward, backward], axis=-1),)
    if merge_mode == "sum":
        return (forward + backward,)
    if merge_mode == "mul":
        return (forward * backward,)
    if merge_mode == "ave":
        return ((forward + backward) / 2,)
    return (forward, backward)


def _zero_empty_rows(values: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    return tf.where(lengths[:, tf.newaxis] > 0, values, tf.zeros((), values.dtype))
