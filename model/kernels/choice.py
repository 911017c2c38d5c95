"""Which kernel runs: what was asked for, or the one that measurements say is fastest.

Time of Keras's masked Bidirectional(LSTM) divided by ours, outputs of all steps, float32, one
thread, written by `benchmarks/choose_kernels.py`; "full" has no padding, "bucketed" lengths from
0.85·T to T, "uniform" from 1 to T:

                                               training                        inference
    (B, T, D, H)        lengths       hybrid rectangles       loop     hybrid rectangles       loop
    (32, 50, 16, 32)    uniform          3.7        4.7        2.5        2.3        2.4        1.5
                        bucketed         4.3        4.5        2.3        2.3        2.2        1.4
                        full             4.5        4.3        2.3        2.3        2.2        1.4
    (32, 50, 16, 64)    uniform          3.0        3.4        2.5        1.9        2.2        1.5
                        bucketed         2.9        2.9        2.1        1.9        1.9        1.4
                        full             3.0        3.0        2.1        1.9        1.9        1.4
    (64, 50, 32, 96)    uniform          1.9        2.3        2.4        1.4        1.8        1.7
                        bucketed         1.9        1.8        1.7        1.4        1.4        1.3
                        full             1.9        1.8        1.6        1.4        1.4        1.3
    (64, 50, 32, 128)   uniform          1.3        1.6        2.5        1.3        1.8        1.8
                        bucketed         1.3        1.3        1.7        1.3        1.3        1.4
                        full             1.3        1.3        1.7        1.4        1.4        1.3
    (64, 50, 64, 256)   uniform          0.8        0.9        2.5        1.2        1.7        2.0
                        bucketed         0.8        0.8        1.6        1.2        1.2        1.4
                        full             0.8        0.8        1.5        1.2        1.1        1.3

So `auto` is

- "keras" on a GPU, where cuDNN is faster than anything made of single operations, and for cells
  that no other kernel knows: other activations, recurrent dropout in training;
- "scan" in a function that XLA compiles, and in float64, which the fused operations do not know;
- "hybrid" in a narrow layer without any mask, so that every row is known to be full;
- "packed" elsewhere: with rectangles in a narrow layer, with the loop in a wide one (`takes_loop`).
  The density of a batch is known only when it runs; the packed kernel adapts to it by itself.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

KERNELS = ("auto", "packed", "hybrid", "scan", "keras")
VARIABLE = "LENGTHWISE_KERNEL"
_WIDE_UNITS = 112  # from so many units on the loop wins


def choose_kernel(kernel: str, *, units: int, dtype: str, masked: bool, plain: bool) -> str:
    """Says which kernel runs.

    Args:
        kernel: one of `KERNELS`; "auto" gives way to the environment variable LENGTHWISE_KERNEL.
        units: size of the state.
        dtype: of the computation.
        masked: whether there is a mask.
        plain: whether the cell is the standard one, in inference or without recurrent dropout.

    Returns:
        "packed", "hybrid", "scan" or "keras".

    Raises:
        ValueError: the variable holds something else.

    Example:
        >>> choose_kernel("hybrid", units=64, dtype="float32", masked=True, plain=True)
        'hybrid'
        >>> choose_kernel("hybrid", units=64, dtype="float32", masked=True, plain=False)
        'keras'
    """
    if not plain:
        return "keras"
    if kernel == "auto":
        kernel = os.environ.get(VARIABLE) or "auto"
        if kernel not in KERNELS:
            raise ValueError(f"{VARIABLE} must be one of {KERNELS}, not {kernel!r}")
    if kernel == "auto":
        if tf.config.list_physical_devices("GPU"):
            return "keras"
        kernel = "packed" if masked or units >= _WIDE_UNITS else "hybrid"
        if _compiled_by_xla():
            return "scan"
    if dtype == "float64" and kernel in ("packed", "hybrid"):
        return "scan"
    return kernel


def takes_loop(units: int) -> bool:
    """Whether the packed kernel takes the loop for layers of this size, not rectangles."""
    return units >= _WIDE_UNITS


def _compiled_by_xla() -> bool:
    """Whether the function being traced is one of `jit_compile=True`, or is called by one."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        context = getattr(graph, "_get_control_flow_context", lambda: None)()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
