"""What the LSTM of a single sequence is: the textbook, in float64, one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

UNITS = 3


def random_weights(width: int, *, units: int = UNITS, seed: int = 1) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias, none of them zero or one anywhere."""
    rng = np.random.default_rng(seed)
    shapes = [(width, 4 * units), (units, 4 * units), (4 * units,)]
    return [(rng.normal(size=shape) / 2).astype(np.float32) for shape in shapes]


def run_alone(x: Any, weights: Any, h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    """Outputs and last state of one sequence x (n, D), from a state (H,) each."""
    kernel, recurrent, bias = weights
    outputs = []
    for step in tf.unstack(x):
        gates = tf.tensordot(step, kernel, 1) + tf.tensordot(h, recurrent, 1) + bias
        i, f, candidate, o = tf.split(gates, 4)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
        h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
    return outputs, h, c


def oracle(
    inputs: np.ndarray,
    mask: np.ndarray,
    weights: Any,
    state: Any,
    *,
    backward: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs, h and c of a batch, and gradients of `loss` by inputs, state and weights."""
    x = tf.constant(np.where(mask[:, :, np.newaxis], inputs, 0), tf.float64)
    weights = [tf.constant(w, tf.float64) for w in weights]
    state = [tf.constant(s, tf.float64) for s in state]
    with tf.GradientTape() as tape:
        tape.watch([x, *state, *weights])
        rows, h_rows, c_rows = [], [], []
        for row, real in enumerate(mask):
            steps = np.flatnonzero(real)
            order = steps[::-1] if backward else steps
            sequence = tf.reshape(tf.gather(x[row], order), [-1, inputs.shape[2]])
            alone, h, c = run_alone_or_keep(sequence, weights, state[0][row], state[1][row])
            by_step = dict(zip(order.tolist(), alone, strict=True))
            zero = tf.zeros_like(h)
            rows.append(tf.stack([zero, *(by_step.get(t, zero) for t in range(len(real)))])[1:])
            h_rows.append(h)
            c_rows.append(c)
        results = [tf.stack(rows), tf.stack(h_rows), tf.stack(c_rows)]
        total = loss(results)
    gradients = tape.gradient(
        total, [x, *state, *weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return [r.numpy() for r in results], [tf.convert_to_tensor(g).numpy() for g in gradients]


def run_alone_or_keep(sequence: Any, weights: Any, h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    """`run_alone`, where a sequence without any step leaves the state as it is."""
    return run_alone(sequence, weights, h, c) if len(sequence) else ([], h, c)


def loss(results: Any) -> Any:
    """A number that every output, and every exchange of two, changes."""
    parts = []
    for number, result in enumerate(results):
        flat = tf.reshape(result, [-1])
        scale = tf.cast(tf.range(1, tf.size(flat) + 1), flat.dtype)
        parts.append(tf.reduce_sum(tf.sin(flat + tf.cast(number + 1, flat.dtype) + scale) * 2))
    return tf.add_n(parts)


def relative_error(got: Any, expected: Any) -> float:
    """Largest difference, against the largest value that is expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    if not expected.size:
        return 0.0
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-3))
