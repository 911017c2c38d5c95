"""Times MaskedBiLSTM against Keras's masked Bidirectional(LSTM): training step and inference.

Both sides run in one process, turn by turn on the same batch with the same weights, so that what
slows the machine hits both; a ratio is the median over turns. It is one of CPU time on one thread,
of wall time on several. A training step is outputs of all steps, a loss over them, and its
gradients by inputs and all weights. Peak memory is taken in a process per side.

    python benchmarks/bilstm_against_keras.py                    # all shapes, one thread
    python benchmarks/bilstm_against_keras.py --threads 2
    python benchmarks/bilstm_against_keras.py --jit              # both with jit_compile=True too
    python benchmarks/bilstm_against_keras.py --memory           # peak memory instead of time
    python benchmarks/bilstm_against_keras.py --kernels packed hybrid scan
    python benchmarks/bilstm_against_keras.py --kernels auto products

The side "products" does nothing but the products of inputs and state with the weights that an exact
LSTM needs in inference, over the rows that run at each step: what remains for a kernel to win.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from process_usage import call_task, run
from rich.console import Console
from rich.table import Table

SHAPES = ((32, 50, 16, 64), (64, 128, 32, 128), (64, 200, 64, 128), (64, 400, 64, 256))
LENGTHS = ("uniform", "bucketed", "full")


def draw_lengths(kind: str, batch: int, total: int, seed: int = 0) -> np.ndarray:
    """uniform: 1 to T. bucketed: 0.85·T to T, a density of about 0.93. full: all T."""
    low = {"uniform": 1, "bucketed": int(0.85 * total), "full": total}[kind]
    lengths = np.random.default_rng(seed).integers(low, total + 1, batch)
    lengths[0] = total
    return lengths


def make_steps(
    side: str, width: int, units: int, *, training: bool
) -> Callable[[np.ndarray, np.ndarray], Callable[[], Any]]:
    """A function of a batch and its mask that gives a function that computes one step."""
    import keras
    import tensorflow as tf

    from lengthwise.model import MaskedBiLSTM

    name, _, jit = side.partition("+")
    if name == "products":
        return _make_products(width, units)
    if name == "keras":
        layer = keras.layers.Bidirectional(keras.layers.LSTM(units, return_sequences=True))
    else:
        layer = MaskedBiLSTM(units, return_sequences=True, kernel=name)
    layer.build((None, None, width))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) / units**0.5 for w in layer.get_weights()])

    def step(inputs: Any, mask: Any) -> Any:
        if not training:
            return layer(inputs, mask=mask, training=False)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(tf.square(layer(inputs, mask=mask, training=True)))
        return tape.gradient(total, [inputs, *layer.trainable_variables])

    signature = [tf.TensorSpec((None, None, width)), tf.TensorSpec((None, None), tf.bool)]
    if jit:  # XLA wants the shape
        compiled = tf.function(step, jit_compile=True)
    else:
        compiled = tf.function(step, input_signature=signature)

    def bind(inputs: np.ndarray, mask: np.ndarray) -> Callable[[], Any]:
        given = tf.constant(inputs), tf.constant(mask)
        # The last value: outputs, or the gradient by the last bias, through all of the steps.
        return lambda: [value.numpy() for value in tf.nest.flatten(compiled(*given))[-1:]]

    return bind


def _make_products(width: int, units: int) -> Callable[..., Any]:
    import tensorflow as tf

    weights = [tf.random.normal((width + units, 4 * units + 16)) for _ in range(2)]

    @tf.function(autograph=False)
    def multiply(rows: Any, counts: Any) -> Any:
        def body(t: Any, seen: Any) -> Any:
            running = rows[: counts[t]]
            return t + 1, seen + sum(tf.matmul(running, w)[0, 0] for w in weights)

        zero = tf.zeros([])
        return tf.while_loop(
            lambda t, _: t < tf.size(counts), body, (0, zero), parallel_iterations=1
        )

    def bind(inputs: np.ndarray, mask: np.ndarray) -> Callable[[], Any]:
        rows = tf.random.normal((len(inputs), width + units))
        counts = tf.constant(mask.sum(0), tf.int32)
        return lambda: [multiply(rows, counts)[1].numpy()]

    return bind


def measure(
    shape: tuple[int, int, int, int], sides: list[str], *, training: bool, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Lengths -> side -> seconds of each turn."""
    batch, total, width, units = shape
    steps = {side: make_steps(side, width, units, training=training) for side in sides}
    one_thread = os.environ["TF_NUM_INTRAOP_THREADS"] == "1"
    clock = time.process_time if one_thread else time.perf_counter
    inputs = np.random.default_rng(1).normal(size=(batch, total, width)).astype(np.float32)
    times: dict[str, dict[str, list[float]]] = {}
    for kind in LENGTHS:
        mask = np.arange(total) < draw_lengths(kind, batch, total)[:, np.newaxis]
        bound = {side: bind(inputs, mask) for side, bind in steps.items()}
        expected = np.asarray(bound["keras"]()[0])
        for side, step in bound.items():
            found = np.asarray(step()[0])
            step()
            # Both sides must do the same work, or times mean nothing.
            if side != "products":
                largest = float(np.abs(found - expected).max() / np.abs(expected).max())
                if largest > 1e-4:
                    raise RuntimeError(f"{side} differs from Keras by {largest:.1e} at {shape}")
        times[kind] = {side: [] for side in sides}
        started = time.perf_counter()
        while time.perf_counter() - started < seconds or len(times[kind][sides[0]]) < 5:
            for side, step in bound.items():
                before = clock()
                step()
                times[kind][side].append(clock() - before)
    return times


