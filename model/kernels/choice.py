"""Which kernel runs: what was asked for, or the one that measurements say is fastest.

Time of a training step of Keras's masked Bidirectional(LSTM) divided by ours, float32, one thread,
`benchmarks/bilstm_against_keras.py`; "full" has no padding, "bucketed" lengths from 0.85·T to T,
"uniform" from 1 to T:

    (B, T, D, H)          lengths    packed   hybrid
    (32,  50, 16,  64)    uniform    3.3      2.9
                          bucketed   2.8      2.9
                          full       2.9      3.2
    (64, 128, 32, 128)    uniform    2.3      1.6
                          bucketed   1.5      1.5
                          full       1.4      1.6
    (64, 400, 64, 256)    uniform    2.3      1.5
                          bucketed   1.4      1.3
                          full       1.3      1.2

So `auto` is

- "keras" on a GPU, where cuDNN is faster than anything made of single operations, and for cells
  that no other kernel knows: other activations, recurrent dropout in training;
- "scan" in a function that XLA compiles, and in float64, which the fused operations do not know;
- "hybrid" where there is no mask at all, so that every row is known to be full;
- "packed" elsewhere. The density of a batch is known only when it runs; the packed kernel adapts to
  it by itself, because its segments lie where rows end.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

KERNELS = ("auto", "packed", "hybrid", "scan", "keras")
VARIABLE = "LENGTHWISE_KERNEL"


def choose_kernel(kernel: str, *, dtype: str, masked: bool, plain: bool) -> str:
    """Says which kernel runs.

    Args:
        kernel: one of `KERNELS`; "auto" gives way to the environment variable LENGTHWISE_KERNEL.
        dtype: of the computation.
        masked: whether there is a mask.
        plain: whether the cell is the standard one, in inference or without recurrent dropout.

    Returns:
        "packed", "hybrid", "scan" or "keras".

    Raises:
        ValueError: the variable holds something else.

    Example:
        >>> choose_kernel("hybrid", dtype="float32", masked=True, plain=True)
        'hybrid'
        >>> choose_kernel("hybrid", dtype="float32", masked=True, plain=False)
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
        kernel = "packed" if masked else "hybrid"
        if _compiled_by_xla():
            return "scan"
    if dtype == "float64" and kernel in ("packed", "hybrid"):
        return "scan"
    return kernel


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
