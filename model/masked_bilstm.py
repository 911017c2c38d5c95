"""A bidirectional LSTM that is exact for every mask."""

from __future__ import annotations

from typing import Any, cast

import keras
import tensorflow as tf

from lengthwise.model.masked_recurrence import LSTM_OPTIONS, MaskedRecurrence

MERGE_MODES = ("concat", "sum", "mul", "ave", None)


@keras.saving.register_keras_serializable(package="lengthwise")
class MaskedBiLSTM(MaskedRecurrence):
    """Bidirectional LSTM in which a masked step does not exist.

    State is carried over a masked step, the output there is 0, and neither output nor gradient
    depends on what a masked step holds, be it NaN. Masks may be right, left or interior; a row
    without any real step gives zeros, and its states are those that it was given.

    The six weights have the order and shapes of
    `keras.layers.Bidirectional(keras.layers.LSTM(units)).get_weights()`.

    Args:
        units: size of the state of each direction.
        return_sequences: give the output of every step, not the last one of each direction.
        return_state: give the last states too.
        merge_mode: how the outputs of both directions are joined: "concat", "sum", "mul", "ave",
            or None for a pair.
        stateful: start from the state that the batch before ended with, row by row; see
            `reset_state`.
        kernel: what computes the recurrence. "packed": the batch shrinks as rows end; "hybrid":
            one operation over the whole batch; "scan": a plain loop, which XLA compiles and which
            can be differentiated twice; "keras": Keras's own LSTM, with cuDNN on a GPU. "auto"
            takes what the environment variable LENGTHWISE_KERNEL names, or the fastest.
        **kwargs: of the cell of `keras.layers.LSTM` (initializers, regularizers, constraints,
            `dropout`, `recurrent_dropout`, `use_bias`, activations, `seed`), and of
            `keras.layers.Layer`.

    Call arguments:
        inputs: (B, T, D) float.
        mask: (B, T) bool, integer or float, non-zero at real steps; Keras's implicit mask by
            default.
        initial_state: four (B, units): forward h, c, backward h, c; zeros by default.
        length: (B,) integers, as another way to say that the first steps of each row are real;
            with a mask, a step must be real by both.
        training: whether dropout applies.

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

    def __init__(self, units: int, *, merge_mode: str | None = "concat", **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        if merge_mode not in MERGE_MODES:
            raise ValueError(f"merge_mode must be one of {MERGE_MODES}, not {merge_mode!r}")
        self.merge_mode = merge_mode
        self.forward_lstm = self._make_direction("forward_lstm", go_backwards=False)
        self.backward_lstm = self._make_direction("backward_lstm", go_backwards=True)

    @classmethod
    def from_bidirectional(cls, layer: keras.layers.Bidirectional, **options: Any) -> MaskedBiLSTM:
        """Makes a layer with the options and, if it is built, the weights of Keras's.

        Args:
            layer: around a `keras.layers.LSTM`.
            **options: of this class, such as `kernel`.

        Raises:
            ValueError: it is around something else, or the forward direction goes backwards.

        Example:
            >>> theirs = keras.layers.Bidirectional(keras.layers.LSTM(3))
            >>> MaskedBiLSTM.from_bidirectional(theirs, kernel="packed").units
            3
        """
        forward: Any = layer.forward_layer
        backward: Any = layer.backward_layer
        if type(forward) is not keras.layers.LSTM or type(backward) is not keras.layers.LSTM:
            raise ValueError(
                f"from_bidirectional takes a Bidirectional(LSTM), not one around {type(forward)} "
                f"and {type(backward)}"
            )
        config, other = forward.get_config(), backward.get_config()
        differing = [n for n in ("units", *LSTM_OPTIONS) if config[n] != other[n]]
        if differing:
            raise ValueError(f"both directions must have the same options; differing: {differing}")
        if forward.go_backwards:
            raise ValueError(
                "from_bidirectional takes no LSTM with go_backwards=True: its outputs are turned "
                "around; take one that goes forward and exchange the halves of the weights"
            )
        ours = cls(
            **{
                **{name: config[name] for name in ("units", *LSTM_OPTIONS)},
                "return_sequences": layer.return_sequences,
                "return_state": layer.return_state,
                "stateful": layer.stateful,
                "merge_mode": layer.merge_mode,
                "dtype": forward.dtype_policy,
                "trainable": layer.trainable,
                "name": layer.name,
                **options,
            }
        )
        if layer.built:
            batch = cast(Any, forward.states)[0].shape[0] if layer.stateful else None
            weights: Any = layer.get_weights()
            ours.build((batch, None, len(weights[0])))
            ours.set_weights(weights)
        return ours

    def to_bidirectional(self) -> keras.layers.Bidirectional:
        """Makes Keras's layer with the options and, if this one is built, the weights of this.

        Example:
            >>> MaskedBiLSTM(3, return_sequences=True).to_bidirectional().return_sequences
            True
        """
        config: Any = self.forward_lstm.get_config()
        lstm = keras.layers.LSTM(
            **{name: config[name] for name in ("units", *LSTM_OPTIONS)},
            return_sequences=self.return_sequences,
            return_state=self.return_state,
            stateful=self.stateful,
            dtype=self.dtype_policy,
        )
        merge_mode: Any = self.merge_mode
        theirs = keras.layers.Bidirectional(
            lstm, merge_mode=merge_mode, dtype=self.dtype_policy, name=self.name
        )
        theirs.trainable = self.trainable
        if self.built:
            batch = None if self._carried is None else self._carried.variables[0].shape[0]
            theirs.build((batch, None, self.forward_lstm.cell.kernel.shape[0]))
            theirs.set_weights(self.get_weights())
        return theirs

    @property
    def directions(self) -> list[keras.layers.LSTM]:
        return [self.forward_lstm, self.backward_lstm]

    @property
    def num_outputs(self) -> int:
        return 2 if self.merge_mode is None else 1

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        initial_state: Any = None,
        length: Any = None,
        training: bool | None = None,
    ) -> Any:
        outputs, states, mask = self._run(inputs, mask, initial_state, length, training)
        return self._finish(_merge(outputs, self.merge_mode), states, mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "merge_mode": self.merge_mode}

    @property
    def _output_width(self) -> int:
        return 2 * self.units if self.merge_mode == "concat" else self.units


def _merge(outputs: tf.Tensor, merge_mode: str | None) -> tuple[tf.Tensor, ...]:
    """Joins both directions of outputs (…, 2, H)."""
    if merge_mode == "concat":
        units: Any = outputs.shape[-1]
        shape = tf.concat([tf.shape(outputs)[:-2], [2 * units]], axis=0)
        return (tf.reshape(outputs, shape),)
    forward, backward = tf.unstack(outputs, axis=-2)
    if merge_mode == "sum":
        return (forward + backward,)
    if merge_mode == "mul":
        return (forward * backward,)
    if merge_mode == "ave":
        return ((forward + backward) / 2,)
    return (forward, backward)