def peak_memory(side: str, shape: list[int], lengths: str, training: bool) -> None:
    """A task of its own: a few steps of one side; its process's peak memory is what counts."""
    batch, total, width, units = shape
    step = make_steps(side, width, units, training=training)
    inputs = np.random.default_rng(1).normal(size=(batch, total, width)).astype(np.float32)
    mask = np.arange(total) < draw_lengths(lengths, batch, total)[:, np.newaxis]
    bound = step(inputs, mask)
    for _ in range(3):
        bound()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per shape, lengths and mode")
    parser.add_argument("--kernels", nargs="+", default=["auto"])
    parser.add_argument("--shapes", nargs="+", type=int, default=range(len(SHAPES)))
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sides = ["keras", *options.kernels]
    sides += ["keras+jit", "auto+jit"] if options.jit else []
    table = Table(title=f"times better than Keras, {options.threads} thread(s), median (range)")
    for heading in ("(B, T, D, H)", "lengths", "mode", "Keras", *sides[1:]):
        table.add_column(heading, justify="right")
    for number in options.shapes:
        for training in (True, False):
            mode = "training" if training else "inference"
            rows = (_memory_rows if options.memory else _time_rows)(
                SHAPES[number], sides, training, options
            )
            for kind, cells in rows:
                table.add_row(str(SHAPES[number]), kind, mode, *cells)
                print(SHAPES[number], kind, mode, *cells, flush=True)
    Console(width=120).print(table)


def _time_rows(shape: Any, sides: list[str], training: bool, options: Any) -> Any:
    times = measure(shape, sides, training=training, seconds=options.seconds)
    for kind, by_side in times.items():
        keras = by_side["keras"]
        cells = [f"{statistics.median(keras) * 1e3:,.1f} ms"]
        for side in sides[1:]:
            ratios = sorted(k / ours for k, ours in zip(keras, by_side[side], strict=True))
            low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
            cells.append(f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})")
        yield kind, cells


def _memory_rows(shape: Any, sides: list[str], training: bool, options: Any) -> Any:
    for kind in LENGTHS:
        peaks = {}
        for side in sides:
            task = call_task(
                "bilstm_against_keras:peak_memory",
                rows=1,
                side=side,
                shape=list(shape),
                lengths=kind,
                training=training,
            )
            threads = {name: os.environ[name] for name in os.environ if "THREADS" in name}
            peaks[side] = run(task, environment=threads).peak_rss
        cells = [f"{peaks['keras'] / 2**20:,.0f} MiB"]
        cells += [f"{peaks['keras'] / peaks[side]:.2f}" for side in sides[1:]]
        yield kind, cells


if __name__ == "__main__":
    main()
