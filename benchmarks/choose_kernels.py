"""Measures the kernels of MaskedBiLSTM, and writes the table that `auto` chooses by.

All kernels and Keras's masked Bidirectional(LSTM) run in one process, turn by turn on the same
batch with the same weights; a figure is the median over turns of Keras's CPU time divided by the
kernel's. "rectangles" and "loop" are the two ways of the packed kernel, whatever the width.

    taskset -c 0 python benchmarks/choose_kernels.py --write
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bilstm_against_keras import draw_lengths, make_steps

PAGE = Path(__file__).parents[1] / "model/kernels/choice.py"
START, END = " " * 30, "\n\nSo `auto`"
SHAPES = (
    (32, 50, 16, 32),
    (32, 50, 16, 64),
    (64, 50, 32, 96),
    (64, 50, 32, 128),
    (64, 50, 64, 256),
)
LENGTHS = ("uniform", "bucketed", "full")
# Side -> kernel, and whether the packed one takes the loop.
SIDES = {
    "keras": ("keras", None),
    "hybrid": ("hybrid", None),
    "rectangles": ("packed", False),
    "loop": ("packed", True),
}


def measure(shape: tuple[int, int, int, int], turns: int, *, training: bool) -> dict[str, Any]:
    """Lengths -> side -> how many times better than Keras."""
    from lengthwise.model.kernels import packed

    batch, total, width, units = shape
    inputs = np.random.default_rng(1).normal(size=(batch, total, width)).astype(np.float32)
    masks = {
        kind: np.arange(total) < draw_lengths(kind, batch, total)[:, np.newaxis] for kind in LENGTHS
    }
    bound: dict[str, dict[str, Any]] = {}
    for side, (kernel, loop) in SIDES.items():
        bind = make_steps(kernel, width, units, training=training)
        bound[side] = {kind: bind(inputs, mask) for kind, mask in masks.items()}
        with mock.patch.object(packed, "takes_loop", return_value=loop):
            for step in bound[side].values():
                step()  # the first call makes the graph
    ratios: dict[str, Any] = {kind: {side: [] for side in SIDES} for kind in LENGTHS}
    for _ in range(turns):
        for kind in LENGTHS:
            seconds = {}
            for side, steps in bound.items():
                before = time.process_time()
                steps[kind]()
                seconds[side] = time.process_time() - before
            for side in SIDES:
                ratios[kind][side].append(seconds["keras"] / seconds[side])
    return {
        kind: {side: statistics.median(values) for side, values in by_side.items()}
        for kind, by_side in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ours = [side for side in SIDES if side != "keras"]
    heading = "".join(f"{side:>11}" for side in ours)
    lines = [
        f"    {'':29}{'training':>22}{'inference':>33}",
        f"    {'(B, T, D, H)':20}{'lengths':9}{heading}{heading}",
    ]
    print(*lines, sep="\n", flush=True)
    for shape in SHAPES:
        modes = [measure(shape, options.turns, training=training) for training in (True, False)]
        for number, kind in enumerate(LENGTHS):
            figures = "".join(f"{mode[kind][side]:11.1f}" for mode in modes for side in ours)
            name = "" if number else str(shape)
            lines.append(f"    {name:20}{kind:9}{figures}")
            print(lines[-1], flush=True)
    if options.write:
        write_table(lines)


def write_table(lines: list[str]) -> None:
    """Puts the table into the docstring of the module that chooses."""
    text = PAGE.read_text()
    start = text.index(START)
    end = text.index(END)
    PAGE.write_text(text[:start] + "\n".join(lines) + text[end:])


if __name__ == "__main__":
    main()
