"""What masked recurrent layers of one and of two directions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.model.kernels import KERNELS
from lengthwise.model.masking import as_bool_mask, mask_from_length
from lengthwise.model.recurrence import Wanted, run_directions

# Options of `keras.layers.LSTM` that go to it as they are.
LSTM_OPTIONS = (
    "activation",
    "recurrent_activation",
    "use_bias",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "unit_forget_bias",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "seed",
)


class MaskedRecurrence(keras.layers.Layer):
    """Base of `MaskedLSTM` and `MaskedBiLSTM`; their docstrings say what the arguments mean."""

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        stateful: bool = False,
        kernel: str = "auto",
        **kwargs: Any,
    ) -> None:
        self._lstm_options = {name: kwargs.pop(name) for name in LSTM_OPTIONS if name in kwargs}
        super().__init__(**kwargs)
        if not isinstance(units, int) or isinstance(units, bool) or units < 1:
            raise ValueError(f"units must be a positive integer, not {units!r}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {KERNELS}, not {kernel!r}")
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.stateful = stateful
        self.kernel = kernel
        self.supports_masking = True
        # XLA knows no fused operations, and compiles the scan for a fixed batch size only.
        self.supports_jit = False
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self._carried: _CarriedState | None = None

    @property
    def directions(self) -> list[keras.layers.LSTM]:
        """The Keras layers that hold weights and options, in the order of the weights."""
        raise NotImplementedError

    @property
    def num_outputs(self) -> int:
        """How many outputs come before the states."""
        return 1

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for lstm in self.directions:
            lstm.build(input_shape)
        if self.stateful:
            if input_shape[0] is None:
                raise ValueError(
                    f"stateful=True needs a fixed batch size, but the shape is {input_shape}; give "
                    "the model `keras.Input(batch_shape=(B, T, D))`"
                )
            self._carried = _CarriedState(
                2 * len(self.directions), (input_shape[0], self.units), self.variable_dtype
            )
        self.built = True

    def reset_state(self) -> None:
        """Puts zeros in place of the state that a stateful layer carries from batch to batch."""
        if self._carried is not None:
            self._carried.assign([tf.zeros(v.shape) for v in self._carried.variables])

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        if isinstance(mask, (list, tuple)):  # Keras would take each number for a mask of its own.
            mask = tf.convert_to_tensor(mask)
        states = [None] * (2 * len(self.directions)) if self.return_state else []
        flat = [mask] * self.num_outputs + states
        return flat[0] if len(flat) == 1 else flat

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        batch, steps = input_shape[0], input_shape[1]
        width = self._output_width
        output = (batch, steps, width) if self.return_sequences else (batch, width)
        states = [(batch, self.units)] * (2 * len(self.directions)) if self.return_state else []
        flat = [output] * self.num_outputs + states
        return flat[0] if len(flat) == 1 else tuple(flat)

    def get_config(self) -> dict[str, Any]:
        lstm = self.directions[0].get_config()
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "stateful": self.stateful,
            "kernel": self.kernel,
            **{name: lstm[name] for name in LSTM_OPTIONS},
        }

    @property
    def _output_width(self) -> int:
        return self.units

    def _make_direction(self, name: str, *, go_backwards: bool) -> keras.layers.LSTM:
        # Serialised and read again, so that two directions never share an object of the options.
        options = {
            key: keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(value))
            for key, value in self._lstm_options.items()
        }
        return keras.layers.LSTM(
            self.units,
            return_sequences=self.return_sequences,
            return_state=True,
            go_backwards=go_backwards,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def _run(
        self, inputs: Any, mask: Any, initial_state: Any, length: Any, training: Any
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor | None]:
        """Outputs (…, directions, H) in the order of time, states, and the mask."""
        inputs = tf.convert_to_tensor(inputs)
        mask = joined_mask(inputs, mask, length)
        inputs = tf.cast(inputs, self.compute_dtype)
        outputs, states = run_directions(
            self.directions,
            inputs,
            mask,
            self._state(inputs, initial_state),
            wanted=Wanted(self.return_sequences, self.return_state or self.stateful),
            kernel=self.kernel,
            training=bool(training),
        )
        if self._carried is not None:
            self._carried.assign(states)
        return outputs, states, mask

    def _state(self, inputs: tf.Tensor, initial_state: Any) -> list[tf.Tensor]:
        count = 2 * len(self.directions)
        if initial_state is not None:
            given = list(initial_state)
            if len(given) != count:
                raise ValueError(
                    f"initial_state must be {count} tensors, h and c of each direction, "
                    f"not {len(given)}"
                )
            state = [tf.cast(tf.convert_to_tensor(value), inputs.dtype) for value in given]
            for value in state:
                if not value.shape.is_compatible_with((inputs.shape[0], self.units)):
                    raise ValueError(
                        f"initial_state must be tensors of shape ({inputs.shape[0]}, {self.units}),"
                        f" rows and units, not {value.shape}"
                    )
            return state
        if self._carried is not None:
            return [tf.cast(value, inputs.dtype) for value in self._carried.variables]
        # One tensor for all: nothing is written into it.
        return [tf.zeros([tf.shape(inputs)[0], self.units], inputs.dtype)] * count

    def _finish(self, outputs: Sequence[tf.Tensor], states: Sequence[tf.Tensor], mask: Any) -> Any:
        if mask is not None and self.return_sequences:
            for output in outputs:
                output._keras_mask = mask  # type: ignore[attr-defined]
        flat = (*outputs, *states) if self.return_state else tuple(outputs)
        return flat[0] if len(flat) == 1 else flat


class _CarriedState:
    """Variables of a stateful layer, where Keras does not look: they are no weights."""

    def __init__(self, count: int, shape: tuple[int, int], dtype: str) -> None:
        zeros = np.zeros(shape, dtype)
        self.variables = [keras.Variable(zeros, trainable=False, dtype=dtype) for _ in range(count)]

    def assign(self, values: Sequence[Any]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


def joined_mask(inputs: tf.Tensor, mask: Any, length: Any) -> tf.Tensor | None:
    """The mask of all that was said about real steps of `inputs` (B, T, …); None for nothing.

    Raises:
        ValueError: it is for inputs of another shape.
    """
    if mask is None:
        # Keras does not hand it over to a layer that is given a second tensor.
        mask = getattr(inputs, "_keras_mask", None)
    if mask is not None:
        mask = as_bool_mask(mask)
    if length is not None:
        within = mask_from_length(tf.convert_to_tensor(length), tf.shape(inputs)[1])
        mask = within if mask is None else tf.logical_and(mask, within)
    if mask is not None and not mask.shape.is_compatible_with(inputs.shape[:2]):
        raise ValueError(
            f"a mask must be (B, T) and a length (B,): for inputs {inputs.shape} they give a mask "
            f"{mask.shape}"
        )
    return mask
